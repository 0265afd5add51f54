"""`explain`: what a rule is nearest to, what holds of it, what each part does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ruleforge.app.commands.options import json_option, worker_count, workers_option

if TYPE_CHECKING:
    from ruleforge.explain import Explained
    from ruleforge.simplify.paired import Bench


@click.command()
@click.argument("target")
@click.option(
    "--train",
    metavar="SUITE",
    default=None,
    help="Also train it without each part, on this suite (search or validation).",
)
@click.option("--tasks", default=None, help="Train on these workloads, comma-separated.")
@click.option(
    "--seeds", type=click.IntRange(min=2, max=64), default=8, show_default=True, help="To train with."
)
@click.option(
    "--svg", type=click.Path(path_type=Path), default=None, help="Write the response plots to this file."
)
@click.option("--force", is_flag=True, help="Overwrite.")
@workers_option
@json_option
def explain(
    target: str, train: str | None, tasks: str | None, seeds: int, svg: Path | None, force: bool,
    workers: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Say what a rule is nearest to and what each part does.

    With --train, each part's contribution: how many times as many steps the rule needs without it, with
    the 95 % interval over paired seeds. That takes minutes.
    """
    from ruleforge.app.commands.files import check_new, write_new
    from ruleforge.app.display import print_json, remark
    from ruleforge.app.targets import resolve_target
    from ruleforge.explain.explain import explain as explain_rule
    from ruleforge.explain.pictures import svg as picture

    found = resolve_target(target)
    if svg is not None:
        check_new(svg, suffix=".svg", force=force)
    bench = _bench(train, tasks, seeds, worker_count(workers))
    if bench is not None:
        remark(f"training it without each part on {', '.join(w.name for w in bench.workloads)}")
    result = explain_rule(found.text, bench=bench)
    if svg is not None:
        write_new(svg, picture(result.responses, found.name), suffix=".svg", force=force)
    if as_json:
        print_json(result.as_json())
    else:
        _print(found.name, result, trained=train is not None or tasks is not None)
    if svg is not None:
        remark(f"wrote {svg}")


def _bench(train: str | None, tasks: str | None, seeds: int, workers: int) -> Bench | None:
    if train is None and tasks is None:
        return None
    from ruleforge.app.display import remark
    from ruleforge.app.values import KEPT_APART, kept_suite
    from ruleforge.backends import fastest_plane, prepare_plane
    from ruleforge.errors import InputError
    from ruleforge.evaluate.lanes import Plan
    from ruleforge.evaluate.workers import Workers
    from ruleforge.simplify.paired import Bench, paired_protocol
    from ruleforge.tasks import load_suite, load_workload

    names = [name.strip() for name in (tasks or "").split(",") if name.strip()]
    kept = [name for name in names if kept_suite(name)] if names else [s for s in KEPT_APART if s == train]
    if kept:
        raise InputError(
            f"{', '.join(kept)}: kept apart, for whoever sees there which part of a rule counts "
            "will choose by it",
            hint="train on search or validation; `ruleforge compare` and the final report alone read it",
        )
    workloads = [load_workload(name) for name in names] if names else list(load_suite(train or "search"))
    plan = Plan(update_plane=fastest_plane(remark))
    prepare_plane(plan.update_plane, remark)
    return Bench(workloads, paired_protocol(seeds), plan=plan, workers=Workers(workers))


def _print(name: str, result: Explained, *, trained: bool) -> None:
    from ruleforge.app.display import indented, print_facts, print_table, remark, say
    from ruleforge.explain.pictures import as_text
    from ruleforge.words import shortened

    say(result.headline)
    for note in result.notes:
        remark(f"note: {note}")
    if result.nearest:
        say()
        rows = [
            (
                match.name,
                match.relation,
                ", ".join(f"{key} = {value:.4g}" for key, value in match.hypers.items()) or "—",
                f"{match.factor:.4g}",
                f"{100 * match.distance:.3g} %" if match.distance > 1e-6 else "0",
                "—" if match.edits is None else match.edits,
            )
            for match in result.nearest
        ]
        columns = ("known rule", "relation", "at", "times", "apart", "edits")
        print_table(columns, rows, title="Nearest known rules", right=columns[3:])
    say()
    print_facts({each.name.replace("_", " "): f"{each.text} ({each.known_by})" for each in result.properties})
    say()
    say(indented("\n".join(as_text(result.responses))))
    if not result.parts:
        return
    say()
    lines: list[tuple[str, ...]] = []
    for part in result.parts:
        change = "not finite" if part.change is None else f"{100 * part.change:.0f} %"
        loss = part.loss
        cell = f"×{loss[0]:.2f} [{loss[1]:.2f}, {loss[2]:.2f}]" if loss else "—"
        lines.append((shortened(part.term), part.action, change, *([cell] if trained else [])))
    more = ("steps needed without it",) if trained else ()
    heads = ("part", "what is done", "changes the update by", *more)
    print_table(heads, lines, title="Without each part", right=heads[2:])
    if not trained:
        remark(f"`ruleforge explain {name} --train search` trains it without each part")


COMMANDS = (explain,)
