"""The ablation benchmark: its arms are configs, its comparisons are paired, an interrupted one goes on."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ruleforge.app.config import parse_config, resolved_toml
from ruleforge.app.progress import QuietProgress
from ruleforge.evaluate.statistics import t_interval
from ruleforge.tasks import SUITES
from tests.app.test_search_runs import SMALL, Interrupting


@pytest.fixture(scope="module")
def ablation(project_root: Path) -> ModuleType:
    path = project_root / "benchmarks" / "search_ablation.py"
    spec = importlib.util.spec_from_file_location("search_ablation", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(**more: Any) -> argparse.Namespace:
    given = {"config": "default", "set": [], "lane_steps": 5000, "workers": 1, "prior": None}
    return argparse.Namespace(**{**given, **more})


def test_every_arm_is_a_config_that_spends_the_same(ablation: ModuleType) -> None:
    plain = ablation.config_of("nsga2", 3, options())
    for arm in ablation.ARMS:
        if arm == "prior":
            continue
        config = ablation.config_of(arm, 3, options())
        assert (config.seed, config.search.lane_steps) == (3, 5000)
        assert (config == plain) == (arm == "nsga2" or (arm == "second_look" and plain.search.confirm == 32))
        assert config.training.seeds == plain.training.seeds and config.limits == plain.limits


def record(arm: str, seed: int, speedup: float | None) -> dict[str, Any]:
    standing = {"vs_best_single": {"speedup": speedup}}
    point = {"id": 1, "search": standing, "validation": standing}
    return {
        "arm": arm, "seed": seed, "commit": "abc", "lane_steps": 100, "known_as": "new",
        "curve": [{"lane_steps": 50 * k, "trained": k, "wall_s": 1.0 * k, "best": 0.8 + k / 10}
                  for k in (1, 2)],
        "by_own_fitness": [{"share": 0.25, "id": None}, *({"share": q, **point} for q in (0.5, 0.75, 1.0))],
        "champion": point if speedup else None,
    }  # fmt: skip


def test_arms_are_compared_by_pairs_of_seeds(ablation: ModuleType) -> None:
    ours, theirs = (1.2, 1.5, 1.0), (1.0, 1.3, None)
    runs = {
        "nsga2": [record("nsga2", k, v) for k, v in enumerate(ours)],
        "random": [record("random", k, v) for k, v in enumerate(theirs)],
    }
    found = ablation.summarize(runs)
    logs = [math.log(1.2), math.log(1.5 / 1.3), math.log(1.0 / 0.5)]  # no champion counts as half as fast
    paired = found["paired"]["random"]["validation"]
    assert paired["mean"] == pytest.approx(math.exp(sum(logs) / 3))
    assert paired["ci"] == pytest.approx([math.exp(v) for v in t_interval(logs) or ()])
    text = ablation.table(json.loads(json.dumps(found)))
    assert f"nsga2 beats random in champions' validation speed-up by ×{paired['mean']:.3f}" in text
    assert "—" in text  # at a quarter there was no recommendation yet
    assert found["arms"]["nsga2"]["own_fitness"][1]["mean"] == pytest.approx(0.9)


@pytest.mark.slow
def test_an_interrupted_arm_goes_on_and_is_measured_once(
    ablation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(SUITES, "validation", ("breast_cancer",))
    (tmp_path / "small.toml").write_text(resolved_toml(parse_config(SMALL)))
    given = options(config=str(tmp_path / "small.toml"), lane_steps=1500, out=tmp_path / "out")
    whole = ablation.measure("nsga2", 0, options(**{**vars(given), "out": tmp_path / "whole"}))
    monkeypatch.setattr(ablation, "PlainProgress", lambda *_, **__: Interrupting(0))
    with pytest.raises(KeyboardInterrupt):
        ablation.measure("nsga2", 0, given)
    monkeypatch.setattr(ablation, "PlainProgress", lambda *_, **__: QuietProgress())
    again = ablation.measure("nsga2", 0, given)

    def timeless(found: dict[str, Any]) -> dict[str, Any]:
        curve = [{k: v for k, v in point.items() if k != "wall_s"} for point in found["curve"]]
        return {**found, "curve": curve}

    assert timeless(json.loads(json.dumps(again))) == timeless(json.loads(json.dumps(whole)))
    assert again["champion"]["validation"]["vs_best_single"]["speedup"] > 0
    monkeypatch.setattr(ablation, "run_search", None)  # nothing is searched twice
    assert ablation.measure("nsga2", 0, given) == json.loads(json.dumps(again))
    assert not list((tmp_path / "out" / "under_way").iterdir())
