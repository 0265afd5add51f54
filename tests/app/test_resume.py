"""Going on with a run: inside a generation, elsewhere, with what was edited, lost, copied or is too old."""

from __future__ import annotations

import shutil
import sqlite3
import time
from datetime import datetime, tzinfo
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner

from ruleforge.app import resuming
from ruleforge.app.checking import find_faults, find_notes, mend
from ruleforge.app.cli import cli
from ruleforge.app.config import parse_config
from ruleforge.app.progress import QuietProgress
from ruleforge.app.run import resume_run, run_search
from ruleforge.errors import StoreError
from ruleforge.evaluate import packing, train
from ruleforge.store import Store
from tests.app.test_search_runs import SMALL, Interrupting, config, contents

pytestmark = pytest.mark.usefixtures("small_world")

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "runs"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_search(config(), out=folder, workers=1, progress=QuietProgress())
    return folder


@pytest.fixture(scope="module")
def cut_once(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "cut"
    with pytest.raises(KeyboardInterrupt):
        run_search(config(), out=folder, workers=1, progress=Interrupting(1))
    return folder


@pytest.fixture
def cut(cut_once: Path, tmp_path: Path) -> Path:
    """A run that was interrupted after its second generation, as a copy."""
    shutil.copytree(cut_once, tmp_path / "run")
    return tmp_path / "run"


class Saying(QuietProgress):
    """Keeps what it is told; interrupts at the given number of finished chunks of a training."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.said: list[str] = []
        self.stop_at = stop_at
        self.n_chunks = 0

    def message(self, text: str) -> None:
        self.said.append(text)

    def phase(self, text: str, done: int, total: int) -> None:
        if "training" in text or "scoring" in text:
            self.n_chunks += 1
            if self.n_chunks == self.stop_at:
                raise KeyboardInterrupt


def count_trainings(patch: pytest.MonkeyPatch) -> list[int]:
    """Counts trainings from now on, in the list's only element."""
    count = [0]

    def counted(job: Any) -> Any:
        count[0] += 1
        return train.train_chunk(job)

    counted.__module__, counted.__qualname__, counted.__name__ = train.__name__, "train_chunk", "train_chunk"
    patch.setattr(packing, "train_chunk", counted)
    return count


def test_a_run_goes_on_inside_a_generation_and_trains_nothing_twice(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = count_trainings(monkeypatch)
    run_search(config(), out=tmp_path / "again", workers=1, progress=QuietProgress())
    n_whole, count[0] = count[0], 0
    stop, n_stops = 2, 0
    try:
        run_search(config(), out=tmp_path / "cut", workers=1, progress=Saying(stop))
        pytest.fail("it was not interrupted")
    except KeyboardInterrupt:
        n_stops += 1
    while True:
        try:
            resume_run(tmp_path / "cut", workers=1, progress=Saying(stop + 2 * n_stops))
            break
        except KeyboardInterrupt:
            n_stops += 1
    assert n_stops >= 4
    assert contents(tmp_path / "cut") == contents(whole)
    # A chunk that had just ended when the interrupt came may be lost with it, no more.
    assert n_whole <= count[0] <= n_whole + n_stops
    with Store.open(tmp_path / "cut", readonly=True) as store:
        assert store._rows("SELECT count(*) FROM journal") == [(0,)]
        assert len(store.sessions()) == n_stops + 1


def test_threads_give_the_same_run(whole: Path, tmp_path: Path) -> None:
    run_search(config(), out=tmp_path / "run", workers=2, parallel="threads", progress=QuietProgress())
    assert contents(tmp_path / "run") == contents(whole)


class Leaping(datetime):
    """A clock that is fifty years ahead at every second look."""

    looks = 0

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        cls.looks += 1
        return cls(2020 + 50 * (cls.looks % 2), 1, 1, tzinfo=tz)


def test_a_clock_that_jumps_changes_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = count()
    monkeypatch.setattr(time, "time", lambda: 1.6e9 * (next(looks) % 2))
    monkeypatch.setattr("ruleforge.store.store.datetime", Leaping)
    with pytest.raises(KeyboardInterrupt):
        run_search(config(), out=tmp_path / "run", progress=Interrupting(0))
    resume_run(tmp_path / "run", progress=QuietProgress())
    assert contents(tmp_path / "run") == contents(whole)
    run_search(config(generations=2, budget="2h"), out=tmp_path / "timed", progress=QuietProgress())
    with Store.open(tmp_path / "timed", readonly=True) as store:
        assert store.counts()[0] == 2  # not ended by two hours that were none
    assert Leaping.looks > 5


def test_a_config_that_was_edited_is_refused_and_can_be_put_back(whole: Path, cut: Path) -> None:
    path = cut / "config.toml"
    text = path.read_text()
    path.write_text(text.replace("population = 10", "population = 12"))
    with pytest.raises(StoreError, match=r"'population = 10' and is 'population = 12'") as caught:
        resume_run(cut, progress=QuietProgress())
    assert caught.value.exit_code == 2 and "--repair" in caught.value.hint
    assert [f.is_repairable for f in find_faults(cut)] == [True]
    shown = CliRunner().invoke(cli, ["check", str(cut)])
    assert shown.exit_code == 1 and "--repair" in shown.stdout
    assert CliRunner().invoke(cli, ["check", str(cut), "--repair"]).exit_code == 0
    assert path.read_text() == text
    path.unlink()
    progress = Saying()
    resume_run(cut, progress=progress)
    assert any("config.toml was missing" in line for line in progress.said)
    assert path.read_text() == text
    assert contents(cut) == contents(whole)
    (cut / "champion.rule").write_text("update = g\n")
    (cut / ".champion.rule.1.tmp").write_text("update")
    assert [f.message for f in find_faults(cut)] == ["champion.rule is not what the run wrote"]
    assert len(mend(cut)) == 2
    assert contents(cut) == contents(whole) and find_faults(cut) == [] and find_notes(cut) == []


def test_a_task_that_was_edited_is_refused(tmp_path: Path) -> None:
    from ruleforge.tasks.template import TEMPLATE

    (tmp_path / "mine.py").write_text(TEMPLATE)
    training = {**SMALL["training"], "workloads": ["mine.py:factory"]}
    mine = parse_config({**SMALL, "training": training}, folder=tmp_path)
    progress = Interrupting(0)
    progress.message = (said := []).append  # type: ignore[method-assign, var-annotated]
    with pytest.raises(KeyboardInterrupt):
        run_search(mine, out=tmp_path / "run", progress=progress)
    assert f"running the code of {tmp_path / 'mine.py'}, which the config names" in said
    (tmp_path / "mine.py").write_text(TEMPLATE + "\n# changed\n")
    with pytest.raises(StoreError, match="was changed after the run began") as caught:
        resume_run(tmp_path / "run", progress=QuietProgress())
    assert caught.value.file == str(tmp_path / "mine.py")
    (tmp_path / "mine.py").unlink()
    with pytest.raises(Exception, match="does not exist"):
        resume_run(tmp_path / "run", progress=QuietProgress())


def test_a_deleted_log_of_the_database_costs_time_and_is_told(whole: Path, cut: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_search(config(), out=tmp_path / "early", workers=1, progress=Interrupting(0))
    shutil.copy(tmp_path / "early" / "run.db", cut / "run.db")  # as if the log had held generation 2
    assert any("tells of 1 generation more" in note for note in find_notes(cut))
    progress = Saying()
    resume_run(cut, progress=progress)
    assert any("log tells of 2 generations and run.db holds 1" in line for line in progress.said)
    assert contents(cut) == contents(whole)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_half_copied_run_is_refused_and_left_as_it_is(cut: Path, share: float) -> None:
    whole = (cut / "run.db").read_bytes()
    (cut / "run.db").write_bytes(half := whole[: int(share * len(whole))])
    with pytest.raises(StoreError, match=r"run\.db") as caught:
        resume_run(cut, progress=QuietProgress())
    assert caught.value.hint
    assert (cut / "run.db").read_bytes() == half
    shown = CliRunner().invoke(cli, ["check", str(cut)])
    assert shown.exit_code in (1, 2) and "Traceback" not in shown.output + shown.stderr
    assert "copy" in shown.output + shown.stderr


def test_a_run_copied_to_another_machine_goes_on_and_both_are_recorded(
    cut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "processor", lambda: "Abacus 3000")
    monkeypatch.setattr(resuming.metadata, "version", lambda name: "9.9")
    progress = Saying()
    resume_run(cut, progress=progress)
    assert any("goes on on Abacus 3000: bits may differ" in line for line in progress.said)
    assert any("torch 2" in line and "goes on with 9.9" in line for line in progress.said)
    with Store.open(cut, readonly=True) as store:
        sessions = store.sessions()
    assert [generation for _, generation, _ in sessions] == [0, 2]
    assert [machine["cpu"] == "Abacus 3000" for _, _, machine in sessions] == [False, True]
    assert sessions[1][2]["versions"]["torch"] == "9.9"


def test_a_run_of_an_earlier_format_goes_on_to_its_end(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "format-1/interrupted", tmp_path / "run")
    shutil.copytree(GOLDEN / "format-1/finished", tmp_path / "finished")
    with Store.open(tmp_path / "run") as before:
        stored = before.candidates()
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    resume_run(tmp_path / "run", progress=QuietProgress())
    resume_run(tmp_path / "again", progress=QuietProgress())
    assert contents(tmp_path / "run") == contents(tmp_path / "again")
    with Store.open(tmp_path / "run", readonly=True) as mine, Store.open(tmp_path / "finished") as theirs:
        # What is proposed next is this version's choice, and follows from stored numbers alone.
        assert mine.candidates()[: len(stored)] == stored and len(mine.candidates()) > len(stored)
        assert len(mine.generations()) == len(theirs.generations()) and mine.results()["final"]
        assert mine.check() == []
    assert find_faults(tmp_path / "run") == []


def test_an_edited_config_of_an_earlier_format_is_refused_too(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "format-1/interrupted", tmp_path / "run")
    path = tmp_path / "run" / "config.toml"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(StoreError, match="was changed after the run began"):
        resume_run(tmp_path / "run", progress=QuietProgress())


def test_an_index_that_lost_a_row_is_repaired(cut: Path) -> None:
    database = sqlite3.connect(cut / "run.db", isolation_level=None)
    database.execute("PRAGMA writable_schema = ON")
    root = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'candidates_by_key'").fetchone()[
        0
    ]
    size = database.execute("PRAGMA page_size").fetchone()[0]
    database.close()
    raw = bytearray((cut / "run.db").read_bytes())
    at = (root - 1) * size
    count = int.from_bytes(raw[at + 3 : at + 5], "big")
    raw[at + 3 : at + 5] = (count - 1).to_bytes(2, "big")  # the leaf forgets its last cell
    (cut / "run.db").write_bytes(bytes(raw))
    faults = find_faults(cut)
    assert faults and all(fault.is_repairable for fault in faults)
    assert mend(cut) == ["the indexes of run.db are built anew"]
    assert find_faults(cut) == []
