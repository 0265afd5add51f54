"""A workload: a task at a named size, batch and budget, and how one is found by name.

Knows where a task's code lives and how its data is seeded. Imports torch only when a task is built,
so that listing workloads is cheap. A user's task file is ordinary Python and is run by importing it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import TaskError

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Task

USER_SUITE = "user"
_HERE = Path(__file__).resolve().parent
# Shared code that decides what a task's numbers are; its text is part of every source hash.
_SHARED_SOURCES = ("blocks.py", "modules.py", "nets.py", "seeds.py")
# Families that a user's file may call: their text counts where we cannot see what a task is made of.
_FAMILIES = ("equations.py", "pictures.py", "recurrent.py", "symbols.py", "synthetic.py", "vectors.py")


class TrainingData(NamedTuple):
    """What all candidates of one seed share.

    Attributes:
        params: initial parameters, float32, one lane.
        batches: one tensor per batch column, (T, B, …): step t uses row t - 1 of each.
    """

    params: dict[str, Tensor]
    batches: tuple[Tensor, ...]


@dataclass(frozen=True)
class Workload:
    """A task at a named size, batch and budget.

    Frozen, comparable, and cheap to send to another process: the task is built on first use from
    `target`, and is not sent along.

    Attributes:
        name: registry name, or the reference by which a user's config names it.
        target: where its factory is, "package.module:factory" or "/absolute/file.py:factory".
        folder: a user's folder, importable while the factory is found and run; "" for built-in ones.
        arguments: keyword arguments of the factory, as (name, value) pairs.
        suite: `search`, `validation`, `held_out`, or `user`.
        family: kind of problem, such as "classification of images".
        architecture: model class; no two suites share one.
        data_id: data source, with the row range where only some are used: "digits[0:1200]".
        stresses: what it is for, in one line.
        batch_size: rows a batch.
        steps: optimizer steps of the full budget.
        n_weights: trainable numbers of one lane.
        adam_over_sgd: how much sooner tuned Adam reaches the targets than tuned SGD, as a ratio of steps;
            measured by `benchmarks/workloads.py`, None where nobody has.
        one_by_one: why its lanes cannot run side by side, so that they are trained one after another; "".
    """

    name: str
    target: str
    folder: str
    arguments: tuple[tuple[str, Any], ...]
    suite: str
    family: str
    architecture: str
    data_id: str
    stresses: str
    batch_size: int
    steps: int
    n_weights: int
    adam_over_sgd: float | None = None
    one_by_one: str = ""

    @cached_property
    def task(self) -> Task:
        """The task itself, built on first use (imports torch, loads data)."""
        return _build(self.target, self.folder, dict(self.arguments))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "task"}

    def data(self, seed: int, n_steps: int) -> TrainingData:
        """Initial weights and batches, a pure function of the workload's name and the seed.

        Fewer steps are a prefix of more; weights and batches do not depend on one another.

        Args:
            seed: index of the seed, an integer.
            n_steps: batches to draw, at least 1.

        Raises:
            TaskError: `n_steps` is below 1.
        """
        import torch

        from .seeds import generator_from

        if n_steps < 1:
            raise TaskError(f"workload {self.name!r}: {n_steps} steps asked for", hint="ask for at least 1")
        params = self.task.init(generator_from(self.name, seed, "init"))
        generator = generator_from(self.name, seed, "batch")
        drawn = [self.task.batch(generator) for _ in range(n_steps)]
        batches = tuple(torch.stack(column) for column in zip(*drawn, strict=True))
        return TrainingData({key: value.detach() for key, value in params.items()}, batches)

    def source_hash(self) -> str:
        """Digest of all that decides the task's numbers, torch's version apart (hex, 32 characters).

        Covers the text of the file that defines the task (not of what else a user's file imports, our
        families apart), of the shared layers, wrappers and seeding, the arguments, the budget, and the
        task's `sources`, which hold a digest where the data is not fixed.
        """
        own = Path(_source_file(self.target, self.folder))
        digest = hashlib.blake2b(digest_size=16)
        shared = _SHARED_SOURCES + (_FAMILIES if self.suite == USER_SUITE else ())
        for path in (own, *(_HERE / name for name in shared)):
            digest.update(path.read_text(encoding="utf-8").encode() + b"\0")
        words = (self.name, self.arguments, self.batch_size, self.steps, self.task.sources)
        digest.update(repr(words).encode())
        return digest.hexdigest()

    def failed(self, error: Exception) -> TaskError:
        """The error for what the task raised while it was trained; its exit code is 1."""
        told = _failed(self.target, f"the task {self.name!r}, in training,", error)
        told.exit_code = 1
        told.hint = "it went well at the start: look at what it does with later steps, batches and weights"
        return told

    def describe(self) -> dict[str, Any]:
        """The row that `ruleforge tasks --json` prints; builds nothing."""
        return {
            "name": self.name,
            "suite": self.suite,
            "family": self.family,
            "architecture": self.architecture,
            "data": self.data_id,
            "stresses": self.stresses,
            "n_weights": self.n_weights,
            "batch_size": self.batch_size,
            "steps": self.steps,
            "adam_over_sgd": self.adam_over_sgd,
        }

    def resized(self, *, batch_size: int | None = None, steps: int | None = None) -> Workload:
        """The same task at another batch size or budget.

        Raises:
            TaskError: a value below 1, or a user's factory that takes no `batch_size`.
        """
        for what, value in (("batch_size", batch_size), ("steps", steps)):
            if value is not None and value < 1:
                raise TaskError(f"workload {self.name!r}: {what} is {value}", hint="choose at least 1")
        workload = replace(self, steps=steps) if steps else self
        if batch_size is None or batch_size == workload.batch_size:
            return workload
        arguments = {**dict(workload.arguments), "batch_size": batch_size}
        if workload.suite == USER_SUITE:
            _refuse_fixed_batch(workload, batch_size)
        return replace(workload, batch_size=batch_size, arguments=tuple(arguments.items()))


def load_user_workload(ref: str, base: str | Path | None = None) -> Workload:
    """The workload that "path/to/file.py:factory" or "package.module:factory" names, tried once.

    Args:
        ref: the reference; `factory` takes no required argument and returns a `Task`.
        base: folder against which a relative path (or package) is resolved; the current one if None.

    Raises:
        TaskError: with file, line where known, and remedy.
    """
    from .check import check_task_alone

    target, folder = _resolve(ref, Path(base if base is not None else "").resolve())
    task = _build(target, folder, {})
    try:
        n_weights, trouble = check_task_alone(task)
        rows = _batch_rows(task)
    except TaskError as error:
        raise _placed(error, target) from error
    if task.steps < 1:
        raise _placed(
            TaskError(f"task {task.name!r}: steps is {task.steps}", hint="choose at least 1"), target
        )
    workload = Workload(
        name=ref,
        target=target,
        folder=folder,
        arguments=(),
        suite=USER_SUITE,
        family="user",
        architecture=task.name,
        data_id=ref,
        stresses=(inspect.getdoc(_load_factory(target, folder)) or "a task of yours").splitlines()[0],
        batch_size=rows,
        steps=task.steps,
        n_weights=n_weights,
        one_by_one=str(trouble).splitlines()[0] if trouble is not None else "",
    )
    workload.__dict__["task"] = task  # built already: fill the cached property
    return workload


def _batch_rows(task: Task) -> int:
    from .seeds import generator_from

    first = task.batch(generator_from(task.name, "rows"))[0]
    return int(first.shape[0]) if first.ndim else 1


def _resolve(ref: str, base: Path) -> tuple[str, str]:
    """A reference's target, and the folder from which its code may import its neighbours."""
    place, _, factory = ref.rpartition(":")
    if not place or not factory.isidentifier():
        raise TaskError(
            f"{ref!r} names no task", hint="write a name from `ruleforge tasks`, or path/to/file.py:factory"
        )
    if not _is_file(place):
        return ref, str(base)
    path = (base / Path(place).expanduser()).resolve()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise TaskError(
            f"the task file {what}: {path}", hint="`ruleforge new-task FILE` writes one to start from"
        )
    return f"{path}:{factory}", str(path.parent)


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


@contextmanager
def _importable(folder: str) -> Iterator[None]:
    """Within, modules in `folder` can be imported, and no bytecode is written beside them."""
    if not folder:
        yield
        return
    quiet = sys.dont_write_bytecode
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = quiet
        if folder in sys.path:
            sys.path.remove(folder)


def _module_name(path: Path) -> str:
    """The name under which a task file is imported; unlike any other file's."""
    return f"ruleforge_user_{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()}"


def _load_module(target: str) -> ModuleType:
    """Import a target's module; a file is run anew each time, since its text may have changed."""
    place = target.rpartition(":")[0]
    if not _is_file(place):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is None or not (place + ".").startswith(error.name + "."):
                raise _failed(target, f"importing {place!r}", error) from error
            raise TaskError(
                f"no module {error.name!r} for the task {target!r}",
                hint="install it, or give the file: path/to/file.py:factory",
            ) from error
        except (Exception, SystemExit) as error:
            raise _failed(target, f"importing {place!r}", error) from error
    path = Path(place)
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} is no Python file", file=place, hint="name it something.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _failed(target, "the task file", error) from error
    return module


def _load_factory(target: str, folder: str) -> Callable[..., Any]:
    place, _, name = target.rpartition(":")
    with _importable(folder):
        module = _load_module(target)
    factory = getattr(module, name, None)
    if callable(factory):
        return factory
    own = [
        key
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__ and key[0] != "_"
    ]
    has = f"it defines {', '.join(own)}" if own else "it defines no function"
    raise TaskError(f"no factory {name!r} in {place}", file=place, hint=f"{has}; add `def {name}() -> Task:`")


def _build(target: str, folder: str, arguments: dict[str, Any]) -> Task:
    """Call a target's factory; what goes wrong in it becomes a TaskError with its place.

    A user's file is imported and its factory called with the global generators seeded, so that data
    drawn from them is the same in every worker.
    """
    from .base import Task
    from .seeds import global_seed

    name = target.rpartition(":")[2]
    try:
        with _importable(folder), global_seed(0):
            factory = _load_factory(target, folder)
            task = factory(**arguments)
    except TaskError as error:
        raise _placed(error, target) from error
    except (Exception, SystemExit) as error:
        raise _failed(target, f"the task factory {name!r}", error) from error
    if not isinstance(task, Task):
        raise _placed(
            TaskError(
                f"the task factory {name!r} returned {type(task).__name__}, expected a ruleforge.tasks.Task",
                hint="return Task(…) or Task.from_module(…)",
            ),
            target,
        )
    return task


def _failed(target: str, what: str, error: BaseException) -> TaskError:
    """Someone's code raised: say which, where, and how to see it in full."""
    from .check import first_line, place_of

    place = target.rpartition(":")[0]
    file, line = place_of(error, None)
    hint = "import it on its own to see the full traceback"
    if _is_file(place):
        path, factory = Path(place), target.rpartition(":")[2]
        call = f"; {path.stem}.{factory}()" if factory in what else ""
        hint = f"`cd {path.parent} && python -c 'import {path.stem}{call}'` shows the full traceback"
    return _placed(TaskError(f"{what} raised {first_line(error)}", file=file, line=line, hint=hint), target)


def _placed(error: TaskError, target: str) -> TaskError:
    """The same error with the user's file and the best line known."""
    place, _, name = target.rpartition(":")
    if error.file is not None or not _is_file(place):
        return error
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
    factory = getattr(sys.modules.get(_module_name(Path(place))), name, None)
    first = getattr(getattr(factory, "__code__", None), "co_firstlineno", None)
    return TaskError(error.message, file=place, line=lines[-1] if lines else first, hint=error.hint)


def _source_file(target: str, folder: str) -> str:
    place = target.rpartition(":")[0]
    if _is_file(place):
        return place
    with _importable(folder):
        found = importlib.util.find_spec(place)
    if found is None or not found.origin or not Path(found.origin).is_file():
        raise TaskError(f"the source of module {place!r} cannot be read", hint="give the task's file instead")
    return found.origin


def _refuse_fixed_batch(workload: Workload, batch_size: int) -> None:
    known = inspect.signature(_load_factory(workload.target, workload.folder)).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    if "batch_size" not in known and not takes_any:
        raise _placed(
            TaskError(
                f"batch_size is set to {batch_size}, but the task's factory takes no batch_size",
                hint=f"write `def factory(batch_size: int = {workload.batch_size}) -> Task:`",
            ),
            workload.target,
        )
