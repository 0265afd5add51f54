"""The command line: every command answers, in words and in JSON, and every fault is one clear message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import ruleforge
from ruleforge.app.cli import cli
from ruleforge.app.profiles import FACTORS
from ruleforge.core.known import KNOWN
from ruleforge.core.ops import OPS
from ruleforge.core.text import parse
from ruleforge.errors import RunError
from ruleforge.store import Store
from ruleforge.tasks import WORKLOADS
from tests.ordinary_user import as_ordinary_user

from .conftest import CUBED, SIGN_EMA, final_record, make_run

RunCli = Callable[..., Result]

COMMANDS = (
    "search resume list show simplify export validate new-task compare baselines rules tasks grammars ops "
    "doctor check verify explain identify"
).split()


def refused(result: Result, *words: str) -> None:
    """The command ended with one message about the input and no traceback."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stderr.count("error: ") == 1
    for word in words:
        assert word in result.stderr, result.stderr


def loaded(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# The whole


def test_every_command_is_there(run_cli: RunCli) -> None:
    assert sorted(cli.commands) == sorted(COMMANDS)
    text = run_cli("--help").stdout
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert "..." not in text.partition("Commands:")[2], "a command's first line is too long for the list"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run_cli: RunCli, name: str) -> None:
    result = run_cli(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: ruleforge {name}")


def test_help_loads_nothing_heavy(project_root: Path) -> None:
    code = (
        "import sys; sys.argv = ['ruleforge', '--help']\n"
        "from ruleforge.app.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = 'torch sympy sklearn numba deap scipy joblib pydantic rich'.split()\n"
        "print('LOADED', *[name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("LOADED")


def test_the_version(run_cli: RunCli) -> None:
    assert run_cli("--version").stdout == f"ruleforge, version {ruleforge.__version__}\n"


def test_it_runs_as_a_module(project_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruleforge", "show", "lino"], cwd=project_root, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'lion'" in done.stderr


# Catalogues


def test_rules(run_cli: RunCli) -> None:
    records = loaded(run_cli("rules", "--json"))
    assert [each["name"] for each in records] == list(KNOWN)
    lion = next(each for each in records if each["name"] == "lion")
    assert {"name", "family", "source", "nodes", "states", "verified"} <= lion.keys()
    assert set(lion["verified"]) == {"upstream", "version", "max_diff"}
    text = run_cli("rules").stdout
    assert all(name in text for name in KNOWN)
    assert len({each["name"] for each in loaded(run_cli("rules", "--family", "sign", "--json"))}) < len(
        records
    )
    refused(run_cli("rules", "--family", "signs"), "families: ")


def test_tasks(run_cli: RunCli) -> None:
    assert [each["name"] for each in loaded(run_cli("tasks", "--json"))] == list(WORKLOADS)
    text = run_cli("tasks").stdout
    assert all(each.stresses in text for each in WORKLOADS.values()), "a table cuts its cells"


def test_grammars(run_cli: RunCli) -> None:
    records = loaded(run_cli("grammars", "--json"))
    assert {"bello2017", "lion2023", "momentum_sign", "adaptive", "full"} <= {
        each["name"] for each in records
    }
    assert "lion2023" in run_cli("grammars").stdout


def test_ops(run_cli: RunCli) -> None:
    record = loaded(run_cli("ops", "--json"))
    assert [each["name"] for each in record["ops"]] == list(OPS)
    text = run_cli("ops").stdout
    assert all(each.doc in text for each in OPS.values())


# One rule


def test_show(run_cli: RunCli) -> None:
    record = loaded(run_cli("show", "lion", "--json"))
    assert parse(record["text"]) == KNOWN["lion"].rule
    assert (record["nodes"], record["states"], record["family"]) == (7, 1, "sign")
    text = run_cli("show", "lion").stdout
    assert "u ← sign(β₁·m + (1 − β₁)·g)" in text
    assert "beta1 = 0.9" in text
    assert run_cli("show", "lion", "--latex").stdout.startswith("\\begin{align}")


def test_show_of_a_found_rule_tells_its_story(run_cli: RunCli, finished_run: Path) -> None:
    record = loaded(run_cli("show", "first:2", "--json"))
    assert record["text"] == str(parse(CUBED))
    assert [each["id"] for each in record["lineage"]] == [2, 0, 1]
    assert record["fitness"][0]["speedup"] == {"vs_oracle": 1.2}
    assert record["known_as"] == "new"
    text = run_cli("show", "first").stdout
    for words in ("signum", "digits_mlp", "seed:signum", "×1.30 [1.20, 1.40]", "×0.90"):
        assert words in text, words


def test_show_says_how_a_champions_lr_stands_to_adams(run_cli: RunCli, finished_run: Path) -> None:
    assert loaded(run_cli("show", "first", "--json"))["lr_vs_adam"] == 0.3
    assert loaded(run_cli("show", "first:2", "--json"))["lr_vs_adam"] is None


def test_simplify(run_cli: RunCli, here: Path) -> None:
    (here / "long.rule").write_text("a = g + g\nupdate = sign(a - g) * 1\n")
    record = loaded(run_cli("simplify", "long.rule", "--json", "-o", "short.rule"))
    assert {"before", "after", "steps", "relation"} <= record.keys()
    assert record["after"]["nodes"] < record["before"]["nodes"]
    assert (here / "short.rule").read_text() == record["after"]["text"]
    refused(run_cli("simplify", "long.rule", "-o", "short.rule"), "exists already", "--force")
    refused(run_cli("simplify", "long.rule", "-o", "short.txt"), "must end in .rule")
    assert "update = sign(g)" in run_cli("simplify", "long.rule", "-o", "short.rule", "--force").stdout


def test_export(run_cli: RunCli, here: Path) -> None:
    assert run_cli("export", "lion", "--to", "torch", "-o", "lion.py").exit_code == 0
    assert "class Lion(" in (here / "lion.py").read_text()
    refused(run_cli("export", "lion", "-o", "lion.py"), "exists already", "--force")
    assert run_cli("export", "adam", "-o", "lion.py", "--force").exit_code == 0
    assert "class Lion(" not in (here / "lion.py").read_text()
    assert loaded(run_cli("export", "lion", "--to", "json"))["schema"] == "ruleforge.rule"
    assert "documentclass" in run_cli("export", "lion", "--to", "latex").stdout
    refused(run_cli("export", "lion", "--to", "latx"), "did you mean 'latex'")
    refused(run_cli("export", "lion", "-o", "no/lion.py"), "cannot be written")


def test_an_exported_champion_is_named_after_its_file_and_says_where_it_comes_from(
    run_cli: RunCli, finished_run: Path
) -> None:
    record = loaded(run_cli("export", "first", "-o", "my_best.py", "--json"))
    assert record["file"] == "my_best.py"
    source = Path("my_best.py").read_text()
    assert "class MyBest(" in source
    assert "first" in source


@pytest.mark.parametrize(
    "options", [("--train", "held_out"), ("--train", "sealed"), ("--tasks", "digits_mlp,wine_layernorm")]
)
def test_parts_are_never_trained_on_what_is_kept_apart(run_cli: RunCli, options: tuple[str, str]) -> None:
    refused(run_cli("explain", "adam", *options), "kept apart", "ruleforge compare")


# Runs


def test_list(run_cli: RunCli, finished_run: Path) -> None:
    make_run(Path("results") / "half", finished=False)
    (Path("results") / "rubbish").mkdir()
    records = {each["name"]: each for each in loaded(run_cli("list", "--json"))}
    assert {name: each["status"] for name, each in records.items()} == {
        "first": "finished", "half": "interrupted", "rubbish": "broken",
    }  # fmt: skip
    assert records["first"]["champion"] == SIGN_EMA
    assert "interrupted" in run_cli("list").stdout
    refused(run_cli("list", "--results", "nowhere"), "no such folder")


def test_list_where_there_is_nothing(run_cli: RunCli, here: Path) -> None:
    assert loaded(run_cli("list", "--json")) == []
    assert "no runs" in run_cli("list").stdout


def test_list_of_a_run(run_cli: RunCli, finished_run: Path) -> None:
    records = loaded(run_cli("list", "first", "--json"))
    assert [(each["id"], each["on_front"]) for each in records] == [(0, True), (1, True), (2, False)]
    assert records[0]["speedup_vs_oracle"] == 1.2
    assert [each["id"] for each in loaded(run_cli("list", "first", "--top", "1", "--json"))] == [0]
    assert "update = g * g * g" in run_cli("list", "first").stdout
    refused(run_cli("list", "frist"), "did you mean 'first'")


def test_the_command_line_has_the_seeds_of_what_it_calls() -> None:
    from ruleforge.app.commands.comparing import compare
    from ruleforge.app.commands.transforming import simplify
    from ruleforge.app.compare import SEEDS
    from ruleforge.simplify import paired

    defaults = {command.name: {p.name: p.default for p in command.params} for command in (compare, simplify)}
    assert defaults["compare"]["seeds"] == SEEDS
    assert defaults["simplify"]["seeds"] == paired.SEEDS


def test_check(run_cli: RunCli, finished_run: Path) -> None:
    assert run_cli("check", "first").stdout == f"{finished_run}: sound\n"
    assert loaded(run_cli("check", "first", "--json"))["faults"] == []
    (finished_run / "champion.rule").write_text("update = gg\n")
    (finished_run / "config.toml").write_text("sed = 1\n")
    result = run_cli("check", "first")
    assert result.exit_code == 1
    assert "undefined name 'gg'" in result.stderr
    assert "unknown key 'sed'" in result.stderr
    refused(run_cli("check", "results"), "not a run folder", "`ruleforge list --results results`")


def test_check_sees_a_rule_that_is_not_what_its_key_says(run_cli: RunCli, finished_run: Path) -> None:
    import sqlite3

    with sqlite3.connect(finished_run / "run.db") as database:
        guard = "SELECT sql FROM sqlite_master WHERE name = 'candidates_fixed_u'"
        (again,) = database.execute(guard).fetchone()
        database.execute("DROP TRIGGER candidates_fixed_u")
        database.execute("UPDATE candidates SET text = 'update = g' WHERE id = 1")
        database.execute(again)
    database.close()
    result = run_cli("check", "first")
    assert result.exit_code == 1
    assert "candidate 1: its text is another rule" in result.stderr


# Files


def test_new_task_and_validate(run_cli: RunCli, here: Path) -> None:
    assert run_cli("new-task", "my_task.py").exit_code == 0
    refused(run_cli("new-task", "my_task.py"), "exists already", "--force")
    refused(run_cli("new-task", "my_task.txt"), "must end in .py")
    refused(run_cli("new-task", "no/my_task.py"), "no such folder")
    assert run_cli("new-task", "my_task.py", "--force").exit_code == 0
    result = run_cli("validate", "my_task.py")
    assert result.exit_code == 0, result.output
    assert "importing runs" in result.stderr or "imports it, which runs it" in result.stderr
    assert "weights" in result.stdout


def test_validate_tells_kinds_apart(run_cli: RunCli, here: Path, project_root: Path) -> None:
    (here / "a.rule").write_text("x = g * 2\nupdate = g\n")
    (here / "g.toml").write_text('ops = ["add"]\nterminals = ["w"]\n')
    (here / "c.toml").write_text("sed = 1\n")
    (here / "n.txt").write_text("")
    files = ("a.rule", "g.toml", "c.toml", "n.txt", "no.rule")
    records = json.loads(run_cli("validate", *files, "--json").stdout)
    assert [(each["kind"], each["ok"]) for each in records] == [
        ("rule", True), ("grammar", False), ("config", False), ("", False), ("", False),
    ]  # fmt: skip
    assert "'x'" in records[0]["warnings"][0]
    assert "can generate no rule" in records[1]["error"]
    assert (records[2]["line"], records[2]["hint"]) == (1, "did you mean 'seed'?")
    good = [
        str(project_root / each)
        for each in ("grammars/full.toml", "search_configs/default.toml", "ruleforge/core/known/adam.rule")
    ]
    assert run_cli("validate", *good).exit_code == 0


BAD_RULES = {
    "unknown op": "update = emaa(g, 0.9)",
    "wrong arity": "update = ema(g)",
    "type mismatch": "update = ema(g, g)",
    "undefined name": "update = gg",
    "missing argument": "update = g /",
    "import": "update = __import__('os')",
    "10 MB": "# " + "x" * 10_000_000,
    "nested": "update = " + "(" * 10_000 + "g" + ")" * 10_000,
    "empty": "",
    "no update": "x = g",
}


@pytest.mark.parametrize("name", BAD_RULES)
@pytest.mark.parametrize("command", ["show", "validate", "export"])
def test_a_bad_rule_file_is_one_message(run_cli: RunCli, here: Path, name: str, command: str) -> None:
    (here / "bad.rule").write_text(BAD_RULES[name])
    result = run_cli(command, "bad.rule")
    refused(result, "bad.rule")
    assert len(result.stderr) < 2000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise ValueError('boom')", "boom"),
        ("x = 1", "no factory 'factory'"),
        ("def factory():\n    return 3", "returned int"),
        ("def factory(:", "SyntaxError"),
    ],
)
def test_a_bad_task_file_is_one_message(run_cli: RunCli, here: Path, text: str, words: str) -> None:
    (here / "bad.py").write_text(text)
    refused(run_cli("validate", "bad.py"), words, "bad.py")
    refused(run_cli("validate", "missing.py"), "does not exist")


# Errors


def test_an_error_under_json_is_a_record(run_cli: RunCli, here: Path) -> None:
    (here / "bad.rule").write_text("a = g\nupdate = emaa(a, 0.9)\n")
    result = run_cli("show", "bad.rule", "--json")
    record = json.loads(result.stdout)
    assert set(record) == {"error", "file", "line", "column", "hint"}
    assert (record["file"], record["line"], record["column"]) == ("bad.rule", 2, 10)
    assert "did you mean" in record["hint"]
    assert "error: " in result.stderr
    assert result.exit_code == 2


@pytest.mark.parametrize(
    "args", [["nonsense"], ["rules", "--nonsense"], ["show"], ["search", "x", "--seed", "-1"]]
)
def test_wrong_usage_is_one_message(run_cli: RunCli, args: list[str]) -> None:
    refused(run_cli(*args), "--help")
    assert "error" in json.loads(run_cli(*args, "--json").stdout)


def test_escape_sequences_of_a_file_never_reach_the_terminal(run_cli: RunCli, here: Path) -> None:
    (here / "evil.rule").write_text('"""\x1b[31mred\x1b]0;title\x07 [bold]x[/bold]"""\nupdate = g\n')
    for args in (["show", "evil.rule"], ["validate", "evil.rule"], ["simplify", "evil.rule"]):
        result = run_cli(*args)
        assert "\x1b" not in result.output
        assert "\x07" not in result.output
    assert "[bold]x[/bold]" in run_cli("show", "evil.rule").stdout
    (here / "evil2.rule").write_text("update = \x1b[31mg\n")
    assert "\x1b" not in run_cli("show", "evil2.rule").output


@pytest.mark.parametrize("command", ["show", "list", "resume", "check", "search", "validate"])
@pytest.mark.parametrize("name", ["~nobodyatall/x", "x" * 300])
def test_a_name_that_no_file_can_have_is_one_message(run_cli: RunCli, command: str, name: str) -> None:
    refused(run_cli(command, name))


def test_an_internal_error_is_one_line_and_debug_shows_more(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("ruleforge.app.targets.resolve_target", broken)
    result = run_cli("show", "lion")
    assert result.exit_code == 1
    assert "internal error: KeyError: 'lost'" in result.stderr
    assert "report it" in result.stderr
    assert "Traceback" not in result.output
    assert "Traceback" in run_cli("--debug", "show", "lion").stderr


def test_ctrl_c_is_one_message_everywhere(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ruleforge.app.targets.resolve_target", interrupted)
    result = run_cli("show", "lion")
    assert (result.exit_code, result.stderr.strip()) == (130, "error: interrupted")


def test_a_full_disk_is_no_internal_error(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device", "results/x")

    monkeypatch.setattr("ruleforge.app.targets.resolve_target", full)
    result = run_cli("show", "lion")
    assert result.exit_code == 1
    assert "results/x: No space left on device" in result.stderr
    assert "internal" not in result.stderr


# Searching, with a driver that does not train


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Stands in for `ruleforge.app.run`: records its calls, and makes a run without training."""
    calls: list[tuple[str, Any]] = []

    def run_search(config: Any, *, out: Path, workers: int, parallel: str, progress: Any) -> dict[str, Any]:
        calls.append(("search", (config, out, workers)))
        progress.start(config.search.generations, config.search.budget_s)
        progress.generation(0, {"best_speedup": 1.1, "trained": 3})
        make_run(out, finished=module.fault is None)
        if module.fault is not None:
            raise module.fault
        return final_record(out)

    def resume_run(path: Path, *, workers: int, parallel: str, progress: Any) -> dict[str, Any]:
        calls.append(("resume", (path, workers)))
        return final_record(path)

    def estimate(config: Any, workers: int) -> dict[str, Any]:
        rung = {
            "workloads": ["digits_mlp"],
            "steps": [24],
            "lanes_per_rule": 3,
            "promote": 0.25,
            "lane_steps": 7,
        }
        return {
            "grammar": config.grammar,
            "rungs": [rung],
            "generations": config.search.generations,
            "workers": workers,
            "assumed_lane_steps_per_s": 9000.0,
            "estimated_s": 12.0,
        }

    module = types.SimpleNamespace(
        run_search=run_search, resume_run=resume_run, estimate=estimate, calls=calls, fault=None
    )
    monkeypatch.setitem(sys.modules, "ruleforge.app.run", module)  # type: ignore[arg-type]
    return module


def test_search_prints_the_front_the_champion_and_where_it_lies(
    run_cli: RunCli, here: Path, driver: types.SimpleNamespace
) -> None:
    result = run_cli(
        "search", "quickstart", "--out", "mine", "--seed", "5", "--budget", "5m", "--workers", "2",
        "--backend", "torch", "--set", "search.population=30",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    ((_, (config, out, workers)),) = driver.calls
    assert (config.seed, config.search.budget_s, config.search.population) == (5, 300, 30)
    assert (config.training.update_plane, out, workers) == ("torch", Path("mine"), 2)
    for words in (
        "signum",
        "NOT carry over",
        "×1.30 [1.20, 1.40]",
        "baseline",
        "adam",
        "mine",
        "ruleforge export",
    ):
        assert words in result.stdout, words
    assert "generation 1/" in result.stderr
    assert "generation" not in run_cli("search", "quickstart", "--out", "other", "--quiet").stderr


def test_search_json_is_the_record_alone(run_cli: RunCli, here: Path, driver: types.SimpleNamespace) -> None:
    record = loaded(run_cli("search", "quickstart", "--out", "mine", "--json"))
    assert record == final_record(Path("mine"))


def test_search_chooses_a_new_folder_under_results(
    run_cli: RunCli, here: Path, driver: types.SimpleNamespace
) -> None:
    for _ in range(2):
        assert run_cli("search", "quickstart", "--quiet").exit_code == 0
    folders = [out for _, (_, out, _) in driver.calls]
    assert len(set(folders)) == 2
    assert all(
        each.parent == Path("results") and each.name.startswith("quickstart-seed0-") for each in folders
    )


def test_dry_run_starts_nothing(run_cli: RunCli, here: Path, driver: types.SimpleNamespace) -> None:
    result = run_cli("search", "quickstart", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "12s" in result.stdout
    assert loaded(run_cli("search", "quickstart", "--dry-run", "--json"))["estimated_s"] == 12
    assert driver.calls == []
    assert list(here.iterdir()) == []


def test_ctrl_c_prints_the_resume_command(run_cli: RunCli, here: Path, driver: types.SimpleNamespace) -> None:
    driver.fault = KeyboardInterrupt()
    result = run_cli("search", "quickstart", "--out", "mine", "--json")
    assert result.exit_code == 130
    assert "ruleforge resume mine" in result.stderr
    assert "ruleforge resume mine" in json.loads(result.stdout)["hint"]
    with Store.open(here / "mine", readonly=True) as store:
        assert store.counts()[0] == 1


def test_a_fault_while_running_keeps_what_was_stored(
    run_cli: RunCli, here: Path, driver: types.SimpleNamespace
) -> None:
    driver.fault = RunError("a worker died")
    result = run_cli("search", "quickstart", "--out", "mine")
    assert result.exit_code == 1
    assert "a worker died" in result.stderr
    assert "ruleforge resume mine" in result.stderr


def test_resume(run_cli: RunCli, finished_run: Path, driver: types.SimpleNamespace) -> None:
    assert loaded(run_cli("resume", "first", "--workers", "3", "--json"))["run"] == str(finished_run)
    assert driver.calls == [("resume", (finished_run, 3))]
    refused(run_cli("resume", "frist"), "did you mean 'first'")
    refused(run_cli("resume", "results"), "not a run folder")


def test_a_run_that_cannot_be_resumed_is_not_told_to_be_resumed(run_cli: RunCli, finished_run: Path) -> None:
    finished = run_cli("resume", "first")
    refused(finished, "is finished", "ruleforge show")
    half = make_run(Path("results") / "half", finished=False)
    with Store.open(half):
        busy = run_cli("resume", "half")
    refused(busy, f"being written by process {os.getpid()}")
    assert "to go on" not in finished.stderr + busy.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["quickstrat"], "did you mean 'quickstart'"),
        (["no/such.toml"], "no such config"),
        (["quickstart", "--budget", "-5m"], "positive"),
        (["quickstart", "--budget", "soon"], "no time"),
        (["quickstart", "--set", "search.populaton=3"], "did you mean 'population'"),
        (["quickstart", "--backend", "tpu"], "'tpu'"),
        (["quickstart", "--workers", "0"], "0"),
        (["bad.toml"], "bad.toml, line 2, column 1: unknown key 'popul'"),
    ],
)
def test_a_search_that_cannot_start_is_one_message(
    run_cli: RunCli, here: Path, driver: types.SimpleNamespace, args: list[str], words: str
) -> None:
    (here / "bad.toml").write_text("[search]\npopul = 3\n")
    refused(run_cli("search", *args), words)
    assert driver.calls == []
    assert not (here / "results").exists()


def test_an_output_folder_that_holds_something_is_refused(
    run_cli: RunCli, finished_run: Path, driver: types.SimpleNamespace
) -> None:
    refused(
        run_cli("search", "quickstart", "--out", str(finished_run)), "not an empty folder", "ruleforge resume"
    )
    Path("file").write_text("")
    refused(run_cli("search", "quickstart", "--out", "file"), "not an empty folder")
    refused(run_cli("search", "quickstart", "--out", "file/inner"), "a file stands where a folder is needed")
    assert driver.calls == []


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_work(
    tmp_path_factory: pytest.TempPathFactory, driver: types.SimpleNamespace
) -> None:
    import tempfile

    root = Path(tempfile.mkdtemp(prefix="ruleforge-test-"))
    root.chmod(0o555)
    try:

        def work() -> str:
            result = CliRunner().invoke(cli, ["search", "quickstart", "--out", str(root / "new")])
            return f"{result.exit_code} {result.stderr} {len(driver.calls)}"

        text = as_ordinary_user(work)
    finally:
        root.chmod(0o755)
        root.rmdir()
    assert text.startswith("2 error: ")
    assert "Permission denied" in text
    assert "--out" in text
    assert text.endswith(" 0")


# Comparing, with a comparison that does not train


@pytest.fixture
def comparison(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for `ruleforge.app.compare`; holds its calls."""
    calls: list[Any] = []
    summary = {"speedup": 1.2, "ci": [1.1, 1.3], "median": 1.2, "worst": 1.05, "n_workloads": 1}

    def compare_rules(targets: Any, against: Any, **options: Any) -> dict[str, Any]:
        calls.append((targets, against, options))
        place = {"name": "quadratic", "speedup": 1.2, "ci": None, "final_loss": 0.5, "lr": 0.01}
        overall = {**summary, "verdict": "better on 1 workload", "vs_oracle": summary, "vs_adam": summary}
        rules = [{"name": name, "workloads": [place], "overall": overall} for name in targets]
        shares = [0.0] + [1.0] * (len(FACTORS) - 1)
        profile = {"compared": True, "share": shares, "area": 0.9, "ratio": {"quadratic": 1.01}}
        profiles = {"factors": list(FACTORS), "rules": [{"name": name, **profile} for name in targets]}
        return {
            "reference": "nadam", "suite": "validation", "seeds": 3, "rules": rules, "profiles": profiles,
            **rules[0],
        }  # fmt: skip

    def list_baselines(**options: Any) -> dict[str, Any]:
        calls.append(options)
        chosen = {"quadratic": {"lr": 0.1, "schedule": "cosine", "final_loss": 0.25, "metric": None}}
        speedup = {"vs_best_single": summary, "vs_oracle": summary, "vs_adam": summary}
        return {
            "suite": options["suite"], "origin": "shipped", "best_single": "adam",
            "baselines": [{"name": "adam", "speedup": speedup, "workloads": chosen}],
        }  # fmt: skip

    module = types.SimpleNamespace(compare_rules=compare_rules, list_baselines=list_baselines)
    monkeypatch.setitem(sys.modules, "ruleforge.app.compare", module)  # type: ignore[arg-type]
    return calls


def test_compare(run_cli: RunCli, comparison: list[Any]) -> None:
    args = ["compare", "lion", "adam", "--against", "nadam", "--tasks", "quadratic,char_mlp", "--quiet"]
    record = loaded(run_cli(*args, "--json"))
    assert {"workloads", "overall", "rules"} <= record.keys()
    targets, against, options = comparison[0]
    assert (list(targets), list(against)) == (["lion", "adam"], ["nadam"])
    assert options["workloads"] == ["quadratic", "char_mlp"]
    text = run_cli(*args).stdout
    for words in ("×1.20 [1.10, 1.30]", "better on 1 workload", "quadratic", "Speed-up over nadam"):
        assert words in text, words


def test_compare_draws_profiles_and_knows_whose_champion_it_judges(
    run_cli: RunCli, comparison: list[Any], finished_run: Path
) -> None:
    result = run_cli("compare", "first", "lion", "--suite", "sealed", "--plot", "p.svg", "--quiet")
    assert result.exit_code == 0 and "p.svg" in result.stderr
    assert Path("p.svg").read_text(encoding="utf-8").startswith("<svg")
    assert "Share of the workloads" in result.stdout
    options = comparison[0][2]
    assert (options["suite"], options["runs"]) == ("sealed", {"first": Path("results/first")})
    refused(run_cli("compare", "first", "--plot", "p.svg"), "--force")
    refused(run_cli("compare", "first", "--plot", "p.png"), ".svg")


def test_compare_refuses_what_it_cannot_compare(run_cli: RunCli, comparison: list[Any]) -> None:
    refused(run_cli("compare", "lino"), "did you mean 'lion'")
    refused(run_cli("compare", "lion", "--suite", "serch"), "serch")
    refused(run_cli("compare", "lion", "--suite", "search", "--tasks", "quadratic"), "exclude each other")
    refused(run_cli("compare", "lion", "lion"), "same name")
    refused(run_cli("compare"), "TARGET")
    assert comparison == []


def test_baselines(run_cli: RunCli, comparison: list[Any]) -> None:
    assert (
        loaded(run_cli("baselines", "--suite", "validation", "--recompute", "--json"))["origin"] == "shipped"
    )
    assert comparison[0]["recompute"] is True
    text = run_cli("baselines").stdout
    for words in ("adam", "cosine", "×1.20", "shipped"):
        assert words in text, words


# The machine


@pytest.mark.slow
def test_doctor_trains_a_little(run_cli: RunCli, here: Path) -> None:
    record = loaded(run_cli("doctor", "--quick", "--json"))
    assert record["works"] is True
    assert record["contents"]["known rules"] == len(KNOWN)
    (training,) = record["training"]
    assert training["loss_after"] < training["loss_before"]


def test_doctor_says_what_does_not_work(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("no compiler")

    monkeypatch.setattr("ruleforge.evaluate.evaluator.evaluate", broken)
    result = run_cli("doctor", "--quick")
    assert result.exit_code == 1
    assert "RuntimeError: no compiler" in result.stdout
    assert "does NOT work" in result.stdout


# Pipes


def test_a_reader_that_leaves_early_sees_no_traceback(project_root: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m ruleforge ops | head -1",
        shell=True, cwd=project_root, capture_output=True, text=True, env={**os.environ},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stdout


# All of it


@pytest.mark.slow
def test_a_small_search_ends_with_files_that_the_other_commands_read(run_cli: RunCli, here: Path) -> None:
    small = ["search.population=6", "search.generations=1", "search.finalists=1", "training.steps=20"]
    small += ["training.lrs.points=3", 'baselines.rules=["adam"]', 'training.workloads=["digits_mlp"]']
    args = ["search", "quickstart", "--out", "mine", "--workers", "1", "--json", "--set", "search.budget=5m"]
    record = loaded(run_cli(*args, *(word for each in small for word in ("--set", each))))
    assert {"run", "champion", "best_new", "baselines", "funnel", "wall_s"} <= record.keys()
    assert set(record["champion"]["speedup"]) == {"search", "validation"}
    assert run_cli("check", "mine").exit_code == 0
    assert loaded(run_cli("show", "mine", "--json"))["id"] == record["champion"]["id"]
    assert loaded(run_cli("list", "mine", "--json"))
    assert run_cli("export", "mine", "-o", "champion.py").exit_code == 0
    refused(run_cli("resume", "mine"), "finished")
