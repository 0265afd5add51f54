"""Kills, second writers, full disks and folders that are no runs: one message each, nothing lost."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ruleforge.errors import StoreError
from ruleforge.store import Store, is_being_written, list_runs, write_text_atomic
from ruleforge.store import files as store_files
from tests.ordinary_user import as_ordinary_user

Batch = dict[str, Any]


@pytest.fixture
def writer() -> Iterator[Callable[[str, Path], subprocess.Popen[str]]]:
    """Starts a Python process on a script and a run folder; ends it after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


COMMITS = """
import sys
sys.path.insert(0, {tests!r})
from conftest import make_batch
from ruleforge.store import Store
store = Store.open(sys.argv[1])
for n in range(2, 100000):
    store.commit_generation(**make_batch(n))
    print(n, flush=True)
"""

STOPS_INSIDE = """
import sys, time
sys.path.insert(0, {tests!r})
from conftest import make_batch
from ruleforge.store import Store
store = Store.open(sys.argv[1])
batch = make_batch(2)
def rows():
    yield from batch["fitness"]
    print("inside", flush=True)
    time.sleep(60)
batch["fitness"], fitness = [], batch["fitness"]
store.commit_generation(**{{**batch, "fitness": rows()}})
"""

HOLDS = """
import sys, time
from ruleforge.store import Store
store = Store.open(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""

FORKS = """
import os, sys, time
from ruleforge.store import Store
store = Store.open(sys.argv[1])
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""

TESTS = str(Path(__file__).resolve().parent)


def test_kill_between_or_inside_generations_leaves_whole_generations(
    make_run: Callable[..., Store],
    batch: Callable[..., Batch],
    writer: Callable[[str, Path], subprocess.Popen[str]],
) -> None:
    store = make_run()
    store.close()
    process = writer(COMMITS.format(tests=TESTS), store.path)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 12:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    with Store.open(store.path) as again:
        last = again.last_generation()
        assert last is not None
        assert last.n >= 12
        assert again.check() == []
        with Store.create(store.path.with_name("whole"), config_text="", meta=_same_meta(again)) as whole:
            for n in range(last.n + 1):
                whole.commit_generation(**batch(n))
            assert again.dump() == whole.dump()
            again.commit_generation(**batch(last.n + 1))


def _same_meta(store: Store) -> dict[str, Any]:
    return {key: value for key, value in store.meta.items() if key != "created_at"}


def test_kill_in_the_middle_of_a_commit_leaves_nothing_of_it(
    run: Store, batch: Callable[..., Batch], writer: Callable[[str, Path], subprocess.Popen[str]]
) -> None:
    before = run.dump()
    run.close()
    process = writer(STOPS_INSIDE.format(tests=TESTS), run.path)
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    with Store.open(run.path, readonly=True) as reader:
        assert reader.dump() == before
    process.kill()
    process.wait()
    with Store.open(run.path) as again:
        assert again.dump() == before
        again.commit_generation(**batch(2))


def test_one_writer_and_any_number_of_readers(
    run: Store, batch: Callable[..., Batch], writer: Callable[[str, Path], subprocess.Popen[str]]
) -> None:
    run.close()
    assert not is_being_written(run.path)
    process = writer(HOLDS, run.path)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    with pytest.raises(StoreError, match=rf"written by process {process.pid}\b"):
        Store.open(run.path)
    assert is_being_written(run.path)
    assert list_runs(run.path.parent)[0].status == "running"
    with Store.open(run.path, readonly=True) as reader:
        assert reader.counts() == (2, 8, 4)
        with pytest.raises(StoreError, match="opened for reading"):
            reader.commit_generation(**batch(2))
        with pytest.raises(StoreError, match="opened for reading"):
            reader.log("x")
        with pytest.raises(StoreError, match="opened for reading"):
            reader.put_champion("x")
    process.kill()
    process.wait()
    assert not is_being_written(run.path)
    with Store.open(run.path) as next_writer:
        next_writer.commit_generation(**batch(2))


def test_a_second_writer_in_the_same_process_is_refused_too(run: Store) -> None:
    with pytest.raises(StoreError, match=rf"written by process {os.getpid()}\b"):
        Store.open(run.path)


def test_a_forked_worker_that_outlives_the_writer_does_not_keep_the_lock(
    run: Store, writer: Callable[[str, Path], subprocess.Popen[str]]
) -> None:
    run.close()
    process = writer(FORKS, run.path)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert is_being_written(run.path)
        process.kill()
        process.wait()
        Store.open(run.path).close()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_disk_too_full_for_the_writers_number_does_not_refuse_the_lock(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.close()

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", full)
    with Store.open(run.path) as store:
        assert is_being_written(store.path)
        with pytest.raises(StoreError, match="is being written"):
            store_files.WriterLock(run.path, patience_s=0)


def test_looking_at_a_run_does_not_stop_a_writer_from_starting(run: Store) -> None:
    import fcntl

    run.close()
    handle = os.open(run.path / "run.lock", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    with pytest.raises(StoreError, match="being written"):
        store_files.WriterLock(run.path, patience_s=0.05)
    fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)
    Store.open(run.path).close()


# Disks


def test_a_full_disk_is_told_and_what_was_stored_stays(run: Store, batch: Callable[..., Batch]) -> None:
    before = run.dump()
    pages = run._db.execute("PRAGMA page_count").fetchone()[0]
    run._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreError, match="full") as caught:
        run.commit_generation(**batch(2, size=4000))
    assert caught.value.exit_code == 1
    assert "resume" in caught.value.hint
    assert run.dump() == before
    assert run.check() == []
    run._db.execute("PRAGMA max_page_count = 1000000")
    run.commit_generation(**batch(2))
    run.close()
    with Store.open(run.path, readonly=True) as again:
        assert again.counts() == (3, 12, 6)


def test_a_text_file_is_written_wholly_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.rule"
    write_text_atomic(path, "old ×\n")
    assert path.read_bytes() == "old ×\n".encode()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        write_text_atomic(path, "new\n")
    assert path.read_text() == "old ×\n"
    assert [each.name for each in tmp_path.iterdir()] == ["a.rule"]


def test_a_champion_that_cannot_be_written_is_a_fault_of_the_run(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.put_champion("update = g\n")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"champion\.rule: cannot write it: No space left") as caught:
            run.put_champion("update = sign(g)\n")
    assert caught.value.exit_code == 1
    assert (run.path / "champion.rule").read_text() == "update = g\n"


def test_a_disk_too_full_for_a_new_run_is_told_by_the_runs_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, meta: object, files: object) -> None:
        raise StoreError("cannot make run.db: database or disk is full", file=str(folder / "run.db"))

    monkeypatch.setattr("ruleforge.store.store.create_database", full)
    with pytest.raises(StoreError, match="disk is full") as caught:
        Store.create(tmp_path / "mine", config_text="", meta={})
    assert caught.value.file == str(tmp_path / "mine" / "run.db")
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_written_is_told(run: Store) -> None:
    (run.path / "log.txt").mkdir()
    with pytest.raises(StoreError, match=r"log\.txt: cannot write") as caught:
        run.log("x")
    assert caught.value.exit_code == 1


@pytest.fixture
def shared_dir(batch: Callable[..., Batch]) -> Iterator[Path]:
    """A folder that every user may read and none but its owner may write, with one run in it."""
    root = Path(tempfile.mkdtemp(prefix="ruleforge-test-"))
    with Store.create(root / "run", config_text="", meta={"seed": 1}) as store:
        store.commit_generation(**batch(0))
    for folder in (root / "run", root):
        for each in folder.iterdir():
            if each.is_file():
                each.chmod(0o444)
        folder.chmod(0o555)
    yield root
    for folder in (root, root / "run"):
        folder.chmod(0o755)
        for each in sorted(folder.rglob("*")):
            if each.is_file():
                each.chmod(0o644)
    for each in sorted(root.rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() else each.unlink()
    root.rmdir()


def test_a_read_only_folder_refuses_a_run_with_one_message(shared_dir: Path) -> None:
    def work() -> str:
        try:
            Store.create(shared_dir / "new", config_text="", meta={})
        except StoreError as error:
            return str(error)
        return "made"

    text = as_ordinary_user(work)
    assert "cannot make the run folder" in text
    assert "Permission denied" in text
    assert "--out" in text


def test_a_read_only_run_can_be_read_and_not_written(shared_dir: Path) -> None:
    def work() -> str:
        with Store.open(shared_dir / "run", readonly=True) as store:
            counts = store.counts()
        summary = list_runs(shared_dir)[0]
        try:
            Store.open(shared_dir / "run").close()
        except StoreError as error:
            return f"{counts} {summary.status} {error}"
        return "opened for writing"

    text = as_ordinary_user(work)
    assert text.startswith("(1, 4, 2) interrupted ")
    assert "cannot take the writer's lock" in text
    assert "permissions" in text


def test_a_run_that_may_not_be_read_is_told(shared_dir: Path) -> None:
    (shared_dir / "run" / "run.db").chmod(0)

    def work() -> str:
        try:
            Store.open(shared_dir / "run", readonly=True).close()
        except StoreError as error:
            return str(error)
        return "opened"

    text = as_ordinary_user(work)
    assert "cannot read" in text
    assert "Permission denied" in text


# Folders that are no runs


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("important")
    with pytest.raises(StoreError, match="not an empty folder") as caught:
        Store.create(folder, config_text="", meta={})
    assert caught.value.hint == "choose another --out"
    assert [each.name for each in tmp_path.rglob("*")] == ["mine", "thesis.tex"]


def test_a_folder_that_holds_a_run_is_refused_with_the_way_to_go_on(run: Store) -> None:
    with pytest.raises(StoreError, match="not an empty folder") as caught:
        Store.create(run.path, config_text="", meta={})
    assert f"ruleforge resume {run.path}" in caught.value.hint


def test_an_empty_folder_and_missing_parents_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    Store.create(tmp_path / "empty", config_text="", meta={}).close()
    Store.create(tmp_path / "a" / "b" / "run", config_text="", meta={}).close()
    assert Store.open(tmp_path / "a/b/run").last_generation() is None


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="not an empty folder"):
        Store.create(tmp_path / "file", config_text="", meta={})
    with pytest.raises(StoreError, match="cannot"):
        Store.create(tmp_path / "file" / "run", config_text="", meta={})
    with pytest.raises(StoreError, match="is a file"):
        Store.open(tmp_path / "file")


def test_meta_that_cannot_be_stored_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"meta\['plan'\]\.x: nan"):
        Store.create(tmp_path / "run", config_text="", meta={"plan": {"x": float("nan")}})
    assert list(tmp_path.iterdir()) == []


def damaged_folders(root: Path) -> dict[str, str]:
    """Makes folders that are no runs; their names and what the message must say."""
    for name in ("no_database", "text", "empty_file", "torn", "other", "newer"):
        (root / name).mkdir(parents=True)
    (root / "text" / "run.db").write_text("this is not a database, it only has the name of one\n" * 40)
    (root / "empty_file" / "run.db").touch()
    for name, application, version in (("other", 0, 1), ("newer", 0x52756C65, 99)):
        database = sqlite3.connect(root / name / "run.db")
        database.execute(f"PRAGMA application_id = {application}")
        database.execute(f"PRAGMA user_version = {version}")
        database.execute("CREATE TABLE meta (key TEXT)")
        database.close()
    Store.create(root / "torn_source", config_text="", meta={"seed": 1}).close()
    whole = (root / "torn_source" / "run.db").read_bytes()
    (root / "torn" / "run.db").write_bytes(whole[:4096] + b"\xff" * 4096)
    for each in (root / "torn_source").iterdir():
        each.unlink()
    (root / "torn_source").rmdir()
    return {
        "no_database": "holds no run.db",
        "text": "not a database",
        "empty_file": "is empty",
        "other": "something else",
        "newer": "format 99",
        "torn": "malformed",
    }


@pytest.mark.parametrize("readonly", [True, False])
def test_what_is_no_run_is_refused_with_a_remedy(tmp_path: Path, readonly: bool) -> None:
    for name, message in damaged_folders(tmp_path).items():
        folder = tmp_path / name
        before = sorted(each.name for each in folder.iterdir())
        with pytest.raises(StoreError, match=message) as caught:
            Store.open(folder, readonly=readonly)
        assert caught.value.hint, name
        assert sorted(each.name for each in folder.iterdir()) == before, name
    with pytest.raises(StoreError, match="no such run folder") as caught:
        Store.open(tmp_path / "nowhere", readonly=readonly)
    assert "ruleforge list" in caught.value.hint


def test_list_names_broken_folders_beside_whole_ones(make_run: Callable[..., Store], tmp_path: Path) -> None:
    root = tmp_path / "results"
    expected = damaged_folders(root)
    (root / "notes.txt").write_text("not a folder")
    (root / ".hidden").mkdir()
    with make_run("results/good") as good:
        good.put_champion("update = sign(g)\n")
        good.put_result("finished", {"by": "generations"})
    make_run("results/stopped", 1).close()
    found = {each.name: each for each in list_runs(root)}
    assert set(found) == {*expected, "good", "stopped"}
    for name, message in expected.items():
        assert found[name].status == "broken"
        assert message in found[name].problem
    good_summary = found["good"]
    assert (good_summary.status, good_summary.generations, good_summary.candidates) == ("finished", 2, 8)
    assert (good_summary.trained, good_summary.seed) == (4, 3)
    assert good_summary.champion == "update = sign(g)\n"
    assert good_summary.created_at.endswith("+00:00")
    assert (found["stopped"].status, found["stopped"].champion) == ("interrupted", None)


def test_readers_leave_no_files_behind(run: Store) -> None:
    run.close()
    before = sorted(each.name for each in run.path.iterdir())
    with Store.open(run.path, readonly=True) as reader:
        reader.dump()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM results")
    assert list_runs(run.path.parent)[0].generations == 2
    assert sorted(each.name for each in run.path.iterdir()) == before


def test_list_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        list_runs(tmp_path / "nowhere")
    assert list_runs(tmp_path) == []


def test_odd_names_are_only_names(tmp_path: Path) -> None:
    folder = tmp_path / "what? 100% #1"
    Store.create(folder, config_text="", meta={}).close()
    with Store.open(folder, readonly=True) as store:
        assert store.counts() == (0, 0, 0)
    assert [each.name for each in tmp_path.iterdir()] == [folder.name]


def test_a_reader_sees_what_a_writer_adds(run: Store, batch: Callable[..., Batch]) -> None:
    with Store.open(run.path, readonly=True) as reader:
        assert reader.counts()[0] == 2
        run.commit_generation(**batch(2))
        assert reader.counts()[0] == 3
        assert reader.dump() == run.dump()


STRANGE = {
    "a view that never ends": (
        "DROP TABLE timings; CREATE VIEW timings AS WITH RECURSIVE r(generation, phase, wall_s) AS "
        "(SELECT 0, '', 0 UNION ALL SELECT generation + 1, '', 0 FROM r) SELECT * FROM r"
    ),
    "a trigger": "CREATE TRIGGER mine AFTER INSERT ON sessions BEGIN DELETE FROM results; END",
    "a virtual table": "CREATE VIRTUAL TABLE mine USING fts5(text)",
    "another table": "CREATE TABLE mine (x)",
    "a law less": "DROP TRIGGER candidates_fixed_u",
    "an index that computes": "CREATE INDEX mine ON results (length(hex(zeroblob(1000000))))",
}


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize("what", STRANGE)
def test_a_database_with_a_schema_of_its_own_is_refused(run: Store, what: str, readonly: bool) -> None:
    run.close()
    database = sqlite3.connect(run.path / "run.db")
    database.executescript(STRANGE[what])
    database.close()
    with pytest.raises(StoreError, match="not made of the tables") as caught:
        Store.open(run.path, readonly=readonly)
    assert "copy" in caught.value.hint
    assert [each.status for each in list_runs(run.path.parent)] == ["broken"]


def put_any_type(path: Path, table: str, column: str, value: Any) -> None:
    """Write what the table's declaration forbids, as damage does, and leave the declaration as it was."""
    for before, after, and_then in ((" TEXT ", " ANY ", value), (" ANY ", " TEXT ", None)):
        database = sqlite3.connect(path / "run.db", isolation_level=None)
        laws = database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        database.execute("PRAGMA writable_schema = ON")
        database.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE name = ?", (before, after, table)
        )
        database.close()
        if and_then is not None:
            database = sqlite3.connect(path / "run.db", isolation_level=None)
            database.execute("PRAGMA ignore_check_constraints = ON")
            for name, _ in laws:
                database.execute(f"DROP TRIGGER {name}")
            database.execute(f"UPDATE {table} SET {column} = ?", (value,))
            for _, law in laws:
                database.execute(law)
            database.close()


@pytest.mark.parametrize("value", [b"bytes", 5], ids=["bytes", "a number"])
@pytest.mark.parametrize(
    ("table", "column"),
    [("candidates", "text"), ("candidates", "origin"), ("evaluations", "workload"), ("meta", "value"),
     ("generations", "rng"), ("files", "text")],
)  # fmt: skip
def test_a_value_of_another_type_than_its_column_is_damage(
    run: Store, table: str, column: str, value: Any
) -> None:
    run.close()
    put_any_type(run.path, table, column, value)
    with Store.open(run.path, readonly=True) as store:
        with pytest.raises(StoreError, match="cannot be read") as caught:
            store.candidates()
            store.evaluations()
            store.last_generation()
            assert store.meta and store.kept_file("config.toml")
        assert "restore" in caught.value.hint


def test_statistics_of_the_planner_are_no_schema_of_its_own(run: Store) -> None:
    run.close()
    database = sqlite3.connect(run.path / "run.db")
    database.execute("ANALYZE")
    database.close()
    with Store.open(run.path) as store:
        assert store.check() == []


@pytest.mark.parametrize(
    "name", ["run.db", "run.db-wal", "config.toml", "champion.rule", "log.txt", "run.lock"]
)
def test_a_link_out_of_the_run_folder_is_refused_and_its_end_left_alone(
    run: Store, tmp_path: Path, name: str
) -> None:
    run.close()
    own = tmp_path / "own.txt"
    own.write_bytes((run.path / "run.db").read_bytes() if name == "run.db" else b"mine\n")
    before = own.read_bytes()
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(own)
    for readonly in (True, False):
        with pytest.raises(StoreError, match=f"{name} is a link") as caught:
            Store.open(run.path, readonly=readonly)
        assert caught.value.hint
    assert own.read_bytes() == before


def test_a_link_that_comes_later_is_not_followed_either(run: Store, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("mine\n")
    (run.path / "log.txt").unlink(missing_ok=True)
    (run.path / "log.txt").symlink_to(own)
    with pytest.raises(StoreError, match=r"log\.txt: cannot write"):
        run.log("x")
    run.close()
    (run.path / "run.lock").unlink()
    (run.path / "run.lock").symlink_to(own)
    with pytest.raises(StoreError, match="lock"):
        store_files.WriterLock(run.path)
    assert own.read_text() == "mine\n"


def test_a_pipe_in_a_run_folder_is_refused_and_does_not_block(run: Store) -> None:
    run.close()
    (run.path / "champion.rule").unlink(missing_ok=True)
    os.mkfifo(run.path / "champion.rule")
    assert "not a plain file" in list_runs(run.path.parent)[0].problem


def test_a_config_that_no_run_wrote_is_not_read(run: Store) -> None:
    run.close()
    with (run.path / "config.toml").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(StoreError, match=r"config\.toml has 8589934592 bytes"):
        Store.open(run.path, readonly=True)


def test_a_damaged_circle_of_parents_comes_to_an_end(run: Store) -> None:
    run._db.execute("PRAGMA ignore_check_constraints = ON")
    run._db.execute("INSERT INTO parents VALUES (0, 0, 5)")
    found = {ancestor.id: ancestor.depth for ancestor in run.lineage(5)}
    assert found == {5: 0, 0: 1, 1: 1}


def test_a_parent_that_is_missing_from_its_row_is_damage(run: Store) -> None:
    """Damage to the declaration in the file, not to the row, makes room for it."""
    run.close()
    declared, lenient = "parent   INTEGER NOT NULL", "parent   INTEGER         "
    redeclare = "UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE name = 'parents'"
    for old, new, row in ((declared, lenient, ()), (lenient, declared, ((1, 7, None),))):
        database = sqlite3.connect(run.path / "run.db", isolation_level=None)
        database.executemany("INSERT INTO parents VALUES (?, ?, ?)", row)
        database.execute("PRAGMA writable_schema = ON")
        database.execute(redeclare, (old, new))
        database.close()
    with Store.open(run.path, readonly=True) as store:
        with pytest.raises(StoreError, match="a row of parents cannot be read: parent is 'None'") as caught:
            store.lineage(1)
        assert "restore" in caught.value.hint


def test_the_log_turns_over_and_keeps_the_last_lines(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_files, "MAX_LOG_BYTES", 400)
    for k in range(200):
        run.log(f"line {k:03}")
    logs = sorted(each.name for each in run.path.glob("log*"))
    assert logs == ["log.1.txt", "log.2.txt", "log.3.txt", "log.txt"]
    lines = "".join((run.path / name).read_text() for name in [*reversed(logs[:3]), "log.txt"]).splitlines()
    numbers = [int(line.rpartition(" ")[2]) for line in lines]
    assert numbers == list(range(200 - len(numbers), 200)) and len(numbers) > 30
    assert all((run.path / name).stat().st_size < 400 + 40 for name in logs)


def test_a_line_of_the_log_is_one_line_of_text(run: Store) -> None:
    run.log("\x1b]0;owned\x07a\u202eb\nT generation 99: forged\x9b31m")
    lines = (run.path / "log.txt").read_text().split("\n")
    assert len(lines) == 2 and lines[1] == ""
    assert lines[0].endswith("]0;owned a b T generation 99: forged 31m")
