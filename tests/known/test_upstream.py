"""Every known rule against the upstream optimizers it claims to equal: all steps, all streams.

Recorded packages are read from `tests/golden/upstream`; torch's own classes run live.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ruleforge.core.known import KNOWN
from tests.golden.upstream.specs import SPECS, TOLERANCE, Spec, digest
from tests.golden.upstream.streams import N_STEPS, SHAPE
from tests.golden.upstream.streams import digest as streams_digest
from tests.known.comparison import (
    UPSTREAM,
    as_seen_by,
    difference,
    measure,
    record_index,
    recording,
    streams,
    train,
    upstream,
    version,
)

RECORDED = sorted({spec.package for spec in SPECS} - {"torch"})
COMPARED = [name for name in KNOWN if KNOWN[name].comparisons]
FLOAT32_UPSTREAM = {"laprop_po", "qhadam", "madgrad"}

every_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
every_package = pytest.mark.parametrize("package", RECORDED)


@every_spec
def test_the_rule_equals_upstream_step_by_step(spec: Spec) -> None:
    assert measure(spec.id) <= spec.tolerance


def test_every_known_rule_is_compared_but_those_that_have_no_upstream() -> None:
    assert {spec.rule for spec in SPECS} == set(COMPARED)
    assert {name for name in KNOWN if name not in COMPARED} == {
        "muon_adamw", "expert_nadam", "expert_muon", "two_memories",
    }  # fmt: skip
    assert len({spec.id for spec in SPECS}) == len(SPECS)


def test_only_upstreams_with_float32_inside_get_a_larger_tolerance() -> None:
    loose = {spec.rule for spec in SPECS if spec.tolerance > TOLERANCE}
    assert loose <= FLOAT32_UPSTREAM
    assert all(
        spec.tolerance <= 5e-8 and "float32" in spec.note for spec in SPECS if spec.tolerance > TOLERANCE
    )


@pytest.mark.parametrize("rule", COMPARED)
def test_the_shipped_record_is_what_is_measured(rule: str) -> None:
    specs = [spec for spec in SPECS if spec.rule == rule]
    shipped = KNOWN[rule].comparisons
    assert [(row.upstream, row.variant) for row in shipped] == [(s.upstream, s.variant) for s in specs]
    for row, spec in zip(shipped, specs, strict=True):
        assert row.tolerance == spec.tolerance
        assert row.max_diff <= row.tolerance
        if spec.package != "torch":
            assert row.version == version(spec.package)
        # Another machine may round a power or an exponential the other way: a factor, and a floor.
        measured = measure(spec.id)
        assert measured <= 10 * row.max_diff + 1e-13
        assert row.max_diff <= 10 * measured + 1e-13
    assert KNOWN[rule].verified == shipped[0]


# the recordings themselves


@every_package
def test_the_recording_is_of_these_specs_and_streams(package: str) -> None:
    entry = record_index()[package]
    specs = tuple(spec for spec in SPECS if spec.package == package)
    assert entry["streams_digest"] == streams_digest(streams()), "the streams are not those recorded"
    assert entry["specs_digest"] == digest(specs), "run tests/golden/upstream/record.py again"
    arrays = recording(package)
    assert set(arrays) == {spec.id for spec in specs}
    for name, weights in arrays.items():
        assert weights.shape == (4, N_STEPS, *SHAPE), name
        assert weights.dtype == np.float64, name
        assert np.isfinite(weights).all(), name
    assert not any(spec.transpose or spec.lift_bfloat16 for spec in specs)


def test_the_streams_have_what_their_docstrings_promise() -> None:
    white, sparse, drift, orthogonal = streams()
    assert [s.name for s in streams()] == ["white", "sparse", "drift", "orthogonal"]
    assert abs(white.gradients.mean()) < 0.1 and 0.9 < white.gradients.std() < 1.1
    assert 0.25 < (sparse.gradients == 0).mean() < 0.35
    scales = np.abs(sparse.gradients).max(axis=0)
    assert scales.max() / scales.min() > 300
    assert np.linalg.norm(sparse.weights) > 10 > np.linalg.norm(white.weights)
    signs = np.sign(drift.gradients)
    assert (np.abs(signs.mean(axis=0)) == 1).mean() > 0.6
    inner = (orthogonal.gradients * orthogonal.weights).sum(axis=-1)
    assert np.abs(inner).max() < 1e-15
    assert 0 < np.linalg.norm(orthogonal.gradients, axis=(1, 2)).max() < 1


# the comparison can fail

PAIRS = [
    ("adopt", "adopt_po"),
    ("amsgrad", "amsgrad_max_of_debiased"),
    ("cautious_lion", "cautious_lion_po"),
    ("radam", "radam_eps_debiased"),
    ("laprop", "laprop_po"),
    ("lamb", "lamb_po"),
    ("lars", "lars_norm_of_sum"),
    ("mars_adamw", "mars_adamw_po"),
    ("mars_lion", "mars_lion_po"),
    ("rmsprop_debiased", "rmsprop_eps_inside"),
    ("adan", "adan_optax"),
    ("rprop", "rprop_optax"),
]


@pytest.mark.parametrize(("rule", "impostor"), PAIRS)
def test_a_near_relative_does_not_pass_for_the_rule(rule: str, impostor: str) -> None:
    caught = []
    for spec in (s for s in SPECS if s.rule == rule):
        shared = {k: v for k, v in spec.hypers.items() if k in KNOWN[impostor].rule.hypers}
        disguised = replace(spec, hypers=shared)
        caught += [
            difference(train(KNOWN[impostor], disguised, stream), theirs)
            for stream, theirs in zip(streams(), upstream(spec), strict=True)
        ]
    assert max(caught) > 3 * TOLERANCE


def test_the_measure_sees_a_single_changed_step() -> None:
    a = np.zeros((50, 7, 5))
    b = a.copy()
    b[31, 2, 4] = 1e-9
    assert difference(a, a) == 0
    assert difference(a, b) == 1e-9
    b[31, 2, 4] = np.nan
    assert difference(a, b) == float("inf")
    with pytest.raises(ValueError, match="shapes"):
        difference(a, a[:1])


def test_the_measure_refuses_a_hyper_that_the_rule_has_not() -> None:
    spec = replace(SPECS[0], hypers={"beta1": 0.5})
    with pytest.raises(ValueError, match="beta1"):
        train(KNOWN["sgd"], spec, streams()[0])


def _nudged(value: float, low: float, high: float, scale: str) -> float:
    """Another value inside the range: the distance to its natural end made half as large again."""
    moved = 1 - 1.5 * (1 - value) if scale == "one_minus_log" else 1.5 * value
    return moved if low < moved < high else low + 0.7 * (value - low)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [name for name in COMPARED if KNOWN[name].rule.hypers])
def test_every_hyperparameter_shows_in_some_comparison(rule: str) -> None:
    entry = KNOWN[rule]
    for name, hyper in zip(entry.rule.hypers, entry.rule.rule.hypers, strict=True):
        largest = 0.0
        for spec in (s for s in SPECS if s.rule == rule):
            value = spec.hypers.get(name, hyper.default)
            other = _nudged(value, hyper.low, hyper.high, hyper.scale)
            changed = replace(spec, hypers={**spec.hypers, name: other})
            for stream in (as_seen_by(spec, s) for s in streams()):
                largest = max(largest, difference(train(entry, changed, stream), train(entry, spec, stream)))
        assert largest > TOLERANCE, f"{rule}: no comparison would notice a wrong {name}"


@pytest.mark.slow
@every_package
def test_upstream_still_does_what_was_recorded(package: str, tmp_path: Path) -> None:
    python = os.environ.get("RULEFORGE_UPSTREAM_PYTHON", sys.executable)
    probe = f"import importlib.metadata as m; print(m.version({package!r}))"
    found = subprocess.run([python, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
    if found.returncode:
        pytest.skip(f"{package} is not installed; name an interpreter in RULEFORGE_UPSTREAM_PYTHON")
    recorded = record_index()[package]["version"]
    if found.stdout.strip() != recorded:
        pytest.skip(f"{package} {found.stdout.strip()} is installed, {recorded} was recorded")
    script = [python, str(UPSTREAM / "record.py"), "--packages", package, "--out", str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    entry = json.loads((tmp_path / "record.json").read_text())[package]
    assert entry["streams_digest"] == record_index()[package]["streams_digest"]
    with np.load(tmp_path / f"{package}.npz") as again:
        for name, weights in recording(package).items():
            assert difference(again[name], weights) < 1e-12, name


@pytest.mark.parametrize("rule", KNOWN)
def test_the_rule_stays_finite_in_float32(rule: str) -> None:
    """Searches run in float32, where exact zeros meet an eps that may vanish beside them."""
    spec = next((s for s in SPECS if s.rule == rule), Spec(rule, ""))
    sparse = streams()[1]
    single = replace(
        sparse, weights=sparse.weights.astype(np.float32), gradients=sparse.gradients.astype(np.float32)
    )
    after = train(KNOWN[rule], spec, single)
    assert after.dtype == np.float32
    assert np.isfinite(after).all()
