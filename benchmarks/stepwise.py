"""A search that is taken a generation at a time, for benchmarks that look at each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ruleforge.app.config import load_workloads, resolved_toml
from ruleforge.app.loop import SearchRun
from ruleforge.app.progress import QuietProgress
from ruleforge.app.schema import Config
from ruleforge.app.setup import (
    baseline_rules,
    make_plan,
    make_rungs,
    rung_protocols,
    search_strategy,
)
from ruleforge.backends import prepare_plane
from ruleforge.evaluate.baselines import tune_baselines
from ruleforge.evaluate.funnel import Funnel
from ruleforge.evaluate.prepare import compile_gradients
from ruleforge.evaluate.workers import Workers
from ruleforge.store import Store


@contextmanager
def prepared(config: Config, workers: int) -> Iterator[SearchRun]:
    """A search before its first generation: planes compiled, baselines tuned; its folder goes afterwards."""
    workloads = load_workloads(config)
    plan = make_plan(config, workloads)
    prepare_plane(plan.update_plane)
    ladder = rung_protocols(config, workloads)
    with (
        TemporaryDirectory() as folder,
        Store.create(Path(folder) / "run", config_text=resolved_toml(config), meta={"plan": {}}) as store,
        Workers(workers) as pool,
    ):
        compile_gradients(workloads, plan, pool, lambda text: None)
        tuned = [
            tune_baselines(baseline_rules(config), places, protocol, plan, pool)
            for places, protocol, _ in ladder
        ]
        funnel = Funnel(make_rungs(ladder, tuned), plan, pool)
        yield SearchRun(config, store, QuietProgress(), workloads, funnel, search_strategy(config))
