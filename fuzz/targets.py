"""What is fuzzed: each reader of a file that may come from a stranger, and what must hold of it.

A reader either answers or raises one of ruleforge's own errors with a message; it takes less than a
second of processor time; and nothing is executed, imported, started or written meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ruleforge.core.text import parse
from ruleforge.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 1.0
FORBIDDEN = (
    "exec", "import", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename",
    "subprocess.Popen", "socket.", "pickle.find_class", "ctypes.", "shutil.", "code.__new__",
)  # fmt: skip


class Broken(AssertionError):
    """An input did what no input may do."""


class _Guard:
    """Watches the interpreter while a reader reads."""

    def __init__(self) -> None:
        self.is_on = False
        self.seen = ""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_on and event.startswith(FORBIDDEN):
            self.seen = f"{event} {arguments!r:.200}"

    def run(self, reader: Callable[[], Any]) -> Any:
        """The reader's answer, or the InputError that it raised.

        Raises:
            Broken: it took too long, or did something.
        """
        self.seen = ""
        began = time.monotonic()
        answer = self._watched(reader)
        if self.seen:
            raise Broken(f"reading did: {self.seen}")
        # Asking for the processor's time takes as long as reading does, so only what seems slow is read
        # again with it: another program may have had the processor.
        if time.monotonic() - began > LIMIT_S:
            began = time.process_time()
            self._watched(reader)
            if (took := time.process_time() - began) > LIMIT_S:
                raise Broken(f"reading took {took:.2f} s")
        if isinstance(answer, InputError) and not answer.message.strip():
            raise Broken("refused without a message")
        return answer

    def _watched(self, reader: Callable[[], Any]) -> Any:
        self.is_on = True
        try:
            return reader()
        except InputError as error:
            return error
        finally:
            self.is_on = False


guard = _Guard()


class Target(Protocol):
    """A reader under test."""

    def seeds(self) -> list[bytes]:
        """Inputs to start from."""

    def words(self) -> list[str]:
        """What mutations like to insert."""

    def try_one(self, data: bytes) -> None:
        """Read one input; raises for what may not happen."""


def _spelled(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape" if len(data) % 7 == 0 else "replace")


# What is missing, or too much as a whole, stands at no place.
_OF_THE_WHOLE = re.compile(
    r"never assign|is missing|more than|too deep|too long|too large|at most|generates? no|nothing|is empty"
)


def _placed(error: InputError, what: str) -> None:
    if error.line is None and not _OF_THE_WHOLE.search(error.message):
        raise Broken(f"{what} refused without a position: {error.message}")


class Texts:
    """Rule text: refused with a line, or read, written and read again as the same rule."""

    def seeds(self) -> list[bytes]:
        return [each.read_bytes() for each in sorted((ROOT / "ruleforge/core/known").rglob("*.rule"))] + [
            b"update = __import__('os').system('touch /tmp/owned')\n",
            b"update = (lambda: g)()\nx = [g for g in w]\n",
            b"update = g.__class__.__mro__\n",
            b"m: state = 0\nm = " + b"(" * 300 + b"g" + b")" * 300 + b"\nupdate = m\n",
            b"update = 9**9**9**9 * g\n",
        ]

    def words(self) -> list[str]:
        from ruleforge.core.ops import OPS

        return [
            *OPS, "update = ", ": state = ", ": hyper(0, 1) = ", "hyper(0, 10, log)", '"""', "lambda",
            "g", "w", "t", "first", "lr", "lr0", "progress", "is_matrix", "1e308", "nan", "\n", "**", "if",
        ]  # fmt: skip

    def try_one(self, data: bytes) -> None:
        text = _spelled(data)
        found = guard.run(lambda: parse(text))
        if isinstance(found, InputError):
            _placed(found, "a rule")
            return
        if parse(str(found)) != found:
            raise Broken("what is written is not what was read")


class Exports:
    """JSON exports: whatever the rule's names and docstring, valid JSON that brings the rule back."""

    def seeds(self) -> list[bytes]:
        return Texts().seeds()

    def words(self) -> list[str]:
        return [*Texts().words(), '","', "</script>", "\\u2028", "\\end{equation}"]

    def try_one(self, data: bytes) -> None:
        from ruleforge.export.json import export_json

        text = _spelled(data)
        found = guard.run(lambda: parse(text))
        if isinstance(found, InputError):
            return
        made = guard.run(lambda: export_json(found))
        if isinstance(made, InputError):
            return
        if parse(json.loads(made)["text"]).rule != found.rule:
            raise Broken("the exported rule is another one")


class Grammars:
    """Grammar files."""

    def seeds(self) -> list[bytes]:
        return [each.read_bytes() for each in sorted((ROOT / "grammars").glob("*.toml"))]

    def words(self) -> list[str]:
        return [
            "[",
            "]",
            "= ",
            '"',
            "limits",
            "nodes",
            "ops",
            "true",
            "1e400",
            "inf",
            "nan",
            "\n",
            "[[",
            "9" * 30,
        ]

    def try_one(self, data: bytes) -> None:
        from ruleforge.search.grammar import parse_grammar

        text = _spelled(data)
        found = guard.run(lambda: parse_grammar(text))
        if isinstance(found, InputError):
            _placed(found, "a grammar")


class Configs:
    """Search configs. A task that a config names is looked for here, never run."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ruleforge-fuzz-"))
        (self.folder / "task.py").write_text("raise SystemExit('executed')\n")

    def seeds(self) -> list[bytes]:
        return [each.read_bytes() for each in sorted((ROOT / "search_configs").glob("*.toml"))] + [
            b'seed = 1\n[training]\nworkloads = ["task.py:factory", "digits_mlp"]\n',
            b'grammar = "~nobodyatall/mine.toml"\n',  # whoever looks for a home imports late
            b'[search]\nbudget = "1h"\n'
            b'seed_rules = ["../../../etc/passwd", {name = "x", text = "update = g"}]\n',
        ]

    def words(self) -> list[str]:
        from ruleforge.app.schema import Config

        names = [*Config.model_fields]
        for field in Config.model_fields.values():
            names += list(getattr(field.annotation, "model_fields", {}))
        return [*names, "task.py:factory", "../", "/etc/passwd", "~root/", "10m", "1e400", "true", "[[", "\n"]

    def try_one(self, data: bytes) -> None:
        from ruleforge.app.config import parse_config

        text = _spelled(data)
        found = guard.run(lambda: parse_config(text, folder=self.folder))
        if isinstance(found, InputError):
            _placed(found, "a config")


class Databases:
    """Run folders whose run.db and log were damaged anywhere, or cut anywhere."""

    def __init__(self) -> None:
        from ruleforge.store import Store
        from tests.store.conftest import make_batch

        shared = Path("/dev/shm")
        self.folder = Path(
            tempfile.mkdtemp(prefix="ruleforge-fuzz-", dir=shared if shared.is_dir() else None)
        )
        with Store.create(self.folder / "run", config_text="seed = 1\n", meta={"seed": 1}) as store:
            store.commit_generation(**make_batch(0))
            store.journal.put("job", "{}")
            store.journal.flush()
            store.commit_generation(**make_batch(1))
            store._db.execute("PRAGMA wal_autocheckpoint = 0")
            store.put_result("baselines", [{"x": 1}])
            self.log = (self.folder / "run" / "run.db-wal").read_bytes()
            self.base = (self.folder / "run" / "run.db").read_bytes()

    def seeds(self) -> list[bytes]:
        rng = random.Random(0)
        return [b"", *(rng.randbytes(n) for n in (6, 12, 40, 200))]

    def words(self) -> list[str]:
        return ["SQLite format 3", "CREATE TABLE", "CREATE VIEW", "CREATE TRIGGER", "load_extension"]

    def try_one(self, data: bytes) -> None:
        from ruleforge.store import Store, list_runs

        self._damage(data)

        def read() -> None:
            with Store.open(self.folder / "run", readonly=True) as store:
                store.check()
                store.dump()
                store.last_generation()
                store.generations()
                store.evaluations()
                store.fitness()
                store.timings()
                store.results()
                for row in store.candidates():
                    store.lineage(row.id)
                store.set_aside()
                store.sessions()
                store.kept_file("config.toml")

        guard.run(read)
        if len(data) % 8 == 1:
            guard.run(lambda: list_runs(self.folder))
        if len(data) % 4 == 0:

            def go_on() -> None:
                with Store.open(self.folder / "run") as store:
                    store.journal.get("job")

            guard.run(go_on)

    def _damage(self, data: bytes) -> None:
        """Edits that the input spells: places, and what is written there; then where the files are cut."""
        base, log = bytearray(self.base), bytearray(self.log)
        at = 2
        while at + 4 <= len(data):
            file = log if data[at] & 1 else base
            place = int.from_bytes(data[at + 1 : at + 3], "big") * max(1, len(file) // 65536 + 1) % len(file)
            size = 1 + data[at + 3] % 16
            file[place : place + size] = data[at + 4 : at + 4 + size]
            at += 4 + size
        if data[:1] and data[0] & 3 == 3:
            del base[data[0] * len(base) // 256 :]
        if data[1:2] and data[1] & 1:
            del log[data[1] * len(log) // 256 :]
        for left in (self.folder / "run").iterdir():
            left.unlink()
        (self.folder / "run" / "run.db").write_bytes(bytes(base))
        (self.folder / "run" / "run.db-wal").write_bytes(bytes(log))


class Journals:
    """Kept results of jobs: JSON that builds arrays and records, or is refused and computed again."""

    def seeds(self) -> list[bytes]:
        from ruleforge.evaluate.wire import to_text
        from tests.evaluate.faulty import chunk, rule, train

        job = chunk(rule(1))
        return [to_text(each).encode() for each in (train(job), job, (1.0, {"a": [None, float("nan")]}))]

    def words(self) -> list[str]:
        return [
            '{"c":"os:system","v":["id"]}',
            '"ruleforge.',
            ":Store",
            '"a":"|O8"',
            '"s":[1e9]',
            '{"f":"nan"}',
        ]

    def try_one(self, data: bytes) -> None:
        from ruleforge.evaluate.wire import WireError, from_text

        text = data.decode("utf-8", "replace")

        def read() -> None:
            with contextlib.suppress(WireError):
                from_text(text)

        guard.run(read)


TARGETS: dict[str, type[Any]] = {
    "texts": Texts,
    "exports": Exports,
    "grammars": Grammars,
    "configs": Configs,
    "databases": Databases,
    "journals": Journals,
}


def warm_up(target: Target) -> None:
    """Read each seed once unwatched, so that what a reader imports late is loaded."""
    watched, guard.run = guard.run, _unwatched  # type: ignore[method-assign]
    try:
        for seed in target.seeds():
            with contextlib.suppress(Broken):
                target.try_one(seed)
    finally:
        guard.run = watched  # type: ignore[method-assign]


def _unwatched(reader: Callable[[], Any]) -> Any:
    try:
        return reader()
    except InputError as error:
        return error
