"""The registry, the options, JSON, and the door that writes files."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ruleforge.core.known import KNOWN
from ruleforge.core.text import RuleText, parse
from ruleforge.errors import ExportError
from ruleforge.export import TARGETS, export, write
from ruleforge.export.triton import why_not_fused
from ruleforge.testing import random_text

LION = KNOWN["lion"].rule


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_known_rule_goes_everywhere(name: str, target: str) -> None:
    if target == "triton" and why_not_fused(KNOWN[name].rule.rule):
        with pytest.raises(ExportError, match="no fused kernel"):
            export(KNOWN[name].rule, target)
        return
    made = export(KNOWN[name].rule, target)
    assert made.endswith("\n")
    assert KNOWN[name].rule.rule.key in made


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_says_what_it_is(target: str) -> None:
    assert TARGETS[target].suffix.startswith(".")
    assert TARGETS[target].doc
    assert "provenance" in TARGETS[target].options


def test_rules_without_names_get_some() -> None:
    assert "class DiscoveredRule(Optimizer)" in export(LION.rule, "torch")


def test_unknown_target_and_option() -> None:
    with pytest.raises(ExportError, match="unknown target 'toch'") as caught:
        export(LION, "toch")
    assert "did you mean 'torch'?" in caught.value.hint
    with pytest.raises(ExportError, match="latex takes no option 'class_name'") as caught:
        export(LION, "latex", class_name="X")
    assert "provenance" in caught.value.hint


def test_torch_options() -> None:
    made = export(
        LION, "torch", class_name="MyLion", lr=3e-4, weight_decay=0.1, provenance={"run": "r1", "seed": 3}
    )
    assert "class MyLion(Optimizer)" in made
    assert "lr: float | Tensor = 0.0003," in made
    assert "weight_decay: float = 0.1," in made
    assert "run: r1\nseed: 3\n" in made


def test_json_is_complete_and_reads_back() -> None:
    record = json.loads(export(LION, "json", provenance={"run": "r1", "path": Path("x")}))
    assert (record["schema"], record["version"]) == ("ruleforge.rule", 1)
    assert parse(record["text"]) == LION
    assert record["key"] == LION.rule.key
    assert record["full_key"] == LION.rule.full_key
    assert record["hypers"][0] == {
        "name": "beta1", "low": 0.0, "high": 1.0, "default": 0.9, "scale": "one_minus_log",
    }  # fmt: skip
    assert record["states"] == [{"name": "m", "kind": "tensor"}]
    assert record["nodes"] == LION.rule.nodes
    assert record["cost"]["slots"] == 1
    assert record["formula"]["unicode"][-1] == "w ← w − lr·u"
    assert record["provenance"] == {"run": "r1", "path": "x"}


def test_json_of_strange_text() -> None:
    strange = replace(LION, doc='half a pair \ud800, "quotes", \u2028')
    made = export(strange, "json")
    made.encode("utf-8")
    assert json.loads(made)["doc"] == strange.doc


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 60), marks=pytest.mark.slow)])
def test_random_rules_go_everywhere(seeds: range) -> None:
    import numpy as np

    for seed in seeds:
        text = random_text(np.random.default_rng(seed))
        for target in TARGETS:
            try:
                export(text, target)
            except ExportError as error:
                reasons = {"sympy": "sympy cannot hold it", "triton": "no fused kernel"}
                assert target in reasons and reasons[target] in error.message


def test_dead_code_is_left_out() -> None:
    text = RuleText.parse(
        "beta: hyper(0, 1) = 0.9\nunused: hyper(0, 1) = 0.5\ndead: state = 0\n"
        "dead = dead + g * unused\nlost = exp(g)\nupdate = ema(g, beta)"
    )
    code = export(text, "torch").split('"""')[2]
    for name in ("unused", "dead", "lost", "exp("):
        assert name not in code


def test_write(tmp_path: Path) -> None:
    path = tmp_path / "lion.py"
    assert write(path, "one\n") == path
    with pytest.raises(ExportError, match="exists already") as caught:
        write(path, "two\n")
    assert "--force" in caught.value.hint
    assert path.read_text() == "one\n"
    write(str(path), "three ← 3\n", force=True)
    assert path.read_bytes() == "three ← 3\n".encode()
    assert os.listdir(tmp_path) == ["lion.py"]


def test_write_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be written"):
        write(tmp_path / "missing" / "lion.py", "x")
    with pytest.raises(ExportError, match="is a folder"):
        write(tmp_path, "x", force=True)


@pytest.mark.parametrize("force", [False, True])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    path = tmp_path / "lion.py"
    if force:
        path.write_text("old\n")

    def full(*args: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ExportError, match="No space left"):
        write(path, "new\n", force=force)
    assert os.listdir(tmp_path) == (["lion.py"] if force else [])
    assert not force or path.read_bytes() == b"old\n"


def test_a_disk_that_cannot_be_cleaned_up_either_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only disk refuses to remove what could not be written."""

    def refuses(*args: object, **options: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "write_text", refuses)
    monkeypatch.setattr(Path, "unlink", refuses)
    with pytest.raises(ExportError, match=r"lion\.py: cannot be written: Read-only") as caught:
        write(tmp_path / "lion.py", "new\n")
    assert caught.value.exit_code == 2
