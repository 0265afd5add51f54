"""Jobs and results as text: what crosses to another process or machine, and what a journal keeps.

A request names a module-level function and carries its job as JSON; a reply carries the result, or
the error in words. Floats keep their bits, NaN too. Decoding builds numbers, text, arrays and the
frozen records of ruleforge, and nothing else; nothing is unpickled.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import gc
import importlib
import itertools
import json
import math
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from ruleforge import errors
from ruleforge.errors import RuleforgeError, RunError, TaskError
from ruleforge.tasks import Workload
from ruleforge.tasks.workload import USER_SUITE

_DTYPES: Final = ("<f8", "<f4", "<i8", "|b1")
_OWN: Final = "ruleforge."


class WireError(ValueError):
    """Text that is no encoded value."""


@dataclass(frozen=True)
class Failure:
    """What a function raised, in words.

    Attributes:
        error: the error as the driver raises it, if it does.
        traceback: for people.
    """

    error: RuleforgeError
    traceback: str


# Values


def encode(value: Any) -> Any:
    """The value as what JSON can spell, so that `decode` gives an equal one, bit for bit."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        number = float(value)
        return number if math.isfinite(number) else {"f": repr(number)}
    if isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
        if little.dtype.str not in _DTYPES:
            raise WireError(f"an array of {value.dtype} does not travel")
        spelled = base64.b64encode(little.tobytes()).decode("ascii")
        return {"a": little.dtype.str, "s": list(value.shape), "b": spelled}
    if isinstance(value, list):
        return [encode(each) for each in value]
    if isinstance(value, tuple):
        return {"t": [encode(each) for each in value]}
    if isinstance(value, dict):
        return {"d": [[encode(key), encode(each)] for key, each in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        return {
            "c": f"{kind.__module__}:{kind.__qualname__}",
            "v": [encode(getattr(value, field.name)) for field in dataclasses.fields(value)],
        }
    raise WireError(f"{type(value).__name__} does not travel between processes")


def decode(spelled: Any) -> Any:
    """The value that `encode` spelled.

    Raises:
        WireError: it spells no value.
    """
    if spelled is None or isinstance(spelled, bool | str | int | float):
        return spelled
    if isinstance(spelled, list):
        return [decode(each) for each in spelled]
    if not isinstance(spelled, dict):
        raise WireError(f"{type(spelled).__name__} spells no value")
    try:
        match sorted(spelled):
            case ["f"]:
                return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[spelled["f"]]
            case ["t"]:
                return tuple(decode(each) for each in spelled["t"])
            case ["d"]:
                return {decode(key): decode(each) for key, each in spelled["d"]}
            case ["a", "b", "s"]:
                return _array(spelled["a"], spelled["s"], spelled["b"])
            case ["c", "v"]:
                return _record(spelled["c"])(*(decode(each) for each in spelled["v"]))
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise WireError(f"no value: {error}") from None
    raise WireError(f"no value has the keys {sorted(map(str, spelled))[:5]}")


def _array(dtype: str, shape: list[int], text: str) -> np.ndarray:
    if dtype not in _DTYPES:
        raise WireError(f"no arrays of {dtype!r} travel")
    return np.frombuffer(base64.b64decode(text, validate=True), dtype).reshape(shape).copy()


@lru_cache(maxsize=64)
def _record(name: str) -> type[Any]:
    """A frozen dataclass of ruleforge by its dotted name."""
    module, _, kind = name.partition(":")
    if not module.startswith(_OWN):
        raise WireError(f"{name!r} is no record of ruleforge")
    try:
        found = getattr(importlib.import_module(module), kind, None)
    except ImportError:
        found = None
    if not (isinstance(found, type) and dataclasses.is_dataclass(found) and found.__module__ == module):
        raise WireError(f"{name!r} is no record of ruleforge")
    if not found.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise WireError(f"{name!r} is no frozen record")
    return found


def to_text(value: Any) -> str:
    """An encoded value as compact JSON."""
    return json.dumps(encode(value), allow_nan=False, separators=(",", ":"))


def from_text(text: str) -> Any:
    """The inverse of `to_text`.

    Raises:
        WireError: it is not JSON, or spells no value.
    """
    try:
        return decode(json.loads(text))
    except RecursionError:
        raise WireError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise WireError(f"no JSON: {error}") from None


# Requests and replies


def request(function: Callable[[Any], Any], job: Any) -> str:
    """The text that asks a worker for `function(job)`.

    A job on a user's task carries the digest of the task's file, so that a worker which reads another
    version of it says so.
    """
    if function.__qualname__ != function.__name__:
        raise WireError(f"{function.__qualname__} is no function of a module")
    workload = getattr(job, "workload", None)
    own = isinstance(workload, Workload) and workload.suite == USER_SUITE
    return json.dumps(
        {
            "call": f"{function.__module__}:{function.__name__}",
            "job": encode(job),
            "source": _source_hash(workload) if own else None,
        },
        allow_nan=False,
        separators=(",", ":"),
    )


def job_key(asked: str) -> str:
    """The digest of a request: equal jobs have equal keys, in every process and run."""
    return blake2b(asked.encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=64)
def _source_hash(workload: Workload) -> str:
    return workload.source_hash()


def work(asked: str) -> str:
    """What a worker does: the request's function on its job, and the reply as text."""
    call = json.loads(asked)
    module, _, name = call["call"].partition(":")
    function = getattr(importlib.import_module(module), name)
    _settle_in()
    job = decode(call["job"])
    if call["source"] is not None and _source_hash(job.workload) != call["source"]:
        error = TaskError(
            "the task's file is not the one that the run began with",
            file=job.workload.target.rpartition(":")[0],
            hint="give every worker the same file, and leave it alone while the run goes on",
        )
        error.exit_code = 1
        return _spell_failure(Failure(error, ""))
    done = attempt(function, job)
    _set_aside_what_stays()
    if isinstance(done, Failure):
        return _spell_failure(done)
    return json.dumps({"result": encode(done), "by": stamp()}, allow_nan=False, separators=(",", ":"))


def attempt(function: Callable[[Any], Any], job: Any) -> Any:
    """`function(job)`, or a Failure with what it raised; a user's task is named with its file and line."""
    try:
        return function(job)
    except RuleforgeError as error:
        return Failure(error, traceback.format_exc())
    except Exception as error:
        told = traceback.format_exc()
        workload = getattr(job, "workload", None)
        if isinstance(workload, Workload) and workload.suite == USER_SUITE:
            return Failure(workload.failed(error), told)
        first = (str(error).strip().split("\n") or [""])[0][:300]
        return Failure(
            RunError(f"{type(error).__name__}: {first}", hint="this is a fault of ruleforge"), told
        )


def _spell_failure(failure: Failure) -> str:
    error = failure.error
    return json.dumps(
        {
            "error": {
                "kind": type(error).__name__,
                "exit_code": error.exit_code,
                **{name: getattr(error, name) for name in ("message", "file", "line", "column", "hint")},
                "context": error.context,
            },
            "traceback": failure.traceback,
            "by": stamp(),
        }
    )


def read_reply(text: str) -> tuple[Any, str]:
    """What a worker answered: the result or a Failure, and who it was."""
    reply = json.loads(text)
    if "error" not in reply:
        return decode(reply["result"]), reply["by"]
    told = dict(reply["error"])
    kind = getattr(errors, told.pop("kind"), RunError)
    exit_code, message = told.pop("exit_code"), told.pop("message")
    error = (kind if issubclass(kind, RuleforgeError) else RunError)(message, **told)
    error.exit_code = exit_code
    return Failure(error, reply["traceback"]), reply["by"]


MOST_GROWTH_BYTES: Final = 4 * 2**30


def ready(module: str) -> int:
    """Load a module, stay busy for a moment so that every worker gets one, and tell the process's number.

    Where psutil is installed, loky ends workers that have grown by 300 MB since their first job, which a
    compiler and a chunk of lanes do; ours may grow by more.
    """
    import os
    import time

    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = MOST_GROWTH_BYTES
    importlib.import_module(module)
    time.sleep(0.02)
    return os.getpid()


@lru_cache(maxsize=1)
def stamp() -> str:
    """What decides bits in this process besides the execution plan: versions and processor."""
    import sys
    from importlib import metadata

    from ruleforge.evaluate.machine import processor

    versions = " ".join(
        f"{name} {metadata.version(name).split('+')[0]}" for name in ("ruleforge", "torch", "numpy", "numba")
    )
    torch = sys.modules.get("torch")
    return f"{versions} on {processor()}" + (f", {torch.backends.cpu.get_cpu_capability()}" if torch else "")


_jobs = itertools.count(1)


def _set_aside_what_stays() -> None:
    """After jobs 1, 2, 4, 8, … what is alive by then is no longer searched for garbage.

    joblib's workers collect garbage once a second, and going through all of torch took longer than the jobs.
    """
    n = next(_jobs)
    if n & (n - 1) == 0 and threading.current_thread() is threading.main_thread():
        gc.collect()
        gc.freeze()


@lru_cache(maxsize=1)
def _settle_in() -> None:
    """Once a worker process: Ctrl-C is the driver's business, and trainings have one thread."""
    import signal
    import sys

    if "torch" in sys.modules:  # a job that needs it has loaded it with its function
        sys.modules["torch"].set_num_threads(1)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
