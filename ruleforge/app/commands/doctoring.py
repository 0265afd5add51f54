"""`doctor`: what this machine can run, and how fast a small training is."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import click

from ruleforge.app.commands.options import json_option, worker_count

LIBRARIES = ("torch", "numpy", "numba", "triton", "sympy", "deap", "scikit-learn", "pydantic", "rich")
QUICK_STEPS, FULL_STEPS = 10, 50


@click.command()
@click.option("--quick", is_flag=True, help="Train one workload for a few steps, not the whole search suite.")
@json_option
@click.pass_context
def doctor(context: click.Context, quick: bool, as_json: bool) -> None:
    """Show what this machine can run, by trying it."""
    from ruleforge.app.display import print_facts, print_json, print_table, say
    from ruleforge.app.plain import format_bytes, format_span

    report: dict[str, Any] = {"machine": _machine(), "libraries": _libraries(), "contents": _contents()}
    trainings = _train_a_little(quick=quick)
    report["training"] = trainings
    report["peak_memory_bytes"] = _peak_memory_bytes()
    works = all(each["problem"] == "" for each in trainings)
    report["works"] = works
    if as_json:
        print_json(report)
    else:
        machine = dict(report["machine"])
        for name in ("memory_bytes", "free_disk_bytes"):
            value = machine.pop(name)
            machine[name.removesuffix("_bytes")] = "unknown" if value is None else format_bytes(value)
        print_facts({name.replace("_", " "): value for name, value in machine.items() if value is not None})
        say()
        print_facts({name: version or "not installed" for name, version in report["libraries"].items()})
        say()
        print_facts(report["contents"])
        say()
        rows = [
            (
                each["workload"],
                each["lanes"],
                each["steps"],
                format_span(each["setup_s"]),
                format_span(each["wall_s"]),
                f"{each['lane_steps_per_s']:,.0f}",
                each["problem"] or f"loss {each['loss_before']:.3g} → {each['loss_after']:.3g}",
            )
            for each in trainings
        ]
        columns = ("workload", "lanes", "steps", "setup", "training", "lane-steps/s", "adam")
        print_table(columns, rows, title="A small training, one process, one thread", right=columns[1:-1])
        say(f"peak memory: {format_bytes(report['peak_memory_bytes'])}")
        say("training works" if works else "training does NOT work here")
    if not works:
        context.exit(1)


def _machine() -> dict[str, Any]:
    import torch

    from ruleforge.backends import available_planes, fastest_plane

    compiler = next((found for name in ("gcc", "cc", "clang") if (found := shutil.which(name))), None)
    results = Path("results")
    where = results if results.is_dir() else Path.cwd()
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "usable_cpus": worker_count(None),
        "threads_by_environment": os.environ.get("OMP_NUM_THREADS"),
        "compiler": compiler,
        "update_plane": fastest_plane(),
        "update_planes": ", ".join(f"{n} ({why})" if why else n for n, why in available_planes().items()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_bytes": _memory_bytes(),
        "free_disk_bytes": shutil.disk_usage(where).free,
        "results_folder": str(where.absolute()),
        "results_writable": os.access(where, os.W_OK),
    }


def _memory_bytes() -> int | None:
    """Memory that this process may use: the machine's, or the container's limit where that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()).isdecimal():
        return min(int(text), total) if total is not None else int(text)
    return total


def _libraries() -> dict[str, str | None]:
    import sqlite3
    from importlib import metadata

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {**{name: version(name) for name in LIBRARIES}, "sqlite": sqlite3.sqlite_version}


def _contents() -> dict[str, Any]:
    from ruleforge.app.config import CONFIG_FOLDER, config_names
    from ruleforge.core.known import KNOWN
    from ruleforge.core.ops import OPS
    from ruleforge.search.grammar import grammar_names
    from ruleforge.tasks import WORKLOADS

    return {
        "known rules": len(KNOWN),
        "verified rules": sum(each.verified is not None for each in KNOWN.values()),
        "ops": len(OPS),
        "workloads": len(WORKLOADS),
        "grammars": ", ".join(grammar_names()),
        CONFIG_FOLDER: ", ".join(config_names()),
    }


def _train_a_little(*, quick: bool) -> list[dict[str, Any]]:
    """Adam on each workload of the search suite, for a few steps, in one chunk of lanes."""
    from ruleforge.backends import fastest_plane
    from ruleforge.core.known import known
    from ruleforge.evaluate.evaluator import Protocol, evaluate
    from ruleforge.evaluate.lanes import Plan
    from ruleforge.evaluate.workers import Workers
    from ruleforge.tasks import load_suite

    plan = Plan(update_plane=fastest_plane())
    steps = QUICK_STEPS if quick else FULL_STEPS
    rates = tuple(10.0 ** (k / 4 - 3) for k in range(8))
    copies = plan.chunk_lanes // len(rates)
    adam = str(known("adam").rule)
    trainings = []
    for workload in load_suite("search")[: 1 if quick else None]:
        record: dict[str, Any] = {"workload": workload.name, "lanes": copies * len(rates), "steps": steps}
        record |= {"problem": "", "loss_before": None, "loss_after": None}
        record |= {"setup_s": 0.0, "wall_s": 0.0, "lane_steps_per_s": 0.0}
        try:
            began = time.perf_counter()
            evaluate(
                [adam], [workload], Protocol(rates[:1], n_steps=1), plan, Workers(1)
            )  # loads and compiles
            record["setup_s"] = time.perf_counter() - began
            began = time.perf_counter()
            rows = evaluate([adam] * copies, [workload], Protocol(rates, n_steps=steps), plan, Workers(1))
            record["wall_s"] = time.perf_counter() - began
            record["lane_steps_per_s"] = record["lanes"] * steps / record["wall_s"]
            curve = rows[0][0].curves[0]
            before, after = curve[0], curve[-1]
            record |= {"loss_before": before, "loss_after": after}
            if before is None or after is None or not after < before:
                record["problem"] = "the loss does not fall"
        except Exception as error:  # whatever is broken here is what the doctor is asked about
            first = str(error).split("\n")[0]
            record["problem"] = f"{type(error).__name__}: {first}"
        trainings.append(record)
    return trainings


def _peak_memory_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


COMMANDS = (doctor,)
