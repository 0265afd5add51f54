"""Fingerprints merge what behaves alike, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from ruleforge.core.format import name_rule
from ruleforge.core.known import KNOWN
from ruleforge.evaluate import probes
from ruleforge.evaluate.probes import Behaviours, probe, update_scales
from ruleforge.search.grammar import load_grammar
from ruleforge.search.strategies import Proposal, Setup, make_strategy
from ruleforge.tasks import WORKLOADS


def random_proposals(count: int) -> list[Proposal]:
    setup = Setup(
        grammar=load_grammar("full"), directions=("max",), population=count, seed=3, seeds=(), immigrants=0.0
    )
    return list(make_strategy("random", setup).ask(0, 0, count))


def alike(a: str, b: str) -> bool:
    one, two = probe([a, b])
    seen = Behaviours()
    seen.add(7, one.fingerprint)
    return seen.twin(two.fingerprint) == 7


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("update = g\n", "update = 3 * g\n"),
        ("update = sign(ema(g, 0.9))\n", "update = sign(trace(g, 0.9))\n"),
        ("update = ema_hat(g, 0.9)\n", "update = ema(g, 0.9) / (1 - 0.9 ** t)\n"),
        ("update = g / abs(g + 1e-30)\n", "update = sign(g)\n"),
    ],
)
def test_rules_equal_up_to_a_positive_scale_are_twins(a: str, b: str) -> None:
    assert alike(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("update = ema(g, 0.9)\n", "update = ema(g, 0.91)\n"),
        ("update = g\n", "update = -g\n"),
        ("update = g + 0.1 * w\n", "update = 2 * g + 0.2 * w\n"),
        ("update = g\n", "update = clip(g, -2, 2)\n"),
        ("update = g / (norm(g) + 1e-8)\n", "update = g / (rms(g) + 1e-8)\n"),
    ],
)
def test_rules_that_differ_are_told_apart(a: str, b: str) -> None:
    assert not alike(a, b)


def test_known_rules_have_distinct_fingerprints_unless_they_are_one_function() -> None:
    names = list(KNOWN)
    seen = Behaviours()
    twins = set()
    for number, (name, result) in enumerate(
        zip(names, probe([str(KNOWN[n].rule) for n in names]), strict=True)
    ):
        assert result.fingerprint, (name, result.reason)
        twin = seen.twin(result.fingerprint)
        if twin is not None:
            twins.add((names[twin], name))
        else:
            seen.add(number, result.fingerprint)
    assert ("adam", "adamw") in twins
    assert len(twins) < 12, twins


REFUSED = [
    ("update = log(g)\n", "non-finite"),
    ("update = 0 * g\n", "zero or constant"),
    ("update = -g\n", "does not descend"),
    ("update = abs(g)\n", "does not descend"),
    ("update = g / lt(t, 20)\n", "does not descend"),  # finite on the streams, nan on the quadratic
    ("update = exp(exp(100 * g))\n", "non-finite"),
]


@pytest.mark.parametrize("plane", ["torch", "numba"])
@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_rules_that_cannot_work_are_refused_with_the_reason(text: str, reason: str, plane: str) -> None:
    assert reason in probe([text], plane)[0].reason


@pytest.mark.parametrize("plane", ["torch", "numba"])
def test_every_baseline_passes_the_probes(plane: str) -> None:
    names = ["sgd", "momentum", "nesterov", "rmsprop", "adam", "nadam", "lion", "signum", "adabelief"]
    assert [r.reason for r in probe([str(KNOWN[n].rule) for n in names], plane)] == [""] * len(names)


@pytest.mark.parametrize("plane", ["torch", "numba"])
def test_a_probe_does_not_depend_on_its_company(plane: str) -> None:
    texts = [*(str(KNOWN[n].rule) for n in ("adam", "lion", "lars")), *(text for text, _ in REFUSED)]
    together = probe(texts, plane)
    assert together == [probe([text], plane)[0] for text in texts]


def test_the_update_scale_is_proportional_to_the_rule() -> None:
    workload = WORKLOADS["teacher_student"]
    one, ten = update_scales(workload, [f"update = {c} * g\n" for c in (1, 10)])
    assert ten == pytest.approx(10 * one, rel=1e-5)
    assert update_scales(workload, ["update = sign(g)\n"])[0] == pytest.approx(1.0, rel=0.05)


SCALED = [str(KNOWN[n].rule) for n in ("adam", "lion", "lars", "sgd", "muon")] + [
    "update = log(g)\n",
    "update = 0 * g\n",
    "update = norm(g) * sign(g)\n",
]


@pytest.mark.parametrize("plane", ["torch", "numba"])
def test_scales_measured_together_are_those_measured_alone(plane: str) -> None:
    workload = WORKLOADS["teacher_student"]
    together = update_scales(workload, [*SCALED, SCALED[0]], plane)
    assert together[-1] == together[0]
    assert together[:-1] == [probes._measured_scales(workload, [text], plane)[0] for text in SCALED]
    assert together[5:7] == [1.0, 1.0], "rules without a finite answer above zero have no scale"


def test_the_planes_agree_on_scales() -> None:
    workload = WORKLOADS["teacher_student"]
    slow, fast = (update_scales(workload, SCALED, plane) for plane in ("reference", "numba"))
    assert fast == pytest.approx(slow, rel=1e-5)


def test_what_is_kept_of_scales_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SCALES_KEPT", 3)
    probes._scales.cache_clear()
    workload = WORKLOADS["teacher_student"]
    once = update_scales(workload, SCALED)
    assert update_scales(workload, SCALED[::-1]) == once[::-1]
    assert len(probes._scales(workload, "torch")) <= len(SCALED)


def test_variants_together_are_the_rules_themselves() -> None:
    adam = KNOWN["adam"].rule.rule
    hypers = adam.canonical.defaults
    variants = [tuple(v * share for v in hypers) for share in (1.0, 0.9, 0.5)]
    texts = [str(name_rule(adam.canonical.with_defaults(v))) for v in variants]
    alone = np.array([r.fingerprint for r in probes.fingerprints(texts)])
    together = np.array(
        [r.fingerprint for r in probes.fingerprint_variants(str(KNOWN["adam"].rule), variants)]
    )
    assert together == pytest.approx(alone, rel=1e-9)
    assert np.abs(together[0] - together[2]).max() > 1e-3


def test_the_planes_agree_on_who_descends() -> None:
    """Numba looks at all rules at once in float32, the others at one after another in float64."""
    texts = [str(known.rule) for known in KNOWN.values()]
    texts += [text for text, _ in REFUSED] + [str(name_rule(p.rule)) for p in random_proposals(150)]
    slow, fast = probe(texts), probe(texts, "numba")
    assert [a.fingerprint for a in slow] == [b.fingerprint for b in fast]
    apart = [text for text, a, b in zip(texts, slow, fast, strict=True) if a.reason != b.reason]
    assert len(apart) <= len(texts) // 100, apart
    assert len({r.reason for r in slow}) == 4


@pytest.mark.parametrize("plane", ["torch", "numba"])
def test_a_rule_that_a_gradient_of_zero_ruins_is_refused(plane: str) -> None:
    texts = [
        "update = g / norm(g)\n",
        "update = ema(g / norm(g), 0.9)\n",
        "update = g / sqrt(mean(g * g))\n",
        "update = normalize(g)\n",
        "update = ema(normalize(g), 0.9)\n",
        "update = g / (norm(g) + 1e-8)\n",
    ]
    reasons = [result.reason for result in probe(texts, plane)]
    assert reasons == ["non-finite update where a tensor's gradient is 0"] * 3 + [""] * 3
