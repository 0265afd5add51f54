"""Power cuts, replayed: what a disk may hold when a run's writes stop at any point.

What was synced is there. Of later writes each may be missing, whole, or cut at a sector; renames and
removals that were not synced happened up to some point, in order.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512


@dataclass(frozen=True)
class Operation:
    """W write, T truncate, S sync, R rename, U unlink, or M: generation `offset` was acknowledged."""

    op: str
    path: str
    other: str
    offset: int
    data: bytes
    size: int


def read_trace(path: Path) -> Iterator[Operation]:
    """The operations of a trace, in order."""
    raw = path.read_bytes()
    at = 0

    def take(n: int) -> bytes:
        nonlocal at
        at += n
        return raw[at - n : at]

    while at < len(raw):
        op = take(1).decode()
        name = take(struct.unpack("<i", take(4))[0]).decode()
        other = take(struct.unpack("<i", take(4))[0]).decode()
        offset, size = struct.unpack("<qq", take(16))
        yield Operation(op, name, other, offset, take(size) if op == "W" else b"", size)


@dataclass
class _Disk:
    files: dict[str, bytearray] = field(default_factory=dict)

    def apply(self, each: Operation, size: int | None = None) -> None:
        match each.op:
            case "W":
                data = each.data if size is None else each.data[:size]
                file = self.files.setdefault(each.path, bytearray())
                end = each.offset + len(data)
                if len(file) < end:
                    file.extend(bytes(end - len(file)))
                file[each.offset : end] = data
            case "T":
                file = self.files.setdefault(each.path, bytearray())
                file.extend(bytes(max(0, each.offset - len(file))))
                del file[each.offset :]
            case "U":
                self.files.pop(each.path, None)
            case "R":
                for name in [n for n in self.files if n == each.path or n.startswith(f"{each.path}/")]:
                    self.files[each.other + name[len(each.path) :]] = self.files.pop(name)


def after_cut(operations: list[Operation], at: int, rng: random.Random) -> tuple[dict[str, bytes], int]:
    """What the disk holds when the power goes before operation `at`, and the generations acknowledged."""
    disk = _Disk()
    acked = max((each.offset for each in operations[:at] if each.op == "M"), default=0)
    done = operations[:at]
    renamed: dict[str, str] = {}
    synced_at: dict[str, int] = {}
    for k, each in enumerate(done):
        if each.op == "S":
            synced_at[each.path] = k
        if each.op == "R":
            renamed[each.path] = each.other
            # What was synced under the old name is synced under the new one.
            for name in [n for n in synced_at if n == each.path or n.startswith(f"{each.path}/")]:
                synced_at[each.other + name[len(each.path) :]] = synced_at[name]
    moves = [k for k, each in enumerate(done) if each.op in "RU"]
    last_sync = max(synced_at.values(), default=-1)  # journaling file systems keep the order of moves
    loose = [k for k in moves if k > last_sync]
    moves_end = rng.choice([*loose, at])
    for k, each in enumerate(done):
        if each.op in "SM" or (each.op in "RU" and k >= moves_end):
            continue
        name = each.path
        seen = {name}
        while name in renamed and renamed[name] not in seen:
            name = renamed[name]
            seen.add(name)
        is_durable = each.op in "RU" or any(synced_at.get(n, -1) > k for n in seen)
        if is_durable or rng.random() < 0.5:
            disk.apply(each)
        elif each.op == "W" and rng.random() < 0.5:
            disk.apply(each, rng.randrange(0, len(each.data) + 1, SECTOR) if len(each.data) >= SECTOR else 0)
    return {name: bytes(data) for name, data in disk.files.items()}, acked
