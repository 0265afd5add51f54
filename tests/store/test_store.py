"""What is put into a run comes out the same, and only wholly."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.errors import StoreError
from ruleforge.records import (
    CANDIDATE_STATUSES,
    CandidateRow,
    EvaluationRow,
    FitnessRow,
    GenerationRow,
    ParentRow,
    TimingRow,
    finite_or_none,
)
from ruleforge.store import Store
from ruleforge.store.plain import TABLE_OF, from_columns, to_columns, to_json

Batch = dict[str, Any]


def test_rows_come_back_equal(run: Store, batch: Callable[..., Batch]) -> None:
    both = [batch(0), batch(1)]
    assert run.generations() == [each["generation"] for each in both]
    assert run.last_generation() == both[1]["generation"]
    assert run.candidates() == [row for each in both for row in each["candidates"]]
    assert run.evaluations() == [row for each in both for row in each["evaluations"]]
    assert run.fitness() == [row for each in both for row in each["fitness"]]
    assert run.timings() == [row for each in both for row in each["timings"]]
    assert run.counts() == (2, 8, 4)
    assert run.meta["seed"] == 3
    assert run.meta["plan"] == {"chunk": 32}
    assert run.config_text == 'grammar = "full"\n'


def test_an_empty_run_has_no_last_generation(make_run: Callable[..., Store]) -> None:
    with make_run(generations=0) as store:
        assert store.last_generation() is None
        assert store.generations() == []
        assert store.counts() == (0, 0, 0)
        assert store.check() == []


def test_filters(run: Store) -> None:
    assert {row.status for row in run.candidates()} == set(CANDIDATE_STATUSES)
    assert [row.id for row in run.candidates("trained")] == [0, 1, 4, 5]
    assert [row.candidate for row in run.evaluations(candidate=4)] == [4]
    assert run.evaluations(rung=1) == []
    assert len(run.evaluations(workload="digits_mlp")) == 4
    assert [row.value for row in run.fitness(candidate=0, objective="speedup")] == [1.1]
    assert run.candidate_by_key("k5") == run.candidate(5)
    assert run.candidate_by_key("nothing") is None
    assert run.candidate_by_full_key("f5") == run.candidate(5)
    assert run.candidate_by_full_key("k5") is None


def test_an_unknown_candidate_is_named(run: Store) -> None:
    with pytest.raises(StoreError, match="has no candidate 99") as caught:
        run.candidate(99)
    assert "8 candidates" in caught.value.hint


def test_a_key_may_repeat_with_other_hypers_and_the_first_is_found(
    run: Store, batch: Callable[..., Batch]
) -> None:
    again = batch(2)
    again["candidates"][0] = replace(again["candidates"][0], key="k0")
    run.commit_generation(**again)
    found = run.candidate_by_key("k0")
    assert found is not None
    assert found.id == 0


def test_lineage_names_every_ancestor_once(make_run: Callable[..., Store]) -> None:
    with make_run(generations=3) as store:
        line = store.lineage(9)
        assert [(each.id, each.depth, each.parents) for each in line] == [
            (9, 0, (4, 5)),
            (4, 1, (0, 1)),
            (5, 1, (0, 1)),
            (0, 2, ()),
            (1, 2, ()),
        ]
        assert [each.origin for each in line] == ["crossover"] * 3 + ["seed:adam"] * 2
        assert store.parents(0) == ()
        with pytest.raises(StoreError, match="no candidate 77"):
            store.lineage(77)


# Transactions


class Stop(Exception):
    """Raised in the middle of a commit on purpose."""


@pytest.mark.parametrize("where", ["candidates", "parents", "evaluations", "fitness", "timings"])
def test_a_generation_is_stored_wholly_or_not_at_all(
    run: Store, batch: Callable[..., Batch], where: str
) -> None:
    before, timings = run.dump(), run.timings()
    broken = batch(2)
    rows = broken[where]

    def stops_in_the_middle():  # type: ignore[no-untyped-def]
        yield rows[0]
        raise Stop

    with pytest.raises(Stop):
        run.commit_generation(**{**broken, where: stops_in_the_middle()})
    assert run.dump() == before
    assert run.timings() == timings
    run.commit_generation(**broken)
    assert run.dump() != before
    assert run.last_generation() == broken["generation"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.update(generation=replace(b["generation"], n=5)), "the next one is 2"),
        (lambda b: b.update(generation=replace(b["generation"], n=1)), "the next one is 2"),
        (lambda b: b.update(generation=replace(b["generation"], population=(8, 999))), "candidate 999"),
        (lambda b: b["candidates"].append(replace(b["candidates"][0], id=50)), "UNIQUE.*full_key"),
        (lambda b: b["candidates"].append(replace(b["candidates"][0], full_key="x")), "UNIQUE.*id"),
        (
            lambda b: b["candidates"].append(replace(b["candidates"][0], id=50, full_key="x", generation=9)),
            "FOREIGN",
        ),
        (
            lambda b: b["candidates"].append(replace(b["candidates"][2], id=50, full_key="x", same_as=None)),
            "CHECK",
        ),
        (
            lambda b: b["candidates"].append(replace(b["candidates"][0], id=50, full_key="x", status="odd")),
            "CHECK",
        ),
        (lambda b: b["parents"].append(ParentRow(8, 9, 7)), "CHECK.*parent < child"),
        (lambda b: b["parents"].append(ParentRow(999, 0, 0)), "FOREIGN"),
        (lambda b: b["evaluations"].append(b["evaluations"][0]), "UNIQUE"),
        (lambda b: b["evaluations"].append(replace(b["evaluations"][0], rung=1, n_diverged=4)), "CHECK"),
        (lambda b: b["evaluations"].append(replace(b["evaluations"][0], candidate=999)), "FOREIGN"),
        (lambda b: b["fitness"].append(replace(b["fitness"][0], rung=None)), "NOT NULL"),
        (lambda b: b["fitness"].append(b["parents"][0]), "expected FitnessRow"),
    ],
)
def test_rows_that_break_a_law_are_refused_whole(
    run: Store, batch: Callable[..., Batch], change: Callable[[Batch], None], message: str
) -> None:
    before = run.dump()
    broken = batch(2)
    change(broken)
    with pytest.raises(StoreError, match=message):
        run.commit_generation(**broken)
    assert run.dump() == before
    assert run.check() == []


@pytest.mark.parametrize("table", ["meta", "generations", "candidates", "parents", "evaluations", "fitness"])
def test_what_was_measured_is_append_only(run: Store, table: str) -> None:
    run.close()
    with sqlite3.connect(run.path / "run.db") as database:
        column = database.execute(f"SELECT * FROM {table}").description[0][0]
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)
    database.close()


def test_every_record_has_a_table_with_its_fields(run: Store) -> None:
    run.close()
    database = sqlite3.connect(run.path / "run.db")
    for record, table in TABLE_OF.items():
        columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        assert columns == {each.name for each in fields(record)}, table
        strict = database.execute("SELECT strict FROM pragma_table_list WHERE name = ?", (table,)).fetchone()
        assert strict == (1,), table
    database.close()


def test_a_later_rung_of_an_earlier_candidate_can_be_added(run: Store) -> None:
    row = replace(run.evaluations(candidate=0)[0], rung=2)
    last = run.last_generation()
    assert last is not None
    run.commit_generation(replace(last, n=2), evaluations=[row], fitness=[FitnessRow(0, 2, "speedup", 1.0)])
    assert run.evaluations(candidate=0, rung=2) == [row]


# Numbers


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_floats_round_trip_exactly(numbers: list[float]) -> None:
    row = EvaluationRow(0, 0, "w", 1, 1, 0, losses=tuple(numbers), curve=tuple(enumerate(numbers)))
    back = from_columns(EvaluationRow, to_columns(row))
    assert back == row
    assert [math.copysign(1, each) for each in back.losses] == [math.copysign(1, each) for each in numbers]


@given(st.integers())
def test_generator_states_round_trip_exactly(state: int) -> None:
    row = GenerationRow(0, (1, 2), rng={"state": state}, strategy=[state, str(state)])
    assert from_columns(GenerationRow, to_columns(row)) == row


def test_a_real_generator_goes_on_where_it_stopped(make_run: Callable[..., Store]) -> None:
    rng = np.random.default_rng(5)
    rng.random(7)
    with make_run(generations=0) as store:
        store.commit_generation(GenerationRow(0, (), rng=rng.bit_generator.state, strategy={}))
        last = store.last_generation()
    assert last is not None
    again = np.random.default_rng()
    again.bit_generator.state = last.rng
    assert (again.random(5) == rng.random(5)).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null(run: Store, bad: float) -> None:
    last = run.last_generation()
    assert last is not None
    run.commit_generation(
        replace(last, n=2, funnel={"rate": bad}),
        evaluations=[
            EvaluationRow(0, 1, "w", 9, 2, 2, 3, bad, None, bad, bad, {"a": bad}, (bad, 1.0), ((0, bad),))
        ],
        fitness=[FitnessRow(0, 1, "speedup", bad)],
    )
    run.put_result("table", {"ci": [bad, 1.0]})
    assert run.evaluations(rung=1) == [
        EvaluationRow(0, 1, "w", 9, 2, 2, 3, None, None, None, None, {"a": None}, (None, 1.0), ((0, None),))
    ]
    assert run.fitness(rung=1) == [FitnessRow(0, 1, "speedup", None)]
    assert run.results() == {"table": {"ci": [None, 1.0]}}
    assert run.generations()[2].funnel == {"rate": None}
    assert finite_or_none(bad) is None
    text = run.dump()
    assert "NaN" not in text
    assert "Infinity" not in text


@pytest.mark.parametrize("part", ["rng", "strategy"])
def test_what_resume_needs_is_never_changed_in_silence(run: Store, part: str) -> None:
    last = run.last_generation()
    assert last is not None
    before = run.dump()
    with pytest.raises(StoreError, match=rf"GenerationRow\.{part}\.crowding\[1\]: inf"):
        run.commit_generation(replace(last, n=2, **{part: {"crowding": [1.0, math.inf]}}))
    assert run.dump() == before


def test_numpy_numbers_are_numbers(run: Store, batch: Callable[..., Batch]) -> None:
    given_rows, plain = batch(2), batch(2)
    for row in (given_rows, plain):
        row["fitness"] = [FitnessRow(8, 0, "speedup", 0.5)]
    given_rows["fitness"] = [FitnessRow(np.int64(8), np.int32(0), "speedup", np.float32(0.5))]  # type: ignore[arg-type]
    given_rows["generation"] = replace(plain["generation"], population=tuple(np.array([8, 9])))
    run.commit_generation(**given_rows)
    assert run.fitness(candidate=8) == plain["fitness"]
    assert run.last_generation() == plain["generation"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {1: 2}}, r"x\.a: key 1 is not text"),
        ([np.zeros(2)], r"x\[0\]: ndarray is not plain"),
        (b"bytes", "bytes is not plain"),
        ({"f": print}, r"x\.f: builtin_function_or_method"),
    ],
)
def test_what_json_cannot_spell_is_refused_with_its_path(value: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        to_json(value, what="x", exact=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (FitnessRow("0", 0, "a", 1.0), "FitnessRow.candidate: '0' is not an integer"),  # type: ignore[arg-type]
        (FitnessRow(0, 0, "a", "1.0"), "FitnessRow.value: '1.0' is not a number"),  # type: ignore[arg-type]
        (FitnessRow(0, 0, 3, 1.0), "FitnessRow.objective: 3 is not text"),  # type: ignore[arg-type]
        (TimingRow(0.5, "a", 1.0), "TimingRow.generation: 0.5 is not an integer"),  # type: ignore[arg-type]
    ],
)
def test_a_field_of_the_wrong_type_is_named(row: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        to_columns(row)


# Dumps and results


def test_equal_runs_have_equal_dumps(make_run: Callable[..., Store], batch: Callable[..., Batch]) -> None:
    one, two = make_run("one", 3), make_run("two", 2)
    third = batch(2)
    for name in ("candidates", "parents", "evaluations", "fitness"):
        third[name] = third[name][::-1]
    third["timings"] = [TimingRow(2, "train", 99.0)]
    two.commit_generation(**third)
    assert one.dump() == two.dump()
    assert one.timings() != two.timings()


@pytest.mark.parametrize("name", ["candidates", "parents", "evaluations", "fitness"])
def test_a_dump_shows_every_difference(
    make_run: Callable[..., Store], batch: Callable[..., Batch], name: str
) -> None:
    one, two = make_run("one", 3), make_run("two", 2)
    changed = batch(2)
    if name == "candidates":
        changed[name][-1] = replace(changed[name][-1], text="update = w\n")
    else:
        changed[name] = changed[name][:-1]
    two.commit_generation(**changed)
    assert one.dump() != two.dump()


def test_a_dump_shows_the_last_bit(make_run: Callable[..., Store], batch: Callable[..., Batch]) -> None:
    one, two = make_run("one", 0), make_run("two", 0)
    other = batch(0)
    loss = other["evaluations"][0].final_loss
    other["evaluations"][0] = replace(other["evaluations"][0], final_loss=math.nextafter(loss, 1))
    one.commit_generation(**batch(0))
    two.commit_generation(**other)
    assert one.dump() != two.dump()


def test_a_dump_leaves_out_times_and_no_more(run: Store) -> None:
    text = run.dump()
    assert "created_at" not in text
    assert '"seed"' in text
    headers = [line[3:] for line in text.splitlines() if line.startswith("== ")]
    assert sorted(headers) == sorted({*TABLE_OF.values(), "meta", "results"} - {"timings"})
    for line in text.splitlines():
        if not line.startswith("== "):
            json.loads(line)


def test_results_can_be_replaced(run: Store) -> None:
    assert run.results() == {}
    run.put_result("champion", {"id": 1})
    run.put_result("champion", {"id": 4, "speedup": {"vs_adam": 1.25}})
    run.put_result("baselines", [])
    assert run.results() == {"baselines": [], "champion": {"id": 4, "speedup": {"vs_adam": 1.25}}}


def test_timings_can_follow_the_last_generation(run: Store) -> None:
    run.add_timings([TimingRow(1, "validate", 2.5)])
    assert run.timings()[-1] == TimingRow(1, "validate", 2.5)


def test_champion_and_log_are_files(run: Store) -> None:
    run.put_champion("update = g\n")
    run.put_champion("update = sign(g)\n")
    run.log("generation 1 ended\n")
    run.log("done")
    assert (run.path / "champion.rule").read_text() == "update = sign(g)\n"
    lines = (run.path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["generation 1 ended", "done"]
    assert not [each for each in run.path.iterdir() if each.suffix == ".tmp"]


def test_check_finds_a_gap_and_a_loose_end(run: Store) -> None:
    assert run.check() == []
    run.close()
    database = sqlite3.connect(run.path / "run.db")
    trigger = database.execute("SELECT sql FROM sqlite_schema WHERE name = 'generations_fixed_d'").fetchone()
    database.execute("DROP TRIGGER generations_fixed_d")
    database.execute("DELETE FROM generations WHERE n = 0")
    database.execute(*trigger)
    database.commit()
    database.close()
    with Store.open(run.path, readonly=True) as damaged:
        problems = damaged.check()
    assert any("gaps: [1]" in each for each in problems)
    assert any("candidates row" in each for each in problems)


def test_no_record_is_left_without_a_table() -> None:
    assert {CandidateRow, ParentRow, EvaluationRow, FitnessRow, GenerationRow, TimingRow} == set(TABLE_OF)


def test_the_folder_holds_text_and_one_database(run: Store, tmp_path: Path) -> None:
    run.close()
    assert sorted(each.name for each in run.path.iterdir()) == ["config.toml", "run.db", "run.lock"]
    assert [each.name for each in tmp_path.iterdir()] == ["run"]
