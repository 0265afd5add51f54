"""Tunes the baselines that the package ships: `python -m ruleforge.app.shipping`.

What is shipped is what the quickstart and default configs and `ruleforge compare` need, so that a
first run spends its minutes on searching. Run it again whenever a test says that they are stale.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from tempfile import TemporaryDirectory

from ruleforge.app.compare import SEEDS, comparison_protocol
from ruleforge.app.config import load_config, load_validation_workloads, load_workloads
from ruleforge.app.schema import DEFAULT_BASELINES
from ruleforge.app.setup import (
    baseline_rules,
    confirm_protocol,
    final_protocol,
    make_plan,
    rescoring_seeds,
    rung_protocols,
)
from ruleforge.app.watching import watch_protocol, watched_workloads
from ruleforge.backends import prepare_plane
from ruleforge.core.known import known
from ruleforge.core.text import RuleText
from ruleforge.evaluate.baselines import SHIPPED, cache_path, tune_baselines, tuning_key
from ruleforge.evaluate.evaluator import Protocol
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.rescoring import with_more_seeds
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import Workload, load_suite

CONFIGS = ("quickstart", "default", "elementwise")
SUITES = ("search", "validation", "held_out")

Tuning = tuple[dict[str, RuleText], tuple[Workload, ...], Protocol, Plan]


def shipped_tunings() -> Iterator[Tuning]:
    """Rules, workloads, protocol and plan of everything that is shipped."""
    for name in CONFIGS:
        config = load_config(name)
        rules, plan, workloads = baseline_rules(config), make_plan(config, ()), load_workloads(config)
        for places, protocol, _ in rung_protocols(config, workloads):
            yield rules, places, protocol, plan
        if config.search.rescore:
            yield rules, places, with_more_seeds(protocol, rescoring_seeds(config)), plan
        both = (*workloads, *load_validation_workloads(config))
        yield rules, both, final_protocol(config), plan
        if config.search.confirm:
            yield rules, both, confirm_protocol(config), plan
        if config.search.validate_every:
            watched = watched_workloads(config)
            yield rules, watched, watch_protocol(config), plan
    plan = make_plan(load_config(CONFIGS[0]), ())
    for suite in SUITES:
        rules = {name: known(name).rule for name in DEFAULT_BASELINES}
        yield rules, load_suite(suite), comparison_protocol(SEEDS), plan


def main() -> int:
    """Tune what is missing, keep what is current, drop what nothing asks for any more."""
    workers = Workers(os.cpu_count() or 1)
    needed: set[str] = set()
    with TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for rules, places, protocol, plan in shipped_tunings():
            prepare_plane(plan.update_plane, print)
            tune_baselines(rules, places, protocol, plan, workers, say=print)
            needed |= {tuning_key(w, text.rule, protocol, plan) for w in places for text in rules.values()}
        known_records = [
            json.loads(p.read_text(encoding="utf-8")) for p in (SHIPPED, cache_path()) if p.exists()
        ]
    records = {key: record for found in known_records for key, record in found.items() if key in needed}
    lines = (f"{json.dumps(key)}: {json.dumps(record)}" for key, record in sorted(records.items()))
    SHIPPED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(records)} tunings in {SHIPPED.name}, {SHIPPED.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
