"""`compare` and `baselines`: rules against tuned references."""

from __future__ import annotations

from pathlib import Path

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
ALL_SUITES = (*SUITES, "sealed")


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option(
    "--against",
    multiple=True,
    metavar="TARGET",
    help="Reference; repeat for several. Default: the baselines.",
)
@click.option("--suite", type=click.Choice(ALL_SUITES), default=None, help="Default: validation.")
@click.option(
    "--tasks",
    multiple=True,
    metavar="NAME",
    help="Workloads in place of a suite; repeat or separate by commas.",
)
@click.option("--seeds", type=click.IntRange(1, 100), default=6, show_default=True, help="Scoring seeds.")
@click.option(
    "--tune-hypers",
    "hyper_settings",
    type=click.IntRange(0, 64),
    default=0,
    metavar="N",
    help="Tune N other settings of the hyperparameters on each workload, for rules and references alike.",
)
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", help="What runs the rules.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE.svg",
    help="Write the performance profiles.",
)
@click.option("--force", is_flag=True, help="Overwrite the plot.")
@workers_option
@json_option
@quiet_option
def compare(
    targets: tuple[str, ...],
    against: tuple[str, ...],
    suite: str | None,
    tasks: tuple[str, ...],
    seeds: int,
    hyper_settings: int,
    backend: str,
    plot: Path | None,
    force: bool,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare rules with tuned references.

    All are tuned alike. The reference is the best single baseline of the suite, or with --against the
    rule that you name; of several, the best single one. The interval over workloads is that of the mean
    over a population of workloads like these.
    """
    from ruleforge.app.commands.files import check_new, write_new
    from ruleforge.app.comparison_report import comparison_title, print_comparison
    from ruleforge.app.display import print_json, remark
    from ruleforge.app.progress import make_progress
    from ruleforge.app.targets import resolve_target
    from ruleforge.errors import InputError

    if suite is not None and tasks:
        raise InputError("--suite and --tasks exclude each other", hint="keep one of them")
    if plot is not None:
        check_new(plot, suffix=".svg", force=force)
    named = [resolve_target(target) for target in targets]
    rules = {found.name: found.text for found in named}
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
            hyper_settings=hyper_settings,
            workers=worker_count(workers),
            backend=plane_named(backend),
            runs={found.name: found.run for found in named if found.origin == "champion" and found.run},
            progress=progress,
        )
    finally:
        progress.close()
    if plot is not None:
        from ruleforge.app.profiles import profile_svg

        picture = profile_svg(result["profiles"], comparison_title(result))
        write_new(plot, picture, suffix=".svg", force=force)
    if as_json:
        print_json(result)
    else:
        print_comparison(result)
    if plot is not None:
        remark(f"profiles drawn in {plot}")


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
