"""A user's own task: the template runs as it is, and each way to be wrong gets one clear message."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ruleforge.errors import TaskError
from ruleforge.evaluate.gradients import eager_plane, flatten, layout_of
from ruleforge.tasks import TEMPLATE, load_workload

HEAD = """\
import torch
from torch import nn
from ruleforge.tasks import Task

X, Y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2

def make(loss=None, init=None, batch=None, evaluate=None, steps=50):
    plain = lambda p, b, key: (b[0] @ p["w"]).square().mean()
    return Task(
        "mine",
        init or (lambda generator: {"w": torch.randn(3, generator=generator)}),
        batch or (lambda generator: (X[torch.randperm(40, generator=generator)[:8]],)),
        loss or plain,
        evaluate or (lambda p: {"loss": plain(p, (X,), 0)}),
        steps,
    )

def wrap(*layers, loss_fn=nn.functional.cross_entropy, data=(X, Y), **options):
    return Task.from_module(lambda: nn.Sequential(*layers), loss_fn, data, data, **options)

def wrap_new(build, loss_fn=nn.functional.cross_entropy, data=(X, Y), **options):
    return Task.from_module(build, loss_fn, data, data, **options)

class Odd(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.layer = nn.Linear(3, 2)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        h = self.layer(x)
        return self.how(self, h)

"""
N_HEAD = HEAD.count("\n")


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(HEAD + text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> TaskError:
    write(folder, text)
    with pytest.raises(TaskError) as caught:
        load_workload("mine.py:factory", folder)
    return caught.value


def factory(body: str) -> str:
    return f"def factory():\n    return {body}\n"


def test_the_template_loads_and_trains(tmp_path: Path) -> None:
    (tmp_path / "my_task.py").write_text(TEMPLATE, encoding="utf-8")
    workload = load_workload("my_task.py:factory", base=tmp_path)
    assert (workload.suite, workload.steps, workload.batch_size) == ("user", 100, 32)
    assert workload.n_weights == 4 * 32 + 32 + 32 * 3 + 3
    assert workload.stresses == "Iris: three kinds of flowers from four lengths."

    params, batches = workload.data(0, 60)
    assert batches[0].shape == (60, 32, 4)
    lanes = {name: torch.stack([value, value]) for name, value in params.items()}
    step = torch.func.vmap(torch.func.grad_and_value(workload.task.loss), in_dims=(0, None, None))
    before = workload.task.evaluate(params)
    for t in range(60):
        grads, _ = step(lanes, tuple(column[t] for column in batches), t + 1)
        lanes = {name: value - 0.5 * grads[name] for name, value in lanes.items()}
    after = torch.func.vmap(workload.task.evaluate)(lanes)
    assert (after["loss"] < 0.4 * before["loss"]).all()
    assert (after["accuracy"] > 0.85).all()

    smaller = load_workload("my_task.py:factory", base=tmp_path, batch_size=8, steps=20)
    assert smaller.data(0, 2).batches[0].shape == (2, 8, 4)
    assert not list(tmp_path.glob("__pycache__"))


def test_the_template_is_styled(tmp_path: Path) -> None:
    import shutil
    import subprocess
    import sys

    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    path = tmp_path / "my_task.py"
    path.write_text(TEMPLATE, encoding="utf-8")
    for command in (["check", "--isolated", "--line-length=110"], ["format", "--isolated", "--check",
                    "--line-length=110"]):  # fmt: skip
        done = subprocess.run([ruff, *command, str(path)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_is_read_again_after_a_change(tmp_path: Path) -> None:
    write(tmp_path, factory("make(steps=50)"))
    assert load_workload("mine.py:factory", tmp_path).steps == 50
    hash_before = load_workload("mine.py:factory", tmp_path).source_hash()
    write(tmp_path, factory("make(steps=51)"))
    assert load_workload("mine.py:factory", tmp_path).steps == 51
    assert load_workload("mine.py:factory", tmp_path).source_hash() != hash_before


def test_neighbours_and_packages_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_package_of_tasks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    write(package, factory("make()"), "things.py")
    (tmp_path / "beside.py").write_text("from my_package_of_tasks.things import factory\n")
    by_package = load_workload("my_package_of_tasks.things:factory", tmp_path)
    by_file = load_workload("beside.py:factory", tmp_path)
    assert by_package.n_weights == by_file.n_weights == 3
    assert len(by_package.source_hash()) == 32

    monkeypatch.chdir(tmp_path)
    assert load_workload("./beside.py:factory").name == "./beside.py:factory"


def test_buffers_and_frozen_parameters_stay_out_of_the_lanes(tmp_path: Path) -> None:
    text = """
def build():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2))
    module[0].weight.requires_grad_(False)
    return module

def factory():
    return wrap_new(build)
"""
    write(tmp_path, text)
    workload = load_workload("mine.py:factory", tmp_path)
    assert "0.weight" not in workload.data(0, 1).params
    assert workload.n_weights == 4 + 8 + 10


def test_seeds_give_a_module_other_weights_and_leave_torch_alone(tmp_path: Path) -> None:
    write(tmp_path, factory("wrap_new(lambda: nn.Linear(3, 2))"))
    workload = load_workload("mine.py:factory", tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = workload.data(0, 1).params["weight"], workload.data(1, 1).params["weight"]
    assert torch.equal(torch.rand(1), expected)
    assert not torch.equal(first, second)
    assert torch.equal(first, workload.data(0, 1).params["weight"])


def test_data_drawn_from_global_generators_is_the_same_in_every_worker(tmp_path: Path) -> None:
    text = """
import random
import numpy as np

ROWS = torch.rand(40, 1) + torch.tensor(np.random.rand(40, 1)).float() + random.random()

def factory():
    return wrap_new(lambda: nn.Linear(2, 2), data=(torch.cat([ROWS, torch.randn(40, 1)], 1), Y))
"""
    write(tmp_path, text)
    torch.manual_seed(1)
    first = load_workload("mine.py:factory", tmp_path).data(0, 1).batches[0]
    torch.manual_seed(2)
    again = load_workload("mine.py:factory", tmp_path).data(0, 1).batches[0]
    assert torch.equal(first, again)


# (what the file says after HEAD, words of the message, words of the remedy)
BAD = {
    "raises": ("def factory():\n    raise ValueError('no data here')\n", "no data here", "traceback"),
    "exits": ("raise SystemExit(3)\n", "SystemExit", "traceback"),
    "syntax": ("def factory(:\n", "SyntaxError", "traceback"),
    "missing import": ("import nothing_of_that_name\n", "nothing_of_that_name", "traceback"),
    "no factory": ("def other():\n    return 1\n", "no factory 'factory'", "other"),
    "not a task": (factory("42"), "returned int, expected a ruleforge.tasks.Task", "return Task"),
    "takes arguments": ("def factory(n):\n    return make()\n", "missing 1 required", "traceback"),
    "steps": (factory("make(steps=0)"), "steps is 0", "at least 1"),
    "init raises": (factory("make(init=lambda g: 1 / 0)"), "init raised ZeroDivisionError", "on its own"),
    "init list": (factory("make(init=lambda g: [1])"), "init returned a list", "dict"),
    "init empty": (factory("make(init=lambda g: {})"), "init returned an empty dict", "dict"),
    "init float64": (factory("make(init=lambda g: {'w': torch.ones(3).double()})"), "float64", r"\.float"),
    "init nan": (factory("make(init=lambda g: {'w': torch.ones(3) / 0})"), "non-finite", "draw every"),
    "init global": (factory("make(init=lambda g: {'w': torch.randn(3)})"), "other weights", "Generator"),
    "batch raises": (factory("make(batch=lambda g: X[99])"), "batch raised IndexError", "on its own"),
    "batch tensor": (factory("make(batch=lambda g: X)"), "batch returned a Tensor", r"\(x,\)"),
    "batch ragged": (
        factory("make(batch=lambda g: (X[:1 + int(torch.rand(1, generator=g) * 30)],))"),
        "batches differ in shape",
        "same number of rows",
    ),
    "batch nan": (
        factory("make(batch=lambda g: (torch.full((8, 3), float('nan')),))"),
        "a batch holds nan",
        "missing values",
    ),
    "batch global": (factory("make(batch=lambda g: (torch.randn(8, 3),))"), "other rows", "Generator"),
    "loss raises": (
        factory("make(loss=lambda p, b, key: p['v'].sum())"),
        "loss raised KeyError",
        "on its own",
    ),
    "loss vector": (factory("make(loss=lambda p, b, key: b[0] @ p['w'])"), r"shape \(8,\)", r"\.mean\(\)"),
    "loss number": (factory("make(loss=lambda p, b, key: 1.0)"), "loss returned 1.0", "scalar|mean"),
    "loss nan": (
        factory("make(loss=lambda p, b, key: (-p['w'].square().sum()).log())"),
        "loss is nan at the initial weights",
        "guard log",
    ),
    "loss constant": (
        factory("make(loss=lambda p, b, key: (b[0] @ p['w'].detach()).mean())"),
        "zero in every weight|no gradient",
        "params",
    ),
    "gradient": (
        factory("make(loss=lambda p, b, key: (p['w'] - p['w'].detach()).norm() + (p['w'] * 0).sqrt().sum())"),
        "non-finite gradient at the initial weights, in 'w'",
        "sqrt",
    ),
    "random": (
        factory("make(loss=lambda p, b, key: (p['w'] * torch.rand(3)).square().sum())"),
        "another value|draws random",
        "pure|noise part",
    ),
    "mixes lanes": (
        factory(
            "make(loss=lambda p, b, key: (b[0] @ p['w']).square().mean() * (1 + len(calls) / 9 + "
            "(calls.append(0) or 0)))\ncalls = []"
        ),
        "another value",
        "pure",
    ),
    "evaluate keys": (
        factory("make(evaluate=lambda p: {'accuracy': p['w'].sum()})"),
        "evaluate returned",
        "loss",
    ),
    "evaluate vector": (factory("make(evaluate=lambda p: {'loss': p['w']})"), r"shape \(3,\)", "mean"),
    "evaluate nan": (
        factory("make(evaluate=lambda p: {'loss': p['w'].sum() / 0})"),
        "validation loss",
        "missing",
    ),
    "batch norm": (
        factory("wrap_new(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))"),
        r"layer '1' \(BatchNorm1d\) updates running batch statistics",
        "GroupNorm.*track_running_stats=False",
    ),
    "dropout": (
        factory("wrap_new(lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.3)))"),
        r"layer '1' \(Dropout\) drops values at random",
        "set its probability to 0",
    ),
    "functional dropout": (
        factory("wrap_new(lambda: Odd(lambda self, h: nn.functional.dropout(h, 0.5)))"),
        "draws random numbers|another value",
        "dropout|pure",
    ),
    "rrelu": (factory("wrap_new(lambda: nn.Sequential(nn.Linear(3, 2), nn.RReLU()))"), "RReLU", "LeakyReLU"),
    "lstm": (factory("wrap_new(lambda: nn.LSTM(3, 2))"), r"the module \(LSTM\) has no rule", "loop over"),
    "lazy": (factory("wrap_new(lambda: nn.LazyLinear(2))"), "has no size yet", "given sizes"),
    "frozen": (
        factory("wrap_new(lambda: nn.Linear(3, 2).requires_grad_(False))"),
        "no trainable",
        "requires_grad",
    ),
    "module branch": (
        factory("wrap_new(lambda: Odd(lambda self, h: h if h.sum() > 0 else -h))"),
        "branches on the value of a tensor",
        "torch.where",
    ),
    "buffer": (
        factory("wrap_new(lambda: Odd(lambda self, h: h + 0 * self.count.add_(1)))"),
        "changes its buffer 'count'|in place|another value",
        "lanes|pure",
    ),
    "hidden buffer": (
        factory("wrap_new(lambda: Odd(lambda self, h: h + 0 * self.count.data.add_(1)))"),
        "changes its buffer 'count'|in place",
        "lanes",
    ),
    "same module": (
        "module = nn.Linear(3, 2)\n" + factory("wrap_new(lambda: module)"),
        "the same module every time",
        "inside the factory",
    ),
    "module instance": (factory("wrap_new(nn.Linear(3, 2))"), "expected a function", "lambda"),
    "no module": (factory("wrap_new(lambda: 3)"), "factory returned int", "nn.Module"),
    "module raises": (
        factory("wrap_new(lambda: nn.Linear('a', 2))"),
        "factory raised TypeError",
        "on its own",
    ),
    "unreduced": (
        factory(
            "wrap_new(lambda: nn.Linear(3, 2), lambda o, y: nn.functional.cross_entropy(o, y, "
            "reduction='none'))"
        ),
        r"loss returned shape \(32,\)",
        "reduction",
    ),
    "wrong width": (factory("wrap_new(lambda: nn.Linear(4, 2))"), "loss raised RuntimeError", "on its own"),
    "rows": (
        factory("wrap_new(lambda: nn.Linear(3, 2), data=(X, Y[:9]))"),
        r"\[40, 9\] rows",
        "equally many",
    ),
    "missing values": (
        factory("wrap_new(lambda: nn.Linear(3, 2), data=(X / 0, Y))"),
        r"train_data\[0\] holds NaN or infinity",
        "missing values",
    ),
    "no target": (factory("wrap_new(lambda: nn.Linear(3, 2), data=X)"), "train_data is Tensor", "target"),
    "text data": (factory("wrap_new(lambda: nn.Linear(3, 2), data=('abc', Y))"), "is no array", "numpy"),
    "big batch": (factory("wrap_new(lambda: nn.Linear(3, 2), batch_size=99)"), "batch_size is 99", "1 to 40"),
}


# Loss or evaluate cannot run in lanes: trained one lane after another, with the reason at hand.
ONE_BY_ONE = {
    "branch": (
        factory("make(loss=lambda p, b, key: p['w'].sum() if p['w'].sum() > 0 else -p['w'].sum())"),
        "branches on the value",
        "torch.where",
    ),
    "item": (
        factory("make(loss=lambda p, b, key: p['w'].square().sum() * p['w'].sum().item())"),
        "as a Python number|branches on",
        "item",
    ),
    "mask": (
        factory("make(loss=lambda p, b, key: p['w'][p['w'] > -9].square().sum())"),
        "shape depends on values|in lanes",
        "mask|torch.where|other ops",
    ),
    "evaluate item": (
        factory("make(evaluate=lambda p: {'loss': torch.tensor(p['w'].sum().item())})"),
        "evaluate",
        "item",
    ),
}


@pytest.mark.parametrize("case", ONE_BY_ONE)
def test_a_task_that_cannot_run_in_lanes_is_taken_one_by_one(case: str, tmp_path: Path) -> None:
    import re

    text, message, _ = ONE_BY_ONE[case]
    write(tmp_path, text)
    workload = load_workload("mine.py:factory", tmp_path)
    assert re.search(message, workload.one_by_one)
    assert workload.one_by_one.startswith(f"{tmp_path / 'mine.py'}, line ")
    lanes = torch.stack([flatten(workload.data(seed, 1).params) for seed in (0, 1)])
    batch = tuple(column[0] for column in workload.data(0, 1).batches)
    plane = eager_plane(workload, layout_of(workload.data(0, 1).params))
    losses, grads = plane.step(lanes, batch, 1)
    alone = [plane.step(lane[None], batch, 1) for lane in lanes]
    assert torch.equal(losses, torch.cat([loss for loss, _ in alone]))
    assert torch.equal(grads, torch.cat([grad for _, grad in alone]))
    assert grads.abs().sum() > 0 and plane.evaluate(lanes)["loss"].shape == (2,)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_task_gets_one_clear_message(case: str, tmp_path: Path) -> None:
    import re

    text, message, hint = BAD[case]
    error = refusal(tmp_path, text)
    assert re.search(message, error.message), error
    assert re.search(hint, error.hint), error
    assert error.file is not None
    assert Path(error.file) == tmp_path / "mine.py"
    assert error.exit_code == 2
    assert "\n" not in error.message
    if case != "no factory":
        assert error.line is not None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\ndef factory():\n    data = 1\n    raise ValueError('x')\n", 4),
        ("\n\ndef factory(:\n", 3),
        (factory("3"), 1),
        (
            "def bad(p, b, key):\n    w = p['w']\n    return w.sum() / len(nothing)\n"
            + factory("make(loss=bad)"),
            3,
        ),
        ("def bad(p, b, key):\n    return b[0] @ p['w']\n\n" + factory("make(loss=bad)"), 1),
        ("import json\ndef factory():\n    json.loads('{')\n", 3),
    ],
)
def test_the_line_at_fault_is_named(text: str, line: int, tmp_path: Path) -> None:
    assert refusal(tmp_path, text).line == N_HEAD + line


@pytest.mark.parametrize(
    ("ref", "message", "hint"),
    [
        ("absent.py:factory", "does not exist", "new-task"),
        ("folder.py:factory", "is a folder", "new-task"),
        ("no_such_package_at_all.tasks:factory", "no module 'no_such_package_at_all'", "file.py:factory"),
        ("mine.py:", "names no task", "file.py:factory"),
        (":factory", "names no task", "file.py:factory"),
        ("mine.py:a b", "names no task", "file.py:factory"),
        ("json:nothing", "no factory 'nothing'", "def nothing"),
        ("json:dumps", "raised TypeError", "import"),
    ],
)
def test_a_bad_reference_says_what_to_write(ref: str, message: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(TaskError, match=message) as caught:
        load_workload(ref, tmp_path)
    assert hint in caught.value.hint


def test_batch_size_of_a_factory_without_the_argument(tmp_path: Path) -> None:
    write(tmp_path, factory("make()"))
    assert load_workload("mine.py:factory", tmp_path, steps=9).steps == 9
    with pytest.raises(TaskError, match="takes no batch_size") as caught:
        load_workload("mine.py:factory", tmp_path, batch_size=16)
    assert caught.value.line == N_HEAD + 1
    assert "batch_size: int = 8" in caught.value.hint


def test_a_family_with_knobs_of_ones_own_is_a_few_lines(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "my_tasks.py").write_text(code)
    workload = load_workload("my_tasks.py:noisy_shells", tmp_path)
    assert (workload.suite, workload.batch_size, workload.steps) == ("user", 32, 120)
    assert load_workload("my_tasks.py:noisy_shells", tmp_path, batch_size=8).batch_size == 8
    (tmp_path / "my_tasks.py").write_text(code.replace("label_noise=0.3", "label_noise=1.3"))
    with pytest.raises(TaskError, match=r"label_noise is 1\.3") as caught:
        load_workload("my_tasks.py:noisy_shells", tmp_path)
    assert caught.value.hint == "choose 0 to 0.5"


def test_a_users_task_is_tuned_again_when_a_family_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from ruleforge.tasks import workload as module

    copy = tmp_path / "tasks"
    shutil.copytree(Path(module.__file__).parent, copy)
    monkeypatch.setattr(module, "_HERE", copy)
    (tmp_path / "my_task.py").write_text(TEMPLATE)
    mine, built_in = load_workload("my_task.py:factory", tmp_path), load_workload("breast_cancer")
    before = mine.source_hash(), built_in.source_hash()
    (copy / "vectors.py").write_text("# changed\n")
    assert mine.source_hash() != before[0]
    assert built_in.source_hash() == before[1]
