"""A learned prior: which ops the survivors of an earlier run were made of.

Reads a run folder, a stranger's too: its database is text and numbers, its genomes are parsed and never run.
What comes out is a factor for each op, terminal and kind of constant, which a config spells out in full, so
that a search can be repeated without the run that it learned from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ruleforge.app.ranking import rank
from ruleforge.errors import RuleforgeError
from ruleforge.store import Store

SURVIVORS: Final = 0.1
"""Share of the rules of the highest rung that count as survivors, the best ones."""
LEAST_SURVIVORS: Final = 10
MOST_RULES: Final = 20_000
DOUBT: Final = 0.02
"""Share added to both sides, so that rare ops get no wild factors."""
LARGEST: Final = 4.0


def learned_weights(folder: Path) -> dict[str, float]:
    """Factors by op, terminal or kind of constant: how much more often survivors hold it than first draws do.

    Survivors are the best tenth of the rules of its highest rung; first draws are what the run proposed in
    its first generation, before any selection.

    Raises:
        StoreError: the folder cannot be read.
        RuleforgeError: it holds too few rules to learn from.
    """
    with Store.open(folder, readonly=True) as store:
        ranked = [each for each in rank(store) if not each.row.reason and each.speedup is not None]
        top = max((each.rung for each in ranked), default=0)
        full = sorted(
            (each for each in ranked if each.rung == top),
            key=lambda each: (-(each.speedup or 0.0), each.row.id),
        )
        survivors = [each.row.genome for each in full[: max(LEAST_SURVIVORS, round(SURVIVORS * len(full)))]]
        drawn = [row.genome for row in store.candidates()[:MOST_RULES] if row.generation == 0]
    if len(survivors) < LEAST_SURVIVORS:
        raise RuleforgeError(
            f"its highest rung saw {len(survivors)} rules, too few to learn from",
            hint=f"a run with at least {LEAST_SURVIVORS} such rules teaches something",
        )
    kept, first = _shares(survivors), _shares(drawn)
    return {
        name: round(min(LARGEST, max(1 / LARGEST, (kept.get(name, 0.0) + DOUBT) / (first[name] + DOUBT))), 3)
        for name in sorted(first)
    }


def _shares(genomes: Iterable[str]) -> dict[str, float]:
    """The share of the genomes that hold each op, terminal or kind of constant."""
    counts: Counter[str] = Counter()
    total = 0
    for text in genomes:
        counts.update(parts(text))
        total += 1
    return {name: n / max(1, total) for name, n in counts.items()}


def parts(genome: str) -> frozenset[str]:
    """Ops, terminals and kinds of constants of a genome, as a grammar's weights name them.

    Raises:
        RuleError: the text is no genome.
    """
    from ruleforge.search.deap_bridge import Call, Const, Ref
    from ruleforge.search.forms import TYPE_LABELS
    from ruleforge.search.genome import from_text

    names = set()
    for line in from_text(genome).lines:
        for item in line.tree:
            if isinstance(item, Call):
                names.add(item.form.op)
            elif isinstance(item, Const):
                names.add(TYPE_LABELS[item.ret])
            elif not isinstance(item, Ref):
                names.add(str(item.name))
    return frozenset(names)
