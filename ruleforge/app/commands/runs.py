"""`list`: what runs there are, and what they found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ruleforge.app.commands.options import json_option


@click.command("list")
@click.argument("run", required=False)
@click.option(
    "--results", type=click.Path(path_type=Path), default=None, help="Folder of runs; default: results/."
)
@click.option(
    "--top", type=click.IntRange(min=1), default=20, show_default=True, help="Rules of a run to list."
)
@json_option
def list_(run: str | None, results: Path | None, top: int, as_json: bool) -> None:
    """List the runs, or the best rules of RUN."""
    if run is None:
        _list_runs(results, as_json=as_json)
    else:
        _list_run(run, top, as_json=as_json)


def _list_runs(results: Path | None, *, as_json: bool) -> None:
    from ruleforge.app.display import print_json, print_table, say
    from ruleforge.app.targets import RESULTS
    from ruleforge.store import list_runs

    root = results if results is not None else RESULTS
    found = list_runs(root) if results is not None or root.is_dir() else []
    records = [
        {
            "name": each.name,
            "path": str(each.path),
            "status": each.status,
            "generations": each.generations,
            "candidates": each.candidates,
            "trained": each.trained,
            "seed": each.seed,
            "created_at": each.created_at,
            "champion": each.champion,
            "problem": each.problem,
        }
        for each in found
    ]
    if as_json:
        print_json(records)
        return
    if not records:
        say(f"no runs in {root}/ yet; `ruleforge search quickstart` makes one")
        return
    rows = [
        (
            record["name"],
            record["status"],
            record["generations"],
            record["candidates"],
            record["trained"],
            "" if record["seed"] is None else record["seed"],
            record["created_at"],
            record["problem"],
        )
        for record in records
    ]
    columns = ("run", "status", "generations", "candidates", "trained", "seed", "created", "problem")
    print_table(columns, rows, right=("generations", "candidates", "trained", "seed"))


def _list_run(run: str, top: int, *, as_json: bool) -> None:
    from ruleforge.app.display import print_json, print_table, say
    from ruleforge.app.final_record import final_record
    from ruleforge.app.plain import format_ratio
    from ruleforge.app.ranking import rank
    from ruleforge.app.targets import require_run
    from ruleforge.store import Store

    folder = require_run(run)
    with Store.open(folder, readonly=True) as store:
        ranked = rank(store)[:top]
        final = final_record(store)
    judged = {each["id"]: each for each in final.get("front") or ()}
    records = [
        {
            "id": each.row.id,
            "on_front": each.on_front,
            "rung": each.rung,
            "speedup_vs_oracle": each.speedup,
            "final": judged.get(each.row.id, {}).get("speedup"),
            "known_as": judged.get(each.row.id, {}).get("known_as"),
            "nodes": each.row.nodes,
            "states": each.row.states,
            "generation": each.row.generation,
            "origin": each.row.origin,
            "text": each.row.text,
        }
        for each in ranked
    ]
    if as_json:
        print_json(records)
        return
    if not records:
        say(f"{folder} holds no trained rule yet")
        return

    def judged_on(record: dict[str, Any], suite: str) -> str:
        standing = ((record["final"] or {}).get(suite) or {}).get("vs_best_single") or {}
        return format_ratio(standing.get("speedup"))

    rows = [
        (
            record["id"],
            "*" if record["on_front"] else "",
            record["rung"],
            format_ratio(record["speedup_vs_oracle"]),
            judged_on(record, "search"),
            judged_on(record, "validation"),
            record["nodes"],
            record["states"],
            record["origin"],
            "; ".join(line for line in record["text"].strip().splitlines() if not line.startswith('"""')),
        )
        for record in records
    ]
    columns = (
        "id",
        "front",
        "rung",
        "in the search",
        "final: search",
        "final: validation",
        "nodes",
        "states",
    )
    print_table((*columns, "from", "rule"), rows, right=("id", *columns[2:]))
    say(f"`ruleforge show {run}:ID` prints one; * marks the front of speed-up and nodes at the highest rung;")
    say("in the search: over the oracle; final: over the best single baseline, on fresh seeds")


COMMANDS = (list_,)
