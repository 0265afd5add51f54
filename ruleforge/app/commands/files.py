"""`validate` and `new-task`: files that users write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from ruleforge.app.commands.options import json_option
from ruleforge.toml import read_toml

# Keys that a grammar has and a search config has not.
GRAMMAR_KEYS: Final = frozenset({"ops", "number_ops", "sugar", "terminals", "constants", "hypers"})


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@json_option
@click.pass_context
def validate(context: click.Context, files: tuple[str, ...], as_json: bool) -> None:
    """Check rule, grammar, config and task files.

    Rules end in .rule, grammars and configs in .toml, tasks in .py (or .py:factory). A task file is
    Python: checking it imports it, which runs it.
    """
    from ruleforge.app.display import print_json, remark, say
    from ruleforge.errors import RuleforgeError

    records: list[dict[str, Any]] = []
    for file in files:
        kind = ""
        try:
            kind, check = _checker(file)
            facts = check(file)
            records.append({"file": file, "kind": kind, "ok": True, **facts})
            if not as_json:
                for warning in facts.get("warnings", ()):
                    remark(f"{file}: warning: {warning}")
                say(f"{file}: {kind}, {facts['summary']}")
        except RuleforgeError as error:
            records.append({**error.as_json(), "file": error.file or file, "kind": kind, "ok": False})
            remark(f"error: {error}" if error.file else f"error: {file}: {error}")
    if as_json:
        print_json(records)
    if not all(record["ok"] for record in records):
        context.exit(2)


def _checker(file: str) -> tuple[str, Callable[[str], dict[str, Any]]]:
    """What kind of file this is, and what checks it."""
    from ruleforge.errors import InputError

    place, colon, _ = file.rpartition(":")
    if file.endswith(".py") or (colon and place.endswith(".py")):
        return "task", _check_task
    path = Path(file)
    if path.is_dir():
        raise InputError("is a folder", file=file, hint="for a run folder: ruleforge check RUN")
    if not path.is_file():
        raise InputError("there is no such file", file=file, hint="check the path")
    if path.suffix == ".rule":
        return "rule", _check_rule
    if path.suffix == ".toml":
        return ("grammar", _check_grammar) if _is_grammar(path) else ("config", _check_config)
    raise InputError(
        "cannot tell what kind of file this is",
        file=file,
        hint="rules end in .rule, grammars and configs in .toml, tasks in .py",
    )


def _is_grammar(path: Path) -> bool:
    """By its `#:schema` line, else by its keys; a broken file counts as a config, whose reader says why."""
    with path.open("rb") as stream:
        text = stream.read(1 << 20).decode("utf-8", errors="replace")
    first = text.split("\n", 1)[0]
    if first.startswith("#:schema"):
        return "grammar" in first
    try:
        return bool(GRAMMAR_KEYS & read_toml(text).keys())
    except ValueError:
        return any(text.find(f"\n{key} =") >= 0 for key in ("ops", "terminals"))


def _check_rule(file: str) -> dict[str, Any]:
    from ruleforge.core.text import load
    from ruleforge.words import counted

    text = load(file)
    rule = text.rule
    return {
        "nodes": rule.nodes,
        "states": rule.slots,
        "hypers": list(text.hypers),
        "warnings": list(text.warnings),
        "summary": f"{counted(rule.nodes, 'node')}, {counted(rule.slots, 'state slot')}, "
        f"{counted(len(text.hypers), 'hyper')}",
    }


def _check_grammar(file: str) -> dict[str, Any]:
    from ruleforge.search.grammar import load_grammar

    grammar = load_grammar(str(Path(file).absolute()))
    ops, sugar = len(grammar.op_names), len(grammar.sugar_names)
    return {"name": grammar.name, "ops": ops, "sugar": sugar, "summary": f"{ops} ops, {sugar} of sugar"}


def _check_config(file: str) -> dict[str, Any]:
    from ruleforge.app.config import load_config

    config = load_config(Path(file).absolute())
    search = config.search
    return {
        "grammar": config.grammar,
        "strategy": search.strategy,
        "workloads": list(config.training.workload_names),
        "summary": f"grammar {config.grammar}, {search.strategy}, population {search.population}, "
        f"workloads {', '.join(config.training.workload_names)}",
    }


def _check_task(file: str) -> dict[str, Any]:
    from ruleforge.app.display import remark
    from ruleforge.tasks import load_workload

    ref = f"{file}:factory" if file.endswith(".py") else file
    if Path(ref.rpartition(":")[0]).is_file():
        remark(f"{file}: a task file is Python; checking it imports it, which runs it")
    found = load_workload(ref)
    return {
        "n_weights": found.n_weights,
        "batch_size": found.batch_size,
        "steps": found.steps,
        "summary": f"{found.n_weights} weights, batches of {found.batch_size}, {found.steps} steps",
    }


@click.command("new-task")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite.")
def new_task(file: Path, force: bool) -> None:
    """Write a task of your own to start from."""
    from ruleforge.app.display import say
    from ruleforge.tasks import TEMPLATE

    write_new(file, TEMPLATE, suffix=".py", force=force)
    say(f"wrote {file}; try it: ruleforge validate {file}")
    say(f'to search on it: [training] workloads = ["{file.name}:factory"] in a config beside it')


def write_new(file: Path, text: str, *, suffix: str = "", force: bool = False) -> None:
    """Write a file that must not exist yet, wholly or not at all.

    Raises:
        InputError: it exists, or its name or folder will not do.
    """
    from ruleforge.store import write_text_atomic

    check_new(file, suffix=suffix, force=force)
    write_text_atomic(file, text)


def check_new(file: Path, *, suffix: str = "", force: bool = False) -> None:
    """Nothing for a file that may be written; the check comes before the work.

    Raises:
        InputError: it exists, or its name or folder will not do.
    """
    from ruleforge.errors import InputError

    if suffix and file.suffix != suffix:
        better = file.with_name(f"{file.stem or 'file'}{suffix}")
        raise InputError(f"the name must end in {suffix}", file=str(file), hint=f"try {better}")
    if file.is_dir():
        raise InputError("is a folder, and a file is wanted", file=str(file), hint="add a file name")
    if not file.parent.is_dir():
        raise InputError("there is no such folder", file=str(file.parent), hint="make it first")
    if file.exists() and not force:
        raise InputError("exists already", file=str(file), hint="--force overwrites it")


COMMANDS = (validate, new_task)
