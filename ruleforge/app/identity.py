"""Whether a rule is one that has a name: known, known up to its hyperparameters, or new."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product

from ruleforge.core import expr as ex
from ruleforge.core.canon import fold
from ruleforge.core.form import form_key
from ruleforge.core.known import KNOWN
from ruleforge.core.rule import Hyper, Rule
from ruleforge.core.text import parse
from ruleforge.evaluate.probes import Behaviours, fingerprint_variants, fingerprints

MIN_BETA = 0.3
MAX_TRIALS = 64


@dataclass(frozen=True)
class KnownAs:
    """The nearest name of a rule.

    Attributes:
        relation: "known", "known up to hyperparameters", "known, untied" or "new".
        name: of the known rule, or "".
    """

    relation: str
    name: str = ""

    def __str__(self) -> str:
        words = {
            "known": self.name,
            "known up to hyperparameters": f"{self.name} with other hyperparameters",
            "known, untied": f"{self.name} with its hyperparameters untied",
        }
        return words.get(self.relation, "new")


def identify(rule: Rule) -> KnownAs:
    """Compare a rule with the catalogue: by structure, then by behaviour, then by form.

    Behaviour is compared on the probe streams up to a positive scale; form with every constant
    other than 0, 1, 2 and −1 taken for a hyperparameter.
    """
    catalogue = _catalogue()
    if rule.full_key in catalogue.full_keys:
        return KnownAs("known", catalogue.full_keys[rule.full_key])
    seen = fingerprints([str_of(rule)])[0]
    twin = catalogue.behaviours.twin(seen.fingerprint) if seen.fingerprint else None
    if twin is not None:
        return KnownAs("known", catalogue.names[twin])
    name = catalogue.forms.get(form_key(rule)) or _alike_with_its_betas(rule, seen.fingerprint)
    if name:
        return KnownAs("known up to hyperparameters", name)
    loose = catalogue.untied.get(form_key(rule, untied=True), "")
    return KnownAs("known, untied", loose) if loose else KnownAs("new")


def _alike_with_its_betas(rule: Rule, fingerprint: tuple[float, ...]) -> str:
    """The known rule that behaves alike once its betas are set to constants of this rule, or "".

    Only rules with as many slots are tried.
    """
    folded = fold(rule.canonical)
    nodes = ex.walk([folded.update, *folded.states.values()])
    values = {item.number for item in nodes if item.op == "const"}
    values |= {rule.canonical.hypers[item.index].default for item in nodes if item.op == "hyper"}
    betas = sorted(value for value in values if MIN_BETA <= value < 1)
    slots = rule.canonical.slots
    mine = Behaviours()
    mine.add(0, fingerprint or (0.0,))
    for name, known in KNOWN.items() if betas and fingerprint else ():
        if known.rule.rule.canonical.slots != slots:
            continue
        variants = list(islice(_with_betas(known.rule.rule.canonical.hypers, betas), MAX_TRIALS))
        for seen in fingerprint_variants(str(known.rule), variants) if variants else ():
            if seen.fingerprint and mine.twin(seen.fingerprint) is not None:
                return name
    return ""


def _with_betas(hypers: Sequence[Hyper], betas: Sequence[float]) -> Iterator[tuple[float, ...]]:
    """Hyperparameters with each beta set to one of some numbers, where its range allows them."""
    choices = [
        [beta for beta in betas if h.low < beta < h.high] if h.scale == "one_minus_log" else [h.default]
        for h in hypers
    ]
    return product(*choices) if any(h.scale == "one_minus_log" for h in hypers) else iter(())


def identify_text(text: str) -> KnownAs:
    """`identify` for rule text, as a job for a worker."""
    return identify(parse(text).rule)


def str_of(rule: Rule) -> str:
    from ruleforge.core.format import name_text

    return name_text(rule)


@dataclass(frozen=True)
class _Catalogue:
    names: list[str]
    full_keys: dict[str, str]
    forms: dict[str, str]
    untied: dict[str, str]
    behaviours: Behaviours


@lru_cache(maxsize=1)
def _catalogue() -> _Catalogue:
    names = list(KNOWN)
    rules = [KNOWN[name].rule.rule for name in names]
    full_keys: dict[str, str] = {}
    forms: dict[str, str] = {}
    untied: dict[str, str] = {}
    behaviours = Behaviours()
    for number, (name, rule, seen) in enumerate(
        zip(names, rules, fingerprints([str(KNOWN[name].rule) for name in names]), strict=True)
    ):
        full_keys.setdefault(rule.full_key, name)
        forms.setdefault(form_key(rule), name)
        untied.setdefault(form_key(rule, untied=True), name)
        if seen.fingerprint:
            behaviours.add(number, seen.fingerprint)
    return _Catalogue(names, full_keys, forms, untied, behaviours)
