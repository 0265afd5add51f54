"""A finished run and an unfinished one, made without training, for the tests of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ruleforge.app.cli import cli
from ruleforge.app.config import parse_config, resolved_toml
from ruleforge.core.text import parse
from ruleforge.records import CandidateRow, EvaluationRow, FitnessRow, GenerationRow, ParentRow, TimingRow
from ruleforge.store import Store
from ruleforge.tasks import SUITES

SIGN_EMA = "beta: hyper(0, 1) = 0.9\nupdate = sign(ema(g, beta))\n"
SCALED = "update = g * 2\n"
CUBED = "update = g * g * g\n"
RULES = (SIGN_EMA, SCALED, CUBED)
SPEEDUPS = (1.2, 1.1, 0.8)


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own and two small validation workloads, for tests that run whole searches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(SUITES, "validation", ("quadratic", "heavy_tails"))
        yield


@pytest.fixture
def run_cli() -> Callable[..., Result]:
    """Runs a command in this process; stdout and stderr are kept apart."""

    def run(*args: str) -> Result:
        return CliRunner().invoke(cli, list(args))

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the command line stands in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def standing(speedup: float) -> dict[str, Any]:
    summary = {"speedup": speedup, "ci": [speedup - 0.1, speedup + 0.1], "median": speedup, "worst": speedup}
    return {name: {**summary, "n_workloads": 3} for name in ("vs_best_single", "vs_oracle", "vs_adam")}


def final_record(folder: Path) -> dict[str, Any]:
    """What a search prints at its end, in the shape of its JSON."""
    champion = {
        "id": 0,
        "text": SIGN_EMA,
        "nodes": 4,
        "states": 1,
        "known_as": "signum",
        "speedup": {"search": standing(1.3), "validation": standing(0.9)},
        "workloads": {},
    }
    new = {**champion, "id": 2, "text": CUBED, "states": 0, "known_as": "new"}
    return {
        "run": str(folder),
        "champion": {
            **champion,
            "simplified": {"text": SIGN_EMA, "nodes": 4, "relation": "equal", "steps": []},
            "lr_vs_adam": 0.3,
        },
        "best_new": new,
        "front": [champion, new],
        "baselines": [{"name": "adam", "speedup": {"search": standing(1.0), "validation": standing(1.0)}}],
        "carries_over": "The win does NOT carry over.",
        "funnel": {"proposed": 9, "unique": 5, "trained": 3},
    }


def make_run(folder: Path, *, finished: bool = True) -> Path:
    """A run folder with three trained rules and a rejected one."""
    config = parse_config({"search": {"population": 4, "generations": 1}})
    with Store.create(folder, config_text=resolved_toml(config), meta={"seed": 7}) as store:
        rows = []
        for number, text in enumerate((*RULES, "update = w\n")):
            rule = parse(text).rule
            rows.append(
                CandidateRow(
                    id=number,
                    key=rule.key,
                    full_key=rule.full_key,
                    text=text,
                    genome="",
                    nodes=rule.nodes,
                    states=rule.slots,
                    generation=0,
                    origin="seed:signum" if number == 0 else "crossover",
                    status="trained" if number < 3 else "rejected",
                    reason="" if number < 3 else "does not use the gradient",
                )
            )
        store.commit_generation(
            GenerationRow(n=0, population=(0, 1, 2), rng={}, strategy={}),
            rows,
            [ParentRow(2, 0, 0), ParentRow(2, 1, 1)],
            [
                EvaluationRow(
                    candidate=number,
                    rung=0,
                    workload="digits_mlp",
                    steps=24,
                    n_lanes=3,
                    n_diverged=0,
                    best_lr=0.01,
                    best_schedule="cosine",
                    final_loss=0.5,
                    speedup={"vs_oracle": 1.2},
                )
                for number in range(3)
            ],
            [
                FitnessRow(number, 0, "speedup_vs_oracle", value)
                for number, value in enumerate((1.2, 1.1, 0.8))
            ],
            [TimingRow(0, "train", 1.0)],
        )
        if finished:
            store.put_champion(SIGN_EMA)
            store.put_result("final", final_record(folder))
            store.put_result("finished", {"generations": 1})
    return folder


@pytest.fixture
def finished_run(here: Path) -> Path:
    """A finished run under results/."""
    (here / "results").mkdir()
    return make_run(Path("results") / "first")
