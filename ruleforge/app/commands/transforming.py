"""`simplify` and `export`: one rule, shortened, handed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ruleforge.app.commands.options import json_option, worker_count, workers_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ruleforge.app.targets import Target
    from ruleforge.core.text import RuleText
    from ruleforge.simplify.paired import Paired
    from ruleforge.simplify.record import Step


@click.command()
@click.argument("target")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it to this .rule file.")
@click.option("--force", is_flag=True, help="Overwrite.")
@click.option(
    "--time-limit", type=click.FloatRange(min=0.1), default=20.0, show_default=True, help="Seconds."
)
@click.option("--behaviour", is_flag=True, help="Also cut what makes no difference in training (minutes).")
@click.option(
    "--seeds",
    type=click.IntRange(2, 64),
    default=8,
    show_default=True,
    help="behaviour: scoring seeds; up to four times as many where a test is open.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0.0, 0.5),
    default=0.1,
    show_default=True,
    help="behaviour: loss of speed that counts as none.",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=1.0),
    default=600.0,
    show_default=True,
    help="behaviour: seconds after which no new round begins, and no test gets more seeds.",
)
@workers_option
@json_option
def simplify(
    target: str, output: Path | None, force: bool, time_limit: float, behaviour: bool, seeds: int,
    margin: float, budget: float, workers: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Find the simplest verified equivalent of a rule.

    With --behaviour, also the shortest that trains as well: parts deleted, constants rounded, each tested
    beside the rule on the search suite and confirmed on the validation suite with other seeds.
    """
    from ruleforge.app.commands.files import check_new, write_new
    from ruleforge.app.display import indented, print_json, remark, say
    from ruleforge.app.targets import resolve_target
    from ruleforge.simplify.simplify import simplify as find_simplest

    found = resolve_target(target)
    if output is not None:
        check_new(output, suffix=".rule", force=force)
    if behaviour:
        _reduce(found.text, output, force, seeds, margin, budget, workers, as_json)
        return
    result = find_simplest(found.text, time_limit_s=time_limit)
    if output is not None:
        write_new(output, str(result.after), suffix=".rule", force=force)
    if as_json:
        print_json(result.as_json())
        return
    say(indented(str(result.after)))
    say()
    _print_steps(result.steps)
    before, after = result.before.rule.nodes, result.after.rule.nodes
    say(
        f"{before} → {after} nodes, {result.relation}"
        if result.steps
        else f"{before} node{'' if before == 1 else 's'}; nothing simpler found"
    )
    for note in result.notes:
        remark(f"note: {note}")
    if output is not None:
        remark(f"wrote {output}")


def _print_steps(steps: Sequence[Step]) -> None:
    from ruleforge.app.display import print_table
    from ruleforge.app.plain import format_count

    if not steps:
        return
    rows = [
        (
            each.kind,
            f"{each.before_nodes} → {each.after_nodes}",
            each.law,
            each.assumption or "—",
            each.evidence or (f"max error {format_count(each.max_error)}" if each.max_error else "no error"),
        )
        for each in steps
    ]
    print_table(("kind", "nodes", "law", "assumes", "evidence"), rows, right=("nodes",))


def _reduce(
    text: RuleText, output: Path | None, force: bool, seeds: int, margin: float, budget: float,
    workers: int | None, as_json: bool,
) -> None:  # fmt: skip
    """The three passes, with the list from "exactly equal" to "as good, much shorter"."""
    from ruleforge.app.commands.files import write_new
    from ruleforge.app.display import indented, print_json, print_table, remark, say
    from ruleforge.backends import fastest_plane, prepare_plane
    from ruleforge.evaluate.workers import Workers
    from ruleforge.simplify.reduce import PLAN, reduce_rule
    from ruleforge.tasks import load_suite

    plan = replace(PLAN, update_plane=fastest_plane(remark))
    prepare_plane(plan.update_plane, remark)
    result = reduce_rule(
        text, load_suite("search"), load_suite("validation"), seeds=seeds, margin=margin,
        time_limit_s=budget, plan=plan, workers=Workers(worker_count(workers)), say=remark,
    )  # fmt: skip
    if output is not None:
        write_new(output, str(result.best.text), suffix=".rule", force=force)
    if as_json:
        print_json(result.as_json())
        return
    _print_steps(result.steps)
    say()
    rows = [
        (
            "→" if number == result.recommended else "",
            each.nodes,
            each.states,
            each.standing,
            _speed(each.measured),
            _speed(each.confirmed),
            each.change or "—",
        )
        for number, each in enumerate(result.versions)
    ]
    columns = ("", "nodes", "states", "against the given rule", "search suite", "validation", "last change")
    print_table(columns, rows, right=("nodes", "states"))
    say()
    say(indented(str(result.best.text)))
    say()
    say("→ recommended: the knee of the list among the versions that fresh workloads and seeds confirm.")
    say(
        "×1.02: reaches the given rule's losses in 1/1.02 of its steps; in brackets the interval at the look "
        "that decided (99 % at the first, 98.5 and 97.5 % at the next two: together they err in 5 %)."
    )
    for note in result.notes:
        remark(f"note: {note}")
    if output is not None:
        remark(f"wrote {output}")


def _speed(found: Paired | None) -> str:
    if found is None:
        return "—"
    if found.speedup is None or found.ci is None:
        return "not comparable"
    return f"×{found.speedup:.2f} [{found.ci[0]:.2f}, {found.ci[1]:.2f}]"


@click.command()
@click.argument("target")
@click.option(
    "--to",
    "to",
    default="torch",
    show_default=True,
    help="torch, triton, optax, numpy, latex, sympy or json.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File; default: print it.")
@click.option("--class-name", default=None, help="Name of the class (torch, numpy, optax).")
@click.option("--with-tests", is_flag=True, help="Write tests of the file beside it: test_FILE.")
@click.option("--fused", is_flag=True, help="Write torch's fused kernel beside it: FILE_fused.py.")
@click.option("--force", is_flag=True, help="Overwrite.")
@json_option
def export(
    target: str,
    to: str,
    output: Path | None,
    class_name: str | None,
    with_tests: bool,
    fused: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write a rule as a standalone file."""
    from ruleforge.app.display import print_json, remark, say
    from ruleforge.app.learning_rates import with_shipped_lr
    from ruleforge.app.targets import resolve_target
    from ruleforge.errors import ExportError
    from ruleforge.export import TARGETS, write
    from ruleforge.export import export as export_to

    found = resolve_target(target)
    if found.origin == "known":
        found = replace(found, text=with_shipped_lr(found.text))
    options: dict[str, Any] = {"provenance": provenance_of(found), **defaults_of(found)}
    options["class_name"] = class_name if class_name is not None else name_of_class(found, output)
    known = TARGETS[to].options if to in TARGETS else ()
    text = export_to(found.text, to, **{name: value for name, value in options.items() if name in known})
    if fused and to != "torch":
        raise ExportError("--fused is for torch", hint="leave out --to, or --fused")
    if output is None:
        if with_tests or fused:
            flag = "--with-tests" if with_tests else "--fused"
            raise ExportError(f"{flag} writes beside a file, and none is named", hint="add -o FILE")
        if as_json:
            raise ExportError("--json tells about a written file, and none is named", hint="add -o FILE")
        say(text.rstrip("\n"))
        return
    others: dict[str, tuple[Path, str]] = {}
    if with_tests:
        from ruleforge.app.recording import record
        from ruleforge.export.check_file import check_file
        from ruleforge.export.safety import class_name_for

        name = options["class_name"] or class_name_for(found.text.doc)
        tests = check_file(to, output.stem, name, record(found.text))
        others["tests"] = (output.with_name(f"test_{output.name}"), tests)
    if fused:
        given = {name: options[name] for name in ("provenance", "class_name")}
        kernel = export_to(found.text, "triton", **given)
        others["kernel"] = (output.with_name(f"{output.stem}_fused{output.suffix}"), kernel)
    for beside, _ in others.values():
        if beside.exists() and not force:
            raise ExportError("exists already", file=str(beside), hint="choose another -o, or use --force")
    written = write(output, text, force=force)
    for beside, content in others.values():
        write(beside, content, force=force)
    if as_json:
        record_of = {"file": str(written), "target": to, "name": found.name, "key": found.text.rule.key}
        print_json(record_of | {what: str(beside) for what, (beside, _) in others.items()})
    else:
        remark(f"wrote {' and '.join(str(path) for path in (written, *(p for p, _ in others.values())))}")


def provenance_of(target: Target) -> dict[str, object]:
    """Where a rule was found, for the top of the file; nothing for one that people wrote."""
    from ruleforge import __version__
    from ruleforge.store import Store

    if target.run is None:
        return {}
    with Store.open(target.run, readonly=True) as store:
        seed = store.meta.get("seed")
    found: dict[str, object] = {"ruleforge": __version__, "run": target.run.resolve().name}
    found |= {"seed": seed} if seed is not None else {}
    return found | ({"candidate": target.id} if target.id is not None else {})


def defaults_of(target: Target) -> dict[str, float]:
    """Learning rate and decay that a known rule's optimizer defaults to."""
    from ruleforge.core.known import known

    if target.origin != "known":
        return {}
    entry = known(target.name)
    return {"lr": entry.lr, "weight_decay": entry.weight_decay}


def name_of_class(target: Target, output: Path | None) -> str | None:
    """A class name where the rule's docstring offers none: from the file's name, else the target's."""
    from ruleforge.export.safety import class_name_for

    if target.origin == "known" or (target.origin == "file" and target.text.doc):
        return None
    stem = output.stem if output is not None else target.name
    return class_name_for(stem.replace("_", " ").replace("-", " "))


COMMANDS = (simplify, export)
