"""The part of `make gpu-check` about exported optimizers: is the fused kernel right, and how fast is it?

Right: every known rule that has a kernel, against the same file's plain loop, in float32 and bfloat16. Fast:
a step against torch's own fused Adam, and against the time in which the device copies as many bytes.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

SIZES = (10_000, 1_000_000, 50_000_000)
TIMED = ("adam", "lion")
# Bytes of float32 a weight that a step must move: parameter and states in and out, the gradient in.
BYTES = {"adam": 28, "lion": 20}
TIME_S = 60.0
TOLERANCE = 2e-5
HALF_TOLERANCE = 5 * 2**-7  # each of five steps may end on the neighbouring number


def exported_kernels(*, dry: bool) -> dict[str, Any]:
    """Check all kernels, time two; what is wrong comes back as text."""
    from ruleforge.core.known import KNOWN
    from ruleforge.export.triton import why_not_fused

    names = [name for name, entry in sorted(KNOWN.items()) if not why_not_fused(entry.rule.rule)]
    wrong: list[str] = []
    errors: dict[str, float] = {}
    with _folder() as folder:
        for name in ["adam", "nadam"] if dry else names:
            made = _class_of(name, folder)
            for half in (False, True):
                label = f"{name}, {'bfloat16' if half else 'float32'}"
                try:
                    errors[label] = _error(made, name, half=half, dry=dry)
                except Exception as error:  # one rule that fails is a finding, not the end
                    wrong.append(f"{label}: {type(error).__name__}: {str(error).splitlines()[0]}")
                    continue
                if not errors[label] <= (HALF_TOLERANCE if half else TOLERANCE):
                    wrong.append(f"{label}: {errors[label]:.2g} apart")
        print(f"  {len(errors)} trainings with fused kernels: {len(wrong)} wrong")
        print("".join(f"  WRONG {each}\n" for each in wrong), end="")
        rows = [] if dry else [row for name in TIMED for row in _times(_class_of(name, folder), name)]
    return {"errors": errors, "wrong": wrong, "times": rows}


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gpu-exports-") as name:
        sys.path.insert(0, name)
        try:
            yield Path(name)
        finally:
            sys.path.remove(name)


def _class_of(name: str, folder: Path) -> Any:
    """The exported class, its kernel beside it."""
    from ruleforge.core.known import KNOWN
    from ruleforge.export.torch import export_torch
    from ruleforge.export.triton import export_triton

    label = f"gpu_exported_{name}"
    (folder / f"{label}.py").write_text(export_torch(KNOWN[name].rule, "Exported"), encoding="utf-8")
    (folder / f"{label}_fused.py").write_text(export_triton(KNOWN[name].rule, "Exported"), encoding="utf-8")
    importlib.invalidate_caches()
    return importlib.import_module(label).Exported


def _error(made: Any, name: str, *, half: bool, dry: bool) -> float:
    """Largest distance between five fused steps and five plain ones, relative to max(1, |w|)."""
    import torch

    from ruleforge.core.known import KNOWN

    device, dtype = "cpu" if dry else "cuda", torch.bfloat16 if half else torch.float32
    options: dict[str, Any] = {"total_steps": 5} if KNOWN[name].rule.rule.reads("progress") else {}
    options |= {"weight_decay": 0.1, "state_dtype": torch.float32, "lr": 0.01}
    ends = []
    for fused in (True, False):
        rng = torch.Generator().manual_seed(0)
        shapes = ((5, 3), (), (0, 3), (2048,))
        params = [torch.nn.Parameter(torch.randn(s, generator=rng).to(device, dtype)) for s in shapes]
        optimizer = made(params, fused=fused, foreach=False, capturable=fused, **options)
        for _ in range(5):
            for p in params:
                p.grad = torch.randn(p.shape, generator=rng).to(device, dtype)
            optimizer.step()
        ends.append(torch.cat([p.detach().double().reshape(-1).cpu() for p in params]))
    return float(((ends[0] - ends[1]).abs() / ends[1].abs().clamp(min=1)).max())


def _times(made: Any, name: str) -> Iterator[dict[str, Any]]:
    """Microseconds of a step by size: ours fused, torch's fused Adam, and copying as many bytes."""
    import torch

    deadline = time.monotonic() + TIME_S / len(TIMED)
    for size in SIZES:
        if time.monotonic() > deadline:
            return
        side = int((size / 8) ** 0.5)
        params = [torch.nn.Parameter(torch.randn(side, side, device="cuda")) for _ in range(8)]
        for p in params:
            p.grad = torch.randn_like(p)
        weights = sum(p.numel() for p in params)
        source = torch.empty(weights * BYTES[name] // 8, device="cuda")  # as float32, read and written
        target = torch.empty_like(source)
        row: dict[str, Any] = {
            "rule": name,
            "weights": weights,
            "ours_us": _timed(made(params, fused=True).step),
            "torch_adam_fused_us": _timed(torch.optim.Adam(params, fused=True).step),
            "copy_us": _timed(partial(target.copy_, source)),
        }
        print(
            f"  {name:<6}{weights:>12,} weights   fused {row['ours_us']:.0f} us   torch's fused Adam "
            f"{row['torch_adam_fused_us']:.0f} us   copying as much {row['copy_us']:.0f} us"
        )
        yield row


def _timed(call: Callable[[], Any]) -> float:
    """Median microseconds of a call, in batches of ten."""
    import statistics

    import torch

    found = []
    for _ in range(12):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(10):
            call()
        torch.cuda.synchronize()
        found.append((time.perf_counter() - began) * 1e5)
    return statistics.median(found[2:])
