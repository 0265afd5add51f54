"""Every built-in workload keeps the contract: pure, vmappable, seeded by name, and learnable."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from ruleforge.errors import TaskError
from ruleforge.tasks import SUITES, WORKLOADS, Workload, check_task, load_suite, load_workload, shares_data
from ruleforge.tasks.base import Params

ALL = pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)


def digest_of(workload: Workload, seed: int, n_steps: int) -> str:
    import hashlib

    params, batches = workload.data(seed, n_steps)
    digest = hashlib.blake2b(digest_size=8)
    for value in (*params.values(), *batches):
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def stack_lanes(lanes: list[Params]) -> Params:
    return {name: torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}


@ALL
def test_a_workload_passes_the_check_that_user_tasks_must_pass(workload: Workload) -> None:
    assert check_task(workload.task) == workload.n_weights
    assert workload.task.name == workload.name
    assert workload.task.steps == workload.steps
    assert workload.task.sources
    assert workload.task.batch(torch.Generator())[0].shape[0] in (workload.batch_size, 20)  # 20: quadratic's


@ALL
def test_lanes_equal_single_runs(workload: Workload) -> None:
    task = workload.task
    lanes = [workload.data(seed, 1).params for seed in (0, 1)]
    batch = tuple(column[0] for column in workload.data(0, 1).batches)
    step = torch.func.vmap(torch.func.grad_and_value(task.loss), in_dims=(0, None, None))
    grads, losses = step(stack_lanes(lanes), batch, 1)
    values = torch.func.vmap(task.evaluate)(stack_lanes(lanes))
    for i, params in enumerate(lanes):
        single_grads, loss = torch.func.grad_and_value(task.loss)(params, batch, 1)
        torch.testing.assert_close(losses[i], loss, rtol=1e-5, atol=1e-5)
        for name, grad in single_grads.items():
            torch.testing.assert_close(grads[name][i], grad, rtol=1e-4, atol=1e-5)
        for name, value in task.evaluate(params).items():
            torch.testing.assert_close(values[name][i], value, rtol=1e-5, atol=1e-5)


@ALL
def test_data_is_a_function_of_name_and_seed(workload: Workload) -> None:
    params, batches = workload.data(3, 4)
    again_params, again_batches = workload.data(3, 4)
    assert all(torch.equal(params[name], again_params[name]) for name in params)
    assert all(torch.equal(a, b) for a, b in zip(batches, again_batches, strict=True))
    longer = workload.data(3, 7).batches
    assert all(torch.equal(a, b[:4]) for a, b in zip(batches, longer, strict=True))
    assert not torch.equal(batches[0][0], batches[0][1])

    other_params, other_batches = workload.data(4, 4)
    assert not all(torch.equal(params[name], other_params[name]) for name in params)
    assert not torch.equal(batches[0], other_batches[0])
    assert all(value.dtype == torch.float32 for value in params.values())
    assert all(column.shape[0] == 4 for column in batches)


def test_data_does_not_depend_on_the_global_generator_or_the_process() -> None:
    torch.manual_seed(1)
    here = digest_of(WORKLOADS["attention_recall"], 5, 3)
    torch.manual_seed(2)
    assert digest_of(WORKLOADS["attention_recall"], 5, 3) == here
    code = (
        "import hashlib, torch; torch.set_num_threads(1)\n"
        "from ruleforge.tasks import load_workload\n"
        "params, batches = load_workload('attention_recall').data(5, 3)\n"
        "digest = hashlib.blake2b(digest_size=8)\n"
        "for value in (*params.values(), *batches): digest.update(value.numpy().tobytes())\n"
        "print(digest.hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == here


def train(workload: Workload, lrs: torch.Tensor, n_steps: int, *, adam: bool) -> torch.Tensor:
    """Validation loss before and after `n_steps` of hand-written Adam or SGD, (2, L)."""
    params, batches = workload.data(0, n_steps)
    w = stack_lanes([params] * len(lrs))
    m = {name: torch.zeros_like(value) for name, value in w.items()}
    v = {name: torch.zeros_like(value) for name, value in w.items()}
    step = torch.func.vmap(torch.func.grad_and_value(workload.task.loss), in_dims=(0, None, None))
    evaluate = torch.func.vmap(workload.task.evaluate)
    before = evaluate(w)["loss"]
    for t in range(1, n_steps + 1):
        grads, _ = step(w, tuple(column[t - 1] for column in batches), t)
        for name, g in grads.items():
            lr = lrs.view(-1, *[1] * (g.ndim - 1))
            if adam:
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.999 * v[name] + 0.001 * g * g
                g = (m[name] / (1 - 0.9**t)) / ((v[name] / (1 - 0.999**t)).sqrt() + 1e-8)
            w[name] = w[name] - lr * g
    return torch.stack([before, evaluate(w)["loss"]])


@ALL
def test_adam_and_sgd_learn(workload: Workload) -> None:
    n_steps = min(workload.steps, 80)
    for adam, lrs in ((True, [1e-3, 5e-3, 0.02, 0.1]), (False, [0.01, 0.1, 0.3, 1.0, 3.0, 10.0])):
        before, after = train(workload, torch.tensor(lrs), n_steps, adam=adam)
        after = torch.nan_to_num(after, nan=torch.inf)
        assert torch.isfinite(after).any()
        best = int(after.argmin())
        least = 0.85 if adam else 0.95
        assert after[best] < least * before[best], (adam, before.tolist(), after.tolist())


def test_suites_hold_known_workloads_once() -> None:
    named = list(itertools.chain.from_iterable(SUITES.values()))
    assert sorted(named) == sorted(WORKLOADS)
    assert set(SUITES) == {"search", "validation", "held_out"}
    assert (len(SUITES["search"]), len(SUITES["validation"])) >= (6, 6)
    assert len(SUITES["held_out"]) >= 12
    for suite, names in SUITES.items():
        assert [workload.name for workload in load_suite(suite)] == list(names)


def broken_separation(workloads: list[Workload]) -> list[tuple[str, str]]:
    """Pairs of different suites that share data rows or an architecture."""
    return [
        (a.name, b.name)
        for a, b in itertools.combinations(workloads, 2)
        if a.suite != b.suite and (shares_data(a.data_id, b.data_id) or a.architecture == b.architecture)
    ]


def test_suites_share_neither_data_nor_architecture() -> None:
    assert broken_separation(list(WORKLOADS.values())) == []


def test_the_separation_guard_sees_a_leak() -> None:
    import dataclasses

    leaks = dataclasses.replace(WORKLOADS["digits_conv"], data_id="digits[1100:1797]")
    twin = dataclasses.replace(WORKLOADS["wine_layernorm"], architecture="ReLU MLP, 1 hidden layer")
    assert broken_separation([WORKLOADS["digits_mlp"], leaks]) == [("digits_mlp", "digits_conv")]
    assert broken_separation([WORKLOADS["digits_mlp"], twin]) == [("digits_mlp", "wine_layernorm")]


@pytest.mark.parametrize("name", ["digits_mlp", "digits_conv"])
def test_a_digits_task_takes_the_rows_that_its_data_id_states(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ruleforge.tasks import digits

    taken: list[str] = []
    rows_of = digits._rows

    def rows(low: int, high: int, n_valid: int) -> digits.Rows:
        taken.append(f"digits[{low}:{high}]")
        return rows_of(low, high, n_valid)

    monkeypatch.setattr(digits, "_rows", rows)
    getattr(digits, name)()
    assert taken == [WORKLOADS[name].data_id]


def test_stated_digit_rows_are_the_rows_used() -> None:
    from sklearn.datasets import load_digits

    from ruleforge.tasks.digits import _rows

    data = load_digits()
    pixels, labels = torch.tensor(data.data).float(), torch.tensor(data.target)
    for low, high, n_valid in ((0, 1200, 200), (1200, 1797, 160)):
        rows = _rows(low, high, n_valid)
        # The pixels were shifted and scaled alike, so distances between rows are known up to a factor.
        scale = rows.x.var(0).sum().sqrt() / 8  # 1 up to n / (n - 1): one scale for all 64 pixels
        assert abs(float(scale) - 1) < 0.01
        found = torch.cat([rows.x, rows.x_valid]).sort(0).values
        expected = pixels[low:high].sort(0).values
        spread = (expected[-1] - expected[0]).max() / (found[-1] - found[0]).max()
        torch.testing.assert_close((found - found[0]) * spread, expected - expected[0], rtol=0, atol=1e-3)
        assert torch.equal(torch.cat([rows.y, rows.y_valid]).bincount(), labels[low:high].bincount())
        assert rows.x_valid.shape[0] == n_valid


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("x[0:5]", "x[5:9]", False),
        ("x[0:6]", "x[5:9]", True),
        ("x[5:9]", "x[0:6]", True),
        ("x", "x[5:9]", True),
        ("x", "x", True),
        ("x", "y", False),
        ("x[0:9]", "y[0:9]", False),
    ],
)
def test_shares_data(a: str, b: str, expected: bool) -> None:
    assert shares_data(a, b) is expected


def test_shares_data_refuses_what_it_cannot_read() -> None:
    with pytest.raises(TaskError, match="no data id"):
        shares_data("x[3]", "x")


def test_source_hash_changes_with_what_decides_the_numbers() -> None:
    digits, conv = WORKLOADS["digits_mlp"], WORKLOADS["digits_conv"]
    known = digits.source_hash()
    assert known == load_workload("digits_mlp").source_hash()
    assert len({known, conv.source_hash(), *(digits.resized(**to).source_hash() for to in
                ({"batch_size": 16}, {"steps": 10}))}) == 4  # fmt: skip


def test_resized_changes_the_batches() -> None:
    workload = load_workload("digits_mlp", batch_size=8, steps=10)
    assert (workload.batch_size, workload.steps) == (8, 10)
    assert workload.data(0, 2).batches[0].shape == (2, 8, 64)
    assert WORKLOADS["digits_mlp"].data(0, 2).batches[0].shape == (2, 32, 64)
    with pytest.raises(TaskError, match="batch_size is 0"):
        load_workload("digits_mlp", batch_size=0)
    with pytest.raises(TaskError, match="steps is -1"):
        load_workload("digits_mlp", steps=-1)
    with pytest.raises(TaskError, match="0 steps asked for"):
        WORKLOADS["digits_mlp"].data(0, 0)


def test_a_built_workload_can_be_copied_to_another_process() -> None:
    import pickle

    workload = load_workload("breast_cancer")
    assert workload.task.name == "breast_cancer"
    copy = pickle.loads(pickle.dumps(workload))
    assert copy == workload
    assert torch.equal(copy.data(0, 1).batches[0], workload.data(0, 1).batches[0])


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(TaskError) as caught:
        load_workload("digit_mlp")
    assert "digits_mlp" in caught.value.hint
    with pytest.raises(TaskError, match="no suite 'test'"):
        load_suite("test")


def test_listing_workloads_imports_no_torch() -> None:
    code = (
        "import sys; from ruleforge.tasks import WORKLOADS\n"
        "rows = [workload.describe() for workload in WORKLOADS.values()]\n"
        "assert all(row['stresses'] and row['n_weights'] for row in rows)\n"
        "print(*[name for name in ('torch', 'sklearn', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []


def test_knobs_do_what_they_say() -> None:
    from ruleforge.tasks.synthetic import matrix_factorization, noisy_labels, teacher_student

    generator = torch.Generator().manual_seed(0)
    plain = torch.cat([teacher_student(condition=1.0).batch(generator)[0] for _ in range(60)])
    skewed = torch.cat([teacher_student(condition=30.0).batch(generator)[0] for _ in range(60)])

    def condition(x: torch.Tensor) -> float:
        singular = torch.linalg.svdvals(x)
        return float(singular[0] / singular[-1])

    assert condition(plain) < 2
    assert condition(skewed) > 20

    def counts(imbalance: float) -> torch.Tensor:
        task = noisy_labels(batch_size=2000, imbalance=imbalance, label_noise=0.0)
        return torch.bincount(task.batch(generator)[1], minlength=6)

    assert counts(1.0).max() < 1.4 * counts(1.0).min()
    assert counts(10.0).max() > 5 * counts(10.0).min()

    task = matrix_factorization(batch_size=8)
    params = task.init(generator)
    grads = torch.func.grad(task.loss)(params, task.batch(generator), 1)
    untouched = (grads["users"] == 0).all(1).sum()
    assert untouched >= 32
