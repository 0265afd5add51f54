"""The Python API: its names, its lightness, and that it does what the commands do."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import ruleforge as rf

from .conftest import SCALED, SIGN_EMA, final_record, make_run


def test_the_public_names() -> None:
    """A change here is a change for every user: note it in docs/decisions.md, and keep old calls working."""
    assert sorted(rf.__all__) == [
        "Rule",
        "RuleText",
        "RuleforgeError",
        "Run",
        "__version__",
        "compare",
        "export",
        "known",
        "load",
        "parse",
        "search",
        "swap",
    ]
    assert all(hasattr(rf, name) for name in rf.__all__)
    assert set(rf.__all__) <= set(dir(rf))
    with pytest.raises(AttributeError, match="nonsense"):
        rf.nonsense  # noqa: B018


def test_importing_is_light(project_root: Path) -> None:
    """What takes long to import is imported when it is needed; benchmarks/startup.py has the seconds."""
    code = (
        "import sys, ruleforge;"
        "print(*[m for m in ('torch', 'sympy', 'numba', 'numpy', 'pydantic', 'click') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "\n"


def test_parts_that_are_functions_too_stay_parts() -> None:
    """Importing a part binds it in the package, and must not hide the function of its name."""
    code = (
        "import ruleforge as rf\n"
        "import ruleforge.search.grammar\n"
        "import ruleforge.export\n"
        "assert callable(rf.search) and callable(rf.export)\n"
        "assert rf.search.grammar.load_grammar('full').name == 'full'\n"
        "print(rf.export('lion', to='json')[:1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "{\n"), done.stderr


def test_parse_known_and_export_agree_with_the_command_line() -> None:
    text = rf.parse("update = sign(g)")
    assert isinstance(text, rf.RuleText)
    assert isinstance(text.rule, rf.Rule)
    assert rf.known("lion").rule.rule.slots == 1
    assert rf.export("lion", to="json") == rf.export(rf.known("lion"), to="json")
    assert "class" in rf.export(text)
    assert rf.export(rf.Rule.parse("update = g"), to="latex").startswith("\\documentclass")
    with pytest.raises(rf.RuleforgeError, match="unknown target"):
        rf.export(text, to="abacus")
    with pytest.raises(rf.RuleforgeError, match="expected a rule, found int"):
        rf.export(3)  # type: ignore[arg-type]


def test_a_rule_a_known_rule_and_a_text_give_an_optimizer() -> None:
    known = rf.known("momentum")
    ends = []
    for made in (
        lambda params: known.optimizer(params, 0.1),
        lambda params: known.rule.optimizer(
            params, lr=0.1, **dict(zip(known.rule.hypers, [0.9], strict=True))
        ),
        lambda params: known.rule.rule.optimizer(params, lr=0.1),
    ):
        w = torch.nn.Parameter(torch.ones(3))
        optimizer = made([w])
        for _ in range(3):
            optimizer.zero_grad()
            (w * w).sum().backward()
            optimizer.step()
        ends.append(w.detach().clone())
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])
    assert rf.known("adamw").optimizer([w]).defaults["weight_decay"] == 0.01


def test_a_run_is_read_from_its_folder(finished_run: Path) -> None:
    run = rf.load("first")
    assert run.path == finished_run
    assert str(run.champion) == SIGN_EMA
    assert [(each.id, each.speedup) for each in run.front] == [(0, 1.2), (1, 1.1)]
    assert str(run.front[1].rule) == SCALED
    assert run.result == final_record(finished_run)
    assert "class" in rf.export(run)
    with pytest.raises(rf.RuleforgeError, match="did you mean 'first'"):
        rf.load("frist")


def test_an_unfinished_run_says_so(here: Path) -> None:
    run = rf.load(make_run(here / "half", finished=False))
    assert run.result is None
    with pytest.raises(rf.RuleforgeError, match="no champion yet"):
        _ = run.champion


def test_search_runs_the_driver_and_returns_the_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run_search(config: Any, *, out: Path, workers: int, progress: Any) -> dict[str, Any]:
        seen.append((config, workers))
        make_run(out)
        return {}

    monkeypatch.setitem(
        sys.modules, "ruleforge.app.run", types.SimpleNamespace(run_search=run_search)  # type: ignore[arg-type]
    )  # fmt: skip
    run = rf.search("quickstart", out="mine", seed=4, search__budget="2m", workers=1)
    ((config, workers),) = seen
    assert (config.seed, config.search.budget_s, workers) == (4, 120, 1)
    assert str(run.champion) == SIGN_EMA
    assert rf.search({"search": {"population": 9}}, out="other").path == Path("other")
    assert seen[1][0].search.population == 9
    with pytest.raises(rf.RuleforgeError, match="not an empty folder"):
        rf.search("quickstart", out="mine")
    with pytest.raises(rf.RuleforgeError, match="did you mean 'population'"):
        rf.search("quickstart", search__populaton=3)
    assert len(seen) == 2


def test_compare_takes_rules_in_any_form(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    runs: list[Any] = []

    def compare_rules(targets: Any, against: Any, **options: Any) -> dict[str, Any]:
        seen.append((list(targets), against, options["suite"]))
        runs.append(options["runs"])
        return {"overall": {}}

    monkeypatch.setitem(
        sys.modules, "ruleforge.app.compare", types.SimpleNamespace(compare_rules=compare_rules)  # type: ignore[arg-type]
    )  # fmt: skip
    run = rf.load("first")
    mine = rf.parse("update = sign(g) * 0.5")
    assert rf.compare(run, "lion", rf.known("adam"), run.front[1], mine, suite="search") == {"overall": {}}
    names, against, suite = seen[0]
    assert names == ["first", "lion", "adam", "rule_1", f"rule_{mine.rule.full_key[:8]}"]
    assert (against, suite) == (None, "search")
    assert list(runs[0]) == ["first"], "a champion's own figures are set beside"
    with pytest.raises(rf.RuleforgeError, match="two rules are called 'lion'"):
        rf.compare("lion", rf.known("lion"))
