"""A final table that somebody changed: one message with the place, whatever it holds and whoever reads it."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from ruleforge.app.api import Run
from ruleforge.app.final_record import final_record
from ruleforge.errors import StoreError
from ruleforge.store import Store
from tests.app.conftest import final_record as proper_record

RunCli = Callable[..., Result]
ODD: list[Any] = [None, True, 7, -1, 1e300, "text", "\x1b[31m", [], [[]], {}, {"id": {}}, [None], {"": 1}]
GOLDEN = Path(__file__).resolve().parents[1] / "golden/runs"


def put(folder: Path, value: Any) -> None:
    with Store.open(folder) as store:
        store.put_result("final", value)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (5, "final is 5"),
        ({"champion": 5}, "final.champion is 5"),
        ({"front": {}}, r"final.front is \{\}"),
        ({"front": [{}]}, r"final.front\[0\].id is missing"),
        ({"front": [{"id": True}]}, r"final.front\[0\].id is True"),
        ({"front": [{"id": 0, "speedup": [1]}]}, r"final.front\[0\].speedup is \[1\]"),
        ({"front": [{"id": 0, "workloads": {"x": {"vs_oracle": "y"}}}]}, "workloads.x.vs_oracle is 'y'"),
    ],
)
def test_what_ruleforge_does_not_write_is_refused_with_its_place(
    finished_run: Path, value: Any, where: str
) -> None:
    put(finished_run, value)
    with (
        Store.open(finished_run, readonly=True) as store,
        pytest.raises(StoreError, match=where) as caught,
    ):
        final_record(store)
    assert "copy" in caught.value.hint
    with pytest.raises(StoreError, match=where):
        _ = Run(finished_run).result


def test_what_runs_hold_is_read(finished_run: Path) -> None:
    with Store.open(finished_run, readonly=True) as store:
        assert final_record(store) == store.results()["final"]
    with Store.open(GOLDEN / "format-1/finished", readonly=True) as store:
        assert final_record(store)["champion"]["id"] >= 0
    with Store.open(GOLDEN / "format-1/interrupted", readonly=True) as store:
        assert final_record(store) == {}


def test_no_command_stumbles_over_a_changed_final(finished_run: Path, run_cli: RunCli) -> None:
    rng = random.Random(0)
    name, codes = str(finished_run), set()
    for _ in range(25):
        record = copy.deepcopy(proper_record(finished_run))
        at: Any = record
        while True:  # walk to a random place and put something odd there
            key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if rng.random() < 0.3 or not isinstance(at[key], dict | list) or not at[key]:
                at[key] = rng.choice(ODD)
                break
            at = at[key]
        put(finished_run, json.loads(json.dumps(record)))
        for command in (("list", name), ("show", name), ("list", name, "--json"), ("show", f"{name}:0")):
            result = run_cli(*command)
            codes.add(result.exit_code)
            assert "internal error" not in result.output + result.stderr, (record, result.stderr)
            assert "\x1b" not in result.output + result.stderr
    assert codes == {0, 2}
