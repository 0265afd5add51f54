"""The fused kernel, in Triton's interpreter: equal to the other ways of stepping, for every elementwise rule.

With a GPU the same tests run on it. That the kernel compiles for one is tested without.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

pytest.importorskip("triton")

from ruleforge.backends.triton_interpreter import quick_interpreter
from ruleforge.core.format import name_rule
from ruleforge.core.known import KNOWN
from ruleforge.core.ops import OPS
from ruleforge.core.text import RuleText
from ruleforge.errors import ExportError
from ruleforge.export.torch import export_torch
from ruleforge.export.triton import export_triton, why_not_fused
from ruleforge.search.children import random_child
from ruleforge.search.grammar import load_grammar
from ruleforge.search.vocabulary import Vocabulary
from tests.export.harness import LR, assert_same_training, options_for, train_torch
from tests.export.tricky import TRICKY

FUSABLE = sorted(name for name, entry in KNOWN.items() if not why_not_fused(entry.rule.rule))
QUICK = ("adam", "lion", "nadam", "adopt")
FLOAT32 = 2e-5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def quickly() -> Iterator[None]:
    with quick_interpreter():
        yield


@functools.cache
def folder() -> Path:
    path = Path(tempfile.mkdtemp())
    sys.path.insert(0, str(path))
    return path


def module_of(text: RuleText, label: str) -> Any:
    """The exported module, with its kernel beside it."""
    (folder() / f"{label}.py").write_text(export_torch(text, "Exported"), encoding="utf-8")
    (folder() / f"{label}_fused.py").write_text(export_triton(text, "Exported"), encoding="utf-8")
    importlib.invalidate_caches()
    return importlib.import_module(label)


def check(text: RuleText, label: str) -> None:
    made, extra = module_of(text, label).Exported, options_for(text)
    for way in ({}, {"capturable": True}):
        assert_same_training(
            text,
            lambda p, way=way: made(p, lr=LR, fused=True, **extra, **way),
            np.float32,
            FLOAT32,
            train=train,
        )


def train(make: Any, grads: Any, start: Any) -> Any:
    """Triton's interpreter computes in numpy, which warns of infinities and NaN."""
    with np.errstate(all="ignore"):
        return train_torch(make, grads, start)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FUSABLE]
)
def test_known_rules(name: str) -> None:
    check(KNOWN[name].rule, f"fused_{name}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in TRICKY if n not in ("host_invalid", "host_nan_choice", "host_overflow")]
)
def test_order_and_kinds(name: str) -> None:
    text = RuleText.parse(TRICKY[name])
    if why_not_fused(text.rule):
        pytest.skip("looks at whole tensors")
    check(text, f"fused_tricky_{name}")


@pytest.mark.slow
def test_random_rules() -> None:
    """Rules that a search would propose."""
    vocabulary = Vocabulary(load_grammar("full"))
    rng = np.random.default_rng(0)
    done = 0
    while done < 40:
        text = name_rule(random_child(rng, vocabulary).rule)
        if not why_not_fused(text.rule):
            check(text, f"fused_random_{done}")
            done += 1


@pytest.mark.slow
@pytest.mark.parametrize("op", [name for name, row in OPS.items() if row.kind == "elementwise"])
def test_every_op(op: str) -> None:
    """Of tensors, and of a tensor and a constant."""
    arity = OPS[op].arity
    symbol = OPS[op].symbol
    for args in (["g", "w", "prev(g)"][:arity], ["g", "0.5", "2"][:arity], ["0.5", "g", "w"][:arity]):
        call = (
            (f" {symbol} ".join(args) if arity > 1 else f"{symbol}{args[0]}")
            if symbol
            else f"{op}({', '.join(args)})"
        )
        if "g" in args:
            check(
                RuleText.parse(f"update = {call} + 0 * g"),
                f"fused_{op}_{'_'.join(args).replace('.', '')}".replace("(", "").replace(")", ""),
            )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_stepped_in_float32(dtype: torch.dtype) -> None:
    """Parameters round once a step; states are float32 where asked for."""
    made = module_of(KNOWN["adam"].rule, "fused_adam_half").Exported
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(40, generator=rng).to(dtype)
    p, exact = (Parameter(start.to(DEVICE, kind)) for kind in (dtype, torch.float32))
    mine = made([p], lr=0.01, fused=True, state_dtype=torch.float32)
    other = made([exact], lr=0.01, foreach=False)
    for _ in range(3):
        p.grad = torch.randn(40, generator=rng).to(DEVICE, dtype)
        exact.data.copy_(p.data)
        exact.grad = p.grad.float()
        mine.step()
        other.step()
        # Triton's interpreter cuts bfloat16 off where a GPU rounds.
        last = 2**-7 if dtype is torch.bfloat16 and DEVICE == "cpu" else 0.0
        torch.testing.assert_close(p, exact.to(dtype), rtol=last, atol=0)
    assert mine.state[p]["exp_avg"].dtype == torch.float32
    torch.testing.assert_close(mine.state[p]["exp_avg"], other.state[exact]["exp_avg"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("name", ["adam", "lion", "nadam"])
def test_under_a_scaler(name: str, capturable: bool) -> None:
    made = module_of(KNOWN[name].rule, f"fused_{name}_scaled").Exported
    p, q = (Parameter(torch.tensor([1.0, -2.0], device=DEVICE)) for _ in range(2))
    mine = made([p], lr=0.1, fused=True, capturable=capturable)
    other = made([q], lr=0.1, foreach=False)
    for found in (0.0, 1.0, 0.0):
        p.grad, q.grad = torch.tensor([4.0, 8.0], device=DEVICE), torch.tensor([0.5, 1.0], device=DEVICE)
        mine.grad_scale, mine.found_inf = torch.tensor(8.0), torch.tensor(found)
        mine.step()
        assert p.grad.tolist() == [4.0, 8.0]
        if not found:
            other.step()
    torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    for state, value in mine.state[p].items():
        torch.testing.assert_close(value.cpu(), other.state[q][state].cpu(), rtol=1e-6, atol=1e-7)


def test_memory_in_another_order() -> None:
    made = module_of(KNOWN["adam"].rule, "fused_adam_order").Exported
    start = torch.arange(24.0).reshape(1, 2, 3, 4)
    p = Parameter(start.to(DEVICE).contiguous(memory_format=torch.channels_last))
    q = Parameter(start.to(DEVICE))
    for each, fused in ((p, True), (q, False)):
        optimizer = made([each], lr=0.1, fused=fused)
        each.grad = torch.arange(24.0, device=DEVICE).reshape(1, 2, 3, 4).flip(3).contiguous()
        optimizer.step()
    torch.testing.assert_close(p, q)
    gaps = Parameter(torch.ones(4, 4, device=DEVICE)[:, ::2])
    gaps.grad = torch.ones(4, 2, device=DEVICE)
    with pytest.raises(RuntimeError, match="without gaps"):
        made([gaps], fused=True).step()


def test_what_is_refused() -> None:
    module = module_of(KNOWN["adam"].rule, "fused_adam_refuses")
    p = Parameter(torch.ones(2, dtype=torch.float64, device=DEVICE))
    p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match=r"steps in float32, which torch\.float64"):
        module.Exported([p], fused=True).step()
    for other in ("foreach", "differentiable"):
        with pytest.raises(ValueError, match="fused excludes foreach and differentiable"):
            module.Exported([p], fused=True, **{other: True})
    with pytest.raises(ExportError, match="looks at whole tensors"):
        export_triton(KNOWN["lamb"].rule)
    namespace: dict[str, Any] = {"__name__": "lamb"}
    exec(export_torch(KNOWN["lamb"].rule, "Exported"), namespace)
    with pytest.raises(ValueError, match="fused is not possible: the rule looks at whole tensors"):
        namespace["Exported"]([p], fused=True)


def test_the_kernel_must_be_there_and_of_this_rule() -> None:
    label = "fused_adam_alone"
    (folder() / f"{label}.py").write_text(export_torch(KNOWN["adam"].rule, "Exported"), encoding="utf-8")
    importlib.invalidate_caches()
    p = Parameter(torch.ones(2, device=DEVICE))
    p.grad = torch.ones_like(p)
    optimizer = importlib.import_module(label).Exported([p], fused=True)
    with pytest.raises(RuntimeError, match=f"needs Triton and {label}_fused.py"):
        optimizer.step()
    (folder() / f"{label}_fused.py").write_text(export_triton(KNOWN["lion"].rule), encoding="utf-8")
    importlib.invalidate_caches()
    with pytest.raises(RuntimeError, match="is of rule"):
        optimizer.step()
    assert p.tolist() == [1.0, 1.0]


def test_without_a_gpu_it_says_so() -> None:
    module_of(KNOWN["lion"].rule, "fused_lion_cpu")
    code = (
        "import torch; from fused_lion_cpu import Exported; p = torch.nn.Parameter(torch.ones(2)); "
        "p.grad = torch.ones(2); Exported([p], fused=True).step()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder(), env={"PYTHONPATH": str(folder())},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "fused=True needs parameters on a GPU, not on cpu" in done.stderr


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
import fused_adam_compiled as module, fused_adam_compiled_fused as fused

class Target:
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0

class Compiled:
    def __init__(self, kernel): self.kernel = kernel
    def __getitem__(self, grid):
        def run(*args, **options):
            print(self.kernel.warmup(*args, grid=grid, **options).asm["ptx"])
        return run

triton.runtime.driver.set_active(Target())
fused._kernel, fused.INTERPRETED = Compiled(fused._kernel), True
p = torch.nn.Parameter(torch.ones(2048))
p.grad = torch.ones(2048)
module.Exported([p], fused=True, weight_decay=0.1).step()
"""


@pytest.mark.slow
def test_it_compiles_for_a_gpu() -> None:
    """For sm_90: four elements are read and written at once where memory is aligned."""
    module_of(KNOWN["adam"].rule, "fused_adam_compiled")
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=folder(), env={**clean, "PYTHONPATH": str(folder())},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("ld.global.v4") >= 4, re.findall(r"ld\.global\S*", done.stdout)
    assert done.stdout.count("st.global.v4") >= 3
    assert "approx" not in done.stdout
