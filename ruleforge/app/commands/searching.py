"""`search` and `resume`: from a config to a champion, with progress, and a way back after Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ruleforge.app.commands.options import (
    BACKENDS,
    json_option,
    parallel_option,
    plane_named,
    quiet_option,
    worker_count,
    workers_option,
)

INTERRUPTED = 130


@click.command()
@click.argument("config")
@click.option(
    "--out", type=click.Path(path_type=Path), default=None, help="Run folder; default: results/NAME."
)
@click.option("--seed", type=click.IntRange(min=0), default=None, help="In place of the config's seed.")
@click.option("--budget", default=None, metavar="TIME", help="In place of the config's: 90s, 10m, 2h.")
@workers_option
@parallel_option
@click.option("--backend", type=click.Choice(BACKENDS), default=None, help="What runs the rules.")
@click.option("--dry-run", is_flag=True, help="Check the config and estimate what the search costs.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any key: search.population=50.")
@json_option
@quiet_option
@click.pass_context
def search(
    context: click.Context,
    config: str,
    out: Path | None,
    seed: int | None,
    budget: str | None,
    workers: int | None,
    parallel: str,
    backend: str | None,
    dry_run: bool,
    overrides: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Search for update rules as CONFIG says.

    CONFIG is a file, or a name in search_configs/ such as quickstart.
    """
    from ruleforge.app.config import load_config
    from ruleforge.app.display import print_json
    from ruleforge.app.folders import fresh_folder, require_writable
    from ruleforge.app.progress import make_progress
    from ruleforge.app.reports import print_estimate
    from ruleforge.evaluate.transports import split_kind

    given = list(overrides)
    given += [f"seed={seed}"] if seed is not None else []
    given += [f'search.budget="{budget}"'] if budget is not None else []
    given += [f'training.update_plane="{plane_named(backend)}"'] if backend is not None else []
    split_kind(parallel)
    settings = load_config(config, given)
    if out is not None:
        require_writable(out)
    if dry_run:
        from ruleforge.app.run import estimate

        cost = estimate(settings, worker_count(workers))
        if as_json:
            print_json(cost)
        else:
            print_estimate(cost)
        return
    folder = out if out is not None else fresh_folder(Path(config).stem, settings.seed)
    require_writable(folder)

    def work() -> dict[str, Any]:
        from ruleforge.app.run import run_search

        return run_search(
            settings, out=folder, workers=worker_count(workers), parallel=parallel, progress=progress
        )

    progress = make_progress(quiet=quiet)
    _run(context, work, progress.close, folder, as_json=as_json)


@click.command()
@click.argument("run")
@workers_option
@parallel_option
@json_option
@quiet_option
@click.pass_context
def resume(
    context: click.Context, run: str, workers: int | None, parallel: str, as_json: bool, quiet: bool
) -> None:
    """Go on with RUN exactly where it stopped."""
    from ruleforge.app.progress import make_progress
    from ruleforge.app.targets import require_run
    from ruleforge.evaluate.transports import split_kind

    split_kind(parallel)
    folder = require_run(run)

    def work() -> dict[str, Any]:
        from ruleforge.app.run import resume_run

        return resume_run(folder, workers=worker_count(workers), parallel=parallel, progress=progress)

    progress = make_progress(quiet=quiet)
    _run(context, work, progress.close, folder, as_json=as_json)


def _run(
    context: click.Context,
    work: Callable[[], dict[str, Any]],
    close: Callable[[], None],
    folder: Path,
    *,
    as_json: bool,
) -> None:
    """Do the work, print its result; on Ctrl-C say how to go on."""
    from ruleforge.app.display import print_error, print_json, remark
    from ruleforge.app.interrupts import every_interrupt
    from ruleforge.app.reports import print_search
    from ruleforge.errors import InputError, RunError, StoreError
    from ruleforge.store import DATABASE

    try:
        try:
            with every_interrupt():
                result = work()
        finally:
            close()
    except KeyboardInterrupt:
        saved = (folder / DATABASE).is_file()
        hint = f"go on with: ruleforge resume {folder}" if saved else "nothing was stored yet; start it again"
        print_error(RunError("interrupted" + (", saved" if saved else ""), hint=hint), as_json=as_json)
        context.exit(INTERRUPTED)
    except Exception as error:
        is_refused = isinstance(error, StoreError) and error.exit_code == InputError.exit_code
        if (folder / DATABASE).is_file() and not is_refused:
            remark(f"what was stored stays readable; to go on: ruleforge resume {folder}")
        raise
    if as_json:
        print_json(result)
    else:
        print_search(result)


COMMANDS = (search, resume)
