"""Compiled gradients are the task's gradients, up to rounding, and lanes stay apart in them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx
from torch.fx.passes.shape_prop import ShapeProp

from ruleforge.errors import RunError
from ruleforge.evaluate import graphs, kept_graphs, prepare
from ruleforge.evaluate.gradients import (
    CompiledPlane,
    GradientPlane,
    OneByOnePlane,
    flatten,
    layout_of,
    names_on_disk,
    refusal,
)
from ruleforge.evaluate.lanes import ChunkJob, LaneSpec, Plan, RuleLanes
from ruleforge.evaluate.prepare import compilable, compile_gradients
from ruleforge.evaluate.threads import training_thread
from ruleforge.evaluate.train import by_step, gradient_plane, graph_identity, train_chunk
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import WORKLOADS, Task, Workload

LANES = 6
QUICK = "breast_cancer"  # the one that compiles fastest
ADAM = "update = ema_hat(g, 0.9) / (sqrt(ema_hat(g * g, 0.999)) + 1e-8)\n"
EXPLODES = "update = exp(exp(g * 1000)) * g\n"

needs_compiler = pytest.mark.skipif(bool(graphs.why_not()), reason="no C++ compiler")


def some_lanes(workload: Workload, n_lanes: int = LANES) -> tuple[Tensor, tuple[Tensor, ...]]:
    data = workload.data(0, 1)
    noise = torch.randn(n_lanes, workload.n_weights, generator=torch.Generator().manual_seed(1))
    return flatten(data.params) + 0.05 * noise, tuple(column[0] for column in data.batches)


def traced_step(workload: Workload, weights: Tensor, batch: tuple[Tensor, ...], t: int = 1) -> fx.GraphModule:
    plane = GradientPlane(workload.task, layout_of(workload.data(0, 1).params))
    return graphs.trace(lambda w, *b: plane.step(w, b, t), (weights, *batch))


def arranged_step(workload: Workload, weights: Tensor, batch: tuple[Tensor, ...]) -> fx.GraphModule:
    return graphs.arranged(traced_step(workload, weights, batch), (weights, *batch))


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_the_arranged_graph_computes_what_the_task_does_at_any_step(name: str) -> None:
    """So every built-in workload can be compiled, and `compilable` need not look."""
    workload = WORKLOADS[name]
    weights, batch = some_lanes(workload)
    first, later = (traced_step(workload, weights, batch, t) for t in (1, 2))
    assert graphs.is_same(first, later)
    losses, grads = graphs.arranged(first, (weights, *batch))(weights, *batch)
    plane = GradientPlane(workload.task, layout_of(workload.data(0, 1).params))
    expected_losses, expected = plane.step(weights, batch, 1)
    assert torch.allclose(losses, expected_losses, rtol=1e-5)
    assert torch.allclose(grads, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def equal_lanes_agree(plane: GradientPlane, workload: Workload) -> bool:
    """Whether lanes with the same weights have the same losses and gradients, bit for bit."""
    weights, batch = some_lanes(workload, 1)
    columns = plane.prepared(tuple(column[None] for column in batch))
    found = plane.step(weights.repeat(LANES, 1), by_step(columns, 1)[0], 1)
    return all(torch.equal(value, value[:1].expand_as(value)) for value in found)


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_the_place_of_a_lane_changes_no_bit(name: str) -> None:
    with training_thread():
        assert equal_lanes_agree(gradient_plane(WORKLOADS[name], LANES, False), WORKLOADS[name])


def test_short_rows_are_written_transposed() -> None:
    def shapes(graph: fx.GraphModule) -> list[torch.Size]:
        ShapeProp(graph).propagate(weights, *batch)
        products = graph.graph.find_nodes(op="call_function", target=graphs.aten.bmm.default)
        return [node.meta["tensor_meta"].shape for node in products]

    weights, batch = some_lanes(WORKLOADS["digits_mlp"])
    before = shapes(traced_step(WORKLOADS["digits_mlp"], weights, batch))
    after = shapes(arranged_step(WORKLOADS["digits_mlp"], weights, batch))
    assert (LANES, 32, 10) in before and (LANES, 10, 32) in after
    assert len(before) == len(after)
    assert all(columns >= min(rows, graphs.SHORT) for _, rows, columns in after)


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_what_needs_no_lanes_is_computed_apart_and_changes_nothing(name: str) -> None:
    weights, batch = some_lanes(WORKLOADS[name])
    whole = arranged_step(WORKLOADS[name], weights, batch)
    prologue, rest = graphs.without_lanes(whole)
    for one, two in zip(whole(weights, *batch), rest(weights, *prologue(*batch)), strict=True):
        assert torch.equal(one, two)
    labels = [node for node in rest.graph.nodes if node.target == graphs.aten.arange.default]
    assert not labels, "one-hot labels are the same for all lanes"


def test_one_lane_after_another_is_what_lanes_side_by_side_are() -> None:
    workload = WORKLOADS["digits_mlp"]
    weights, batch = some_lanes(workload)
    layout = layout_of(workload.data(0, 1).params)
    slow, fast = OneByOnePlane(workload.task, layout), GradientPlane(workload.task, layout)
    for one, two in zip(slow.step(weights, batch, 1), fast.step(weights, batch, 1), strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-6)
    for key, value in fast.evaluate(weights).items():
        assert torch.allclose(slow.evaluate(weights)[key], value, rtol=1e-5), key


def test_a_task_that_cannot_run_in_lanes_is_told_with_its_cost_and_never_compiled() -> None:
    said: list[str] = []
    odd = replace(WORKLOADS[QUICK], one_by_one="mine.py, line 3: loss branches")
    prepare.tell_one_by_one([WORKLOADS[QUICK], odd], said.append)
    assert len(said) == 1 and said[0].startswith("mine.py, line 3: loss branches; ")
    assert "slower" in said[0]
    assert compilable([odd], pytest.fail) == ()


@needs_compiler
@pytest.mark.parametrize(
    "name", [QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in WORKLOADS if n != QUICK)]
)
def test_compiled_gradients_and_scores_are_those_of_the_task(name: str) -> None:
    workload = WORKLOADS[name]
    weights, batch = some_lanes(workload)
    with training_thread():
        slow = gradient_plane(workload, LANES, False)
        fast = gradient_plane(workload, LANES, True)
        expected_losses, expected = slow.step(weights, batch, 1)
        columns = fast.prepared(tuple(torch.stack([column.flip(0), column]) for column in batch))
        losses, grads = fast.step(weights, by_step(columns, 2)[1], 1)
        assert torch.allclose(losses, expected_losses, rtol=1e-5)
        assert torch.allclose(grads, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
        assert grads.is_contiguous()
        for key, value in slow.evaluate(weights).items():
            assert torch.allclose(fast.evaluate(weights)[key], value, rtol=1e-5), key
        assert equal_lanes_agree(fast, workload)


def lies_alike(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) and a.stride() == b.stride()


@needs_compiler
@pytest.mark.parametrize(
    "name", [QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in WORKLOADS if n != QUICK)]
)
def test_batches_prepared_at_once_are_those_prepared_one_by_one(name: str) -> None:
    workload = WORKLOADS[name]
    columns = workload.data(0, 5).batches
    with training_thread():
        plane = gradient_plane(workload, LANES, True)
        assert isinstance(plane, CompiledPlane)
        for t, values in enumerate(by_step(plane.prepared(columns), 5)):
            one = plane._step.prepared(tuple(column[t] for column in columns))
            assert all(lies_alike(*pair) for pair in zip(values, one, strict=True))


@needs_compiler
def test_what_is_the_same_for_all_steps_and_lanes_lies_in_memory_once() -> None:
    table = torch.arange(12.0).reshape(4, 3)

    def function(lanes: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        return (((lanes * x)[:, None, :] @ (table * 2).expand(len(lanes), 4, 3)).squeeze(1),)

    lanes, columns = torch.ones(5, 4), (torch.arange(28.0).reshape(7, 4),)
    made = graphs.CompiledFunction(function, lanes, (columns[0][0],))
    shared = made.prepared_at_once(columns)
    assert [value.shape for value in shared] == [(7, 4), (7, 5, 4, 3)]
    assert sum(value.untyped_storage().nbytes() for value in shared) == 4 * (7 * 4 + 4 * 3)
    for step, values in zip(columns[0], by_step(shared, 7), strict=True):
        assert all(lies_alike(*pair) for pair in zip(values, made.prepared((step,)), strict=True))
        assert torch.allclose(made(lanes, values)[0], function(lanes, step)[0])


@needs_compiler
def test_a_loss_may_read_nothing_of_its_batch() -> None:
    made = graphs.CompiledFunction(
        lambda lanes, x: ((lanes * lanes).sum(1),), torch.ones(5, 4), (torch.ones(2),)
    )
    first, second = by_step(made.prepared_at_once((torch.ones(2, 2),)), 2)
    assert first == second == ()
    assert torch.equal(made(torch.ones(5, 4), first)[0], torch.full((5,), 4.0))


@needs_compiler
def test_in_compiled_gradients_too_position_and_neighbours_change_no_bit() -> None:
    workload = WORKLOADS[QUICK]
    plan = Plan(compiled=(QUICK,))
    lanes = (LaneSpec(0.003, "constant"), LaneSpec(0.03, "cosine"))

    def curves(*texts: str) -> np.ndarray:
        rules = tuple(RuleLanes(text, lanes) for text in texts)
        return train_chunk(ChunkJob(workload, 0, 30, rules, plan, LANES)).curves

    alone, last, poisoned = curves(ADAM), curves("update = g\n", ADAM), curves(EXPLODES, ADAM)
    assert np.isnan(poisoned[:2, -1]).all(), "the neighbour must really have diverged"
    assert np.array_equal(alone, last[2:]) and np.array_equal(alone, poisoned[2:])


def keyed_task() -> Task:
    def loss(params: dict[str, Tensor], batch: tuple[Tensor, ...], key: int) -> Tensor:
        return ((params["w"] - batch[0]) ** 2).mean() * (1.0 + 1.0 / key)

    return Task(
        "keyed",
        lambda generator: {"w": torch.randn(3, generator=generator)},
        lambda generator: (torch.randn(3, generator=generator),),
        loss,
        lambda params: {"loss": (params["w"] ** 2).mean()},
    )


def refusal_of(task: Task) -> str:
    params = task.init(torch.Generator().manual_seed(0))
    weights = flatten(params).repeat(2, 1)
    return refusal(task, layout_of(params), weights, task.batch(torch.Generator()))


def test_a_loss_that_reads_the_steps_number_is_not_compiled() -> None:
    assert refusal_of(keyed_task()) == "its loss reads the step's number"


def test_no_builtin_workload_is_refused() -> None:
    assert compilable(list(WORKLOADS.values()), pytest.fail) == tuple(WORKLOADS)


def test_without_a_compiler_gradients_stay_eager_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert compilable([WORKLOADS[QUICK], WORKLOADS["quadratic"]], said.append) == ()
    assert len(said) == 1 and said[0].startswith("no C++ compiler")


def test_a_failing_compiler_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("g++ ran out of patience\nand said more")

    monkeypatch.setattr(prepare, "gradient_plane", fail)
    monkeypatch.setattr(prepare, "is_on_disk", lambda identity: False)
    with pytest.raises(
        RunError, match=r"breast_cancer failed: RuntimeError: g\+\+ ran out of patience\n"
    ) as error:
        compile_gradients([WORKLOADS[QUICK]], Plan(compiled=(QUICK,)), Workers(), pytest.fail)
    assert 'gradient_plane = "eager"' in str(error.value.hint)


def test_what_is_on_disk_is_not_compiled_before_the_clock_starts(
    kept_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int]] = []

    def compiled(workload: Workload, n_lanes: int, is_compiled: bool) -> None:
        made.append((workload.name, n_lanes))
        for name in names_on_disk(graph_identity(workload, n_lanes)):
            for place in kept_graphs.places(name):
                place.touch()

    monkeypatch.setattr(prepare, "gradient_plane", compiled)
    mine = [WORKLOADS[QUICK], WORKLOADS["quadratic"]]
    plan = Plan(chunk_lanes=8, score_lanes=4, compiled=tuple(w.name for w in mine))
    compile_gradients(mine, plan, Workers(), pytest.fail)
    assert made == [(w.name, n) for w in mine for n in (8, 4)]
    next(kept_folder.iterdir()).unlink()
    compile_gradients(mine, plan, Workers(), pytest.fail)
    assert len(made) == 5
