"""`compare` and `baselines`: rules against tuned references."""

from __future__ import annotations

import click

from ruleforge.app.commands.options import (
    BACKENDS,
    json_option,
    plane_named,
    quiet_option,
    worker_count,
    workers_option,
)

SUITES = ("search", "validation", "held_out")


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option(
    "--against",
    multiple=True,
    metavar="TARGET",
    help="Reference; repeat for several. Default: the baselines.",
)
@click.option("--suite", type=click.Choice(SUITES), default=None, help="Default: validation.")
@click.option(
    "--tasks",
    multiple=True,
    metavar="NAME",
    help="Workloads in place of a suite; repeat or separate by commas.",
)
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Scoring seeds.")
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", help="What runs the rules.")
@workers_option
@json_option
@quiet_option
def compare(
    targets: tuple[str, ...],
    against: tuple[str, ...],
    suite: str | None,
    tasks: tuple[str, ...],
    seeds: int,
    backend: str,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare rules with tuned references.

    All are tuned alike. The reference is the best single baseline of the suite, or with --against the
    rule that you name; of several, the best single one.
    """
    from pathlib import Path

    from ruleforge.app.display import print_json
    from ruleforge.app.progress import make_progress
    from ruleforge.app.reports import print_comparison
    from ruleforge.app.targets import resolve_target
    from ruleforge.errors import InputError

    if suite is not None and tasks:
        raise InputError("--suite and --tasks exclude each other", hint="keep one of them")
    rules = {found.name: found.text for found in map(resolve_target, targets)}
    if len(rules) < len(targets):
        raise InputError("two targets have the same name", hint="name each rule once")
    references = {found.name: found.text for found in map(resolve_target, against)}
    names = [name.strip() for each in tasks for name in each.split(",") if name.strip()]
    progress = make_progress(quiet=quiet)
    try:
        from ruleforge.app.compare import compare_rules

        result = compare_rules(
            rules,
            references or None,
            suite=suite or "validation",
            workloads=names,
            folder=Path.cwd(),
            seeds=seeds,
            workers=worker_count(workers),
            backend=plane_named(backend),
            progress=progress,
        )
    finally:
        progress.close()
    if as_json:
        print_json(result)
    else:
        print_comparison(result)


@click.command()
@click.option("--suite", type=click.Choice(SUITES), default="search", show_default=True)
@click.option("--recompute", is_flag=True, help="Tune again, whatever is cached.")
@workers_option
@json_option
@quiet_option
def baselines(suite: str, recompute: bool, workers: int | None, as_json: bool, quiet: bool) -> None:
    """List the tuned baselines of a suite."""
    from ruleforge.app.display import print_json
    from ruleforge.app.progress import make_progress
    from ruleforge.app.reports import print_baselines

    progress = make_progress(quiet=quiet)
    try:
        from ruleforge.app.compare import list_baselines

        result = list_baselines(
            suite=suite, recompute=recompute, workers=worker_count(workers), progress=progress
        )
    finally:
        progress.close()
    if as_json:
        print_json(result)
    else:
        print_baselines(result)


COMMANDS = (compare, baselines)
