"""What crosses between processes is text that spells numbers to the last bit, and builds nothing else."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.errors import TaskError
from ruleforge.evaluate import wire
from ruleforge.evaluate.lanes import ChunkResult
from ruleforge.evaluate.train import train_chunk
from ruleforge.tasks import WORKLOADS
from tests.evaluate.faulty import chunk, rule, train

_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float):
        return isinstance(b, float) and (
            (math.isnan(a) and math.isnan(b)) or struct.pack("d", a) == struct.pack("d", b)
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(_plain)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert same(value, wire.from_text(wire.to_text(value)))


@given(
    st.lists(st.floats(width=64), max_size=8), st.sampled_from([np.float64, np.float32, np.int64, np.bool_])
)
def test_arrays_keep_their_bits(numbers: list[float], dtype: Any) -> None:
    with np.errstate(all="ignore"):
        array = np.array(numbers).astype(dtype)
    back = wire.from_text(wire.to_text(array))
    assert back.dtype == array.dtype and back.tobytes() == array.tobytes()
    assert back.flags.writeable


def test_every_workload_and_job_comes_back_equal() -> None:
    for workload in WORKLOADS.values():
        assert wire.from_text(wire.to_text(workload)) == workload
    job = chunk(rule(1), rule(2))
    assert wire.from_text(wire.to_text(job)) == job
    result = train(job)
    back = wire.from_text(wire.to_text(result))
    assert isinstance(back, ChunkResult)
    assert back.curves.tobytes() == result.curves.tobytes()


def test_equal_jobs_have_equal_keys_and_others_have_others() -> None:
    keys = {
        wire.job_key(wire.request(function, job))
        for function in (train, train_chunk)
        for job in (chunk(rule(1)), chunk(rule(1)), chunk(rule(2)), chunk(rule(1), seed=1))
    }
    assert len(keys) == 6


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*"acsbvtfd", "x"]), inner, max_size=3),
    max_leaves=10,
))  # fmt: skip
def test_any_other_json_is_refused_or_harmless(spelled: Any) -> None:
    try:
        wire.from_text(json.dumps(spelled))
    except wire.WireError as error:
        assert str(error)


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "ruleforge.store.store:Store",
        "ruleforge.nowhere:X",
        "ruleforge.evaluate.workers:_Task",
    ],
)
def test_only_frozen_records_of_ruleforge_are_built(name: str) -> None:
    with pytest.raises(wire.WireError, match="record"):
        wire.from_text(json.dumps({"c": name, "v": ["id"]}))


def test_a_worker_that_reads_another_task_file_says_so(tmp_path: Any) -> None:
    from ruleforge.tasks import load_workload
    from ruleforge.tasks.template import TEMPLATE

    path = tmp_path / "mine.py"
    path.write_text(TEMPLATE)
    workload = load_workload("mine.py:factory", tmp_path)
    from dataclasses import replace

    job = replace(chunk(rule(1)), workload=workload)
    asked = wire.request(train, job)
    assert json.loads(asked)["source"]
    assert isinstance(wire.read_reply(wire.work(asked))[0], ChunkResult)
    wire._source_hash.cache_clear()
    path.write_text(TEMPLATE + "\n# another\n")
    failure, _ = wire.read_reply(wire.work(asked))
    assert isinstance(failure, wire.Failure) and isinstance(failure.error, TaskError)
    assert "not the one that the run began with" in failure.error.message
    wire._source_hash.cache_clear()
