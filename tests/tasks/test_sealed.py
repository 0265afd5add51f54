"""The sealed suite: drawn once, learnable whatever the seed, and out of every search's reach."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from ruleforge.app import seal
from ruleforge.app.cli import cli
from ruleforge.app.config import parse_config
from ruleforge.errors import ConfigError, InputError, TaskError
from ruleforge.evaluate.gradients import example, refusal
from ruleforge.tasks import SEALED, SUITES, WORKLOADS, Workload, check_task, load_suite, load_workload, sealed
from tests.tasks.test_workloads import train

SEEDS = (1, 2, 3)
ONE_QUICKLY = (1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3)))


@pytest.fixture
def unsealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the record, with nothing there yet."""
    monkeypatch.setattr(sealed, "SEAL", tmp_path / "sealed.json")
    return sealed.SEAL


def learnt(workload: Workload) -> bool:
    """Whether some learning rate of Adam lowers the validation loss well within half the budget."""
    before, after = train(workload, torch.tensor([1e-3, 5e-3, 0.02, 0.1]), workload.steps // 2, adam=True)
    return bool(torch.nan_to_num(after, nan=torch.inf).min() < 0.9 * before[0])


@pytest.mark.parametrize("seed", ONE_QUICKLY)
def test_drawn_workloads_pass_the_checks_of_built_in_ones(seed: int) -> None:
    drawn = sealed.make_sealed(seed)
    assert len(drawn) == len({w.name for w in drawn}) == sealed.N_WORKLOADS
    assert len({w.target for w in drawn}) == sealed.N_WORKLOADS
    for workload in drawn:
        assert check_task(workload.task) == workload.n_weights, workload.stresses
        assert workload.task.steps == workload.steps
        assert workload.task.batch(torch.Generator())[0].shape[0] == workload.batch_size
        assert refusal(workload.task, *example(workload, 2)) == ""
        assert 30 <= workload.n_weights <= 8000 and 100 <= workload.steps <= 200


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_drawn_workloads_can_be_learnt(seed: int) -> None:
    stuck = [(w.name, w.stresses) for w in sealed.make_sealed(seed) if not learnt(w)]
    assert stuck == []


def test_the_suite_is_a_function_of_its_seed() -> None:
    assert sealed.make_sealed(7) == sealed.make_sealed(7)
    assert sealed.make_sealed(7) != sealed.make_sealed(8)


def test_two_seeds_share_no_data_within_one_family() -> None:
    from ruleforge.tasks.vectors import linear_map

    one, two = (linear_map(name=f"sealed_linear_map_{seed}") for seed in (1, 2))
    x_one, x_two = (task.batch(torch.Generator().manual_seed(0))[0] for task in (one, two))
    assert not torch.equal(x_one, x_two)


def test_before_the_draw_there_is_no_sealed_suite_and_the_error_says_what_to_do(unsealed: Path) -> None:
    for asked in (lambda: load_suite(SEALED), lambda: load_workload("sealed_adding")):
        with pytest.raises(TaskError, match="no seed has been drawn") as caught:
            asked()
        assert "python -m ruleforge.app.seal" in caught.value.hint
    done = CliRunner().invoke(cli, ["compare", "lion", "--suite", "sealed", "--quiet"])
    assert done.exit_code == 2
    assert "no seed has been drawn" in done.stderr


def test_a_seed_is_drawn_once_and_recorded(unsealed: Path) -> None:
    record = seal.draw()
    assert json.loads(unsealed.read_text()) == record
    assert set(record) == {"seed", "drawn", "commit", "default_config_sha256"}
    assert [w.name for w in load_suite(SEALED)] == [w.name for w in sealed.make_sealed(record["seed"])]
    name = load_suite(SEALED)[0].name
    assert load_workload(name) == load_suite(SEALED)[0]
    with pytest.raises(TaskError, match="no workload 'sealed_other'"):
        load_workload("sealed_other")

    kept = unsealed.read_text()
    with pytest.raises(InputError, match="drawn already"):
        seal.draw()
    assert unsealed.read_text() == kept


def test_the_command_prints_the_record_and_refuses_in_one_line(
    unsealed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal.main() == 0
    assert json.loads(unsealed.read_text())["commit"] in capsys.readouterr().out
    assert seal.main() == 2
    assert "drawn already" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seed": "x"}', '{"seed": true}', "\x00"])
def test_a_damaged_record_is_named(unsealed: Path, text: str) -> None:
    unsealed.write_text(text)
    with pytest.raises(TaskError, match="sealed suite") as caught:
        load_suite(SEALED)
    assert caught.value.file == str(unsealed)
    with pytest.raises(InputError, match="drawn already"):
        seal.draw()


def test_a_changed_tree_is_told_in_the_record(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip

    assert seal._commit(tmp_path) == "unknown"
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    assert len(seal._commit(tmp_path)) == 40
    (tmp_path / "file").write_text("two")
    assert seal._commit(tmp_path).endswith("+changes")


KEPT_APART = [*SUITES["held_out"], "sealed_adding", "sealed_classes"]


@pytest.mark.parametrize("suite", ["held_out", SEALED])
@pytest.mark.parametrize("key", ["suite", "validation_suite"])
def test_no_config_names_a_suite_that_searches_must_not_see(suite: str, key: str) -> None:
    with pytest.raises(ConfigError, match="never used by a search"):
        parse_config(f"[training]\n{key} = '{suite}'")


@pytest.mark.parametrize("name", KEPT_APART)
def test_no_config_names_a_workload_that_searches_must_not_see(name: str) -> None:
    with pytest.raises(ConfigError, match="a search never uses it"):
        parse_config(f"[training]\nworkloads = ['{name}']")


@pytest.mark.parametrize("name", SUITES["held_out"])
def test_no_config_reaches_them_by_their_modules_path(name: str) -> None:
    for target in (WORKLOADS[name].target, "ruleforge.tasks.sealed:make_sealed"):
        with pytest.raises(ConfigError, match="of ruleforge itself"):
            parse_config(f"[training]\nworkloads = ['{target}']")
