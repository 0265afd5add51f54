"""The files of a run folder: their names, atomic writing, and the lock that makes one writer.

Knows the operating system. Does not know what the files say.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from ruleforge.errors import StoreError

DATABASE: Final = "run.db"
CONFIG: Final = "config.toml"
CHAMPION: Final = "champion.rule"
LOG: Final = "log.txt"
LOCK: Final = "run.lock"
_OWN: Final = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", CONFIG, CHAMPION, LOG, LOCK)
_MAX_TEXT_BYTES: Final = 2**20  # what a run writes itself is far smaller
_ALONE: Final = os.O_CLOEXEC | os.O_NOFOLLOW  # never through a link out of the folder


def storage_error(
    doing: str, path: Path, fault: OSError, *, running: bool = False, instead: str = ""
) -> StoreError:
    """The error for a fault of the file system, with its remedy.

    Args:
        doing: what was tried, as in "write it".
        path: the file or folder at fault.
        fault: what the operating system said.
        running: the fault came in the middle of a run, so the exit code is 1.
        instead: another way out, as in "choose another folder with --out".
    """
    error = StoreError(
        f"cannot {doing}: {fault.strerror or fault}",
        file=str(path),
        hint="check the permissions and the free space" + (f", or {instead}" if instead else ""),
    )
    if running:
        error.exit_code = 1
    return error


def require_plain_files(folder: Path) -> None:
    """Nothing for a run folder whose own files are files: a link would lead reading and writing out of it.

    Raises:
        StoreError: one is a link, a pipe or the like, or a text far larger than a run writes.
    """
    for name in _OWN:
        try:
            found = os.lstat(folder / name)
        except OSError:
            continue
        hint = "put a plain file in its place; a copy of the run made with `cp -rL` has none but these"
        if stat.S_ISLNK(found.st_mode):
            raise StoreError(
                f"{name} is a link, and nothing outside the run folder is read or written",
                file=str(folder), hint=hint,
            )  # fmt: skip
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise StoreError(f"{name} is not a plain file", file=str(folder), hint=hint)
        if name in (CONFIG, CHAMPION) and found.st_size > _MAX_TEXT_BYTES:
            raise StoreError(
                f"{name} has {found.st_size} bytes; a run writes less than {_MAX_TEXT_BYTES}",
                file=str(folder), hint="it was made by something else: restore it from a copy",
            )  # fmt: skip


def write_text_atomic(path: Path | str, text: str, *, running: bool = False) -> None:
    """Write the whole text or nothing: a reader sees the old file or the new one, after a crash too.

    Args:
        path: the file.
        text: all of it.
        running: a fault comes in the middle of a run, so the exit code is 1.

    Raises:
        StoreError: the folder cannot be written or the disk is full; the old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _ALONE, 0o666)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as fault:
        raise storage_error("write it", path, fault, running=running) from fault


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
MAX_LOG_BYTES: Final = 4 * 2**20
OLD_LOGS: Final = 3


def append_line(path: Path, line: str) -> None:
    """Append to a log; one that has grown large becomes `log.1.txt`, and the oldest is dropped.

    Args:
        path: the log.
        line: without its end; controls become spaces, so that whoever prints the log sees one line of text.

    Raises:
        StoreError: the log cannot be written, in the middle of a run.
    """
    try:
        if path.is_file() and path.stat().st_size >= MAX_LOG_BYTES:
            for k in range(OLD_LOGS, 0, -1):
                older = path.with_suffix(f".{k - 1}{path.suffix}") if k > 1 else path
                if older.exists():
                    os.replace(older, path.with_suffix(f".{k}{path.suffix}"))
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _ALONE, 0o666)
        with os.fdopen(handle, "a", encoding="utf-8", errors="replace") as file:
            file.write(_CONTROL.sub(" ", line) + "\n")
    except OSError as fault:
        raise storage_error("write it", path, fault, running=True) from fault


def sync_folder(folder: Path) -> None:
    """Make renames within the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# Handles of locks held by this process. A forked child must drop its copies, or a worker that outlives
# the writer would keep the run locked.
_held: set[int] = set()


def _drop_in_child() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_drop_in_child)


class WriterLock:
    """The right to write one run; the kernel gives it back when the process dies, however it dies.

    Args:
        folder: run folder.
        patience_s: how long to wait for another process that only looks whether the run is busy.

    Raises:
        StoreError: another process writes this run; the message names its pid.
    """

    def __init__(self, folder: Path, *, patience_s: float = 0.5) -> None:
        path = folder / LOCK
        self._owner = os.getpid()
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | _ALONE, 0o666)
        except OSError as fault:
            raise storage_error("take the writer's lock", path, fault) from fault
        until = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as fault:
                if time.monotonic() < until:
                    time.sleep(0.02)
                    continue
                holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip()
                os.close(self._handle)
                raise StoreError(
                    f"this run is being written by process {holder or 'unknown'}",
                    file=str(folder),
                    hint="wait for it or stop it; reading the run (list, show) works meanwhile",
                ) from fault
            except OSError as fault:
                os.close(self._handle)
                raise storage_error("take the writer's lock", path, fault) from fault
        _held.add(self._handle)
        with suppress(OSError):  # a full disk: the lock holds, only its message will not name us
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{os.getpid()}\n".encode("ascii"), 0)

    def release(self) -> None:
        """Give the lock back; the second call does nothing."""
        if self._handle in _held and self._owner == os.getpid():
            _held.discard(self._handle)
            os.close(self._handle)


def is_being_written(folder: Path) -> bool:
    """Whether a live process holds the writer's lock of this run folder."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # no lock file: nobody has written here since it was copied or made
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
