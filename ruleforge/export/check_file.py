"""A pytest file that goes beside an exported file: does it still do what the rule did when it was exported?

The expected weights are numbers in the file, so that neither ruleforge nor its reference is needed to run
it. Who records them is not this module's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ruleforge.errors import ExportError
from ruleforge.export.safety import snake

LR = 0.01
SHAPES: tuple[tuple[int, ...], ...] = ((5, 3), (4,), (2, 1, 3))


@dataclass(frozen=True)
class Recording:
    """What a rule did with the gradients of `number`.

    Attributes:
        steps: how many it made.
        weights: all weights in a row, after each step that `after` names.
        after: the steps, from 1.
        tolerance: how far apart correct programs may lie, relative to max(1, |w|).
        needs_total: whether the rule must be told the number of steps.
    """

    steps: int
    weights: tuple[tuple[float, ...], ...]
    after: tuple[int, ...]
    tolerance: float
    needs_total: bool


_HEAD = '''"""Does {module}.py do what the rule did when it was exported? Run it with pytest.

The expected weights were recorded in float64 from ruleforge's reference.
"""

import math

import numpy as np
{imports}

LR = {lr!r}
STEPS = {steps}
TOLERANCE = {tolerance!r}
SHAPES = {shapes!r}
EXPECTED = {{
{rows}
}}


def number(tensor, index, step):
    """Start of a weight (step 0), or its gradient; some gradients are 0."""
    if step and (7 * index + step) % 11 == 0:
        return 0.0
    return math.sin(1.7 * index + 0.9 * step + tensor) * 10.0 ** (step % 3 - 1)


def arrays(step):
    return [
        np.array([number(n, i, step) for i in range(math.prod(shape))]).reshape(shape)
        for n, shape in enumerate(SHAPES)
    ]


def check(step, params):
    if step not in EXPECTED:
        return
    found = np.concatenate([np.ravel(p) for p in params])
    wanted = np.array(EXPECTED[step])
    bound = TOLERANCE * np.maximum(1.0, np.abs(wanted).max())
    assert np.abs(found - wanted).max() <= bound, f"step {{step}}"

'''
_TORCH = """
@pytest.mark.parametrize("foreach", [False, True])
def test_recorded_steps(foreach):
    params = [torch.nn.Parameter(torch.from_numpy(w)) for w in arrays(0)]
    optimizer = {name}(params, lr=LR, weight_decay=0.0, foreach=foreach{total})
    for step in range(1, STEPS + 1):
        for p, g in zip(params, arrays(step)):
            p.grad = torch.from_numpy(g)
        optimizer.step()
        check(step, [p.detach().numpy() for p in params])
"""
_NUMPY = """
def test_recorded_steps():
    params = arrays(0)
    optimizer = {name}(params, lr=LR, weight_decay=0.0{total})
    for step in range(1, STEPS + 1):
        optimizer.step(arrays(step))
        check(step, params)
"""
_OPTAX = """
def test_recorded_steps():
    with jax.enable_x64(True):
        params = [jnp.asarray(w) for w in arrays(0)]
        transformation = {name}(LR, weight_decay=0.0{total})
        state = transformation.init(params)
        for step in range(1, STEPS + 1):
            grads = [jnp.asarray(g) for g in arrays(step)]
            updates, state = transformation.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            check(step, params)
"""
_PARTS = {
    "torch": ("import pytest\nimport torch\nfrom {module} import {name}", _TORCH),
    "numpy": ("from {module} import {name}", _NUMPY),
    "optax": ("import jax\nimport jax.numpy as jnp\nimport optax\nfrom {module} import {name}", _OPTAX),
}


def number(tensor: int, index: int, step: int) -> float:
    """The same as in the written file."""
    if step and (7 * index + step) % 11 == 0:
        return 0.0
    return math.sin(1.7 * index + 0.9 * step + tensor) * 10.0 ** (step % 3 - 1)


def check_file(target: str, module: str, class_name: str, recording: Recording) -> str:
    """Source of the tests of an exported file.

    Args:
        target: a name in `export.TARGETS` that writes code.
        module: name of the exported file, without `.py`.
        class_name: name of the class in it.
        recording: what the rule did.

    Raises:
        ExportError: the target writes no code, or the file's name cannot be imported.
    """
    if target not in _PARTS:
        raise ExportError(
            f"there are no tests for {target}", hint=f"--with-tests goes with {', '.join(_PARTS)}"
        )
    if not module.isidentifier():
        raise ExportError(
            f"tests cannot import {module!r}", hint="use letters, digits and _ in the file's name"
        )
    name = snake(class_name) if target == "optax" else class_name
    imports, body = _PARTS[target]
    total = ", total_steps=STEPS" if recording.needs_total else ""
    rows = "\n".join(
        f"    {step}: [\n" + "".join(f"        {value!r},\n" for value in values) + "    ],"
        for step, values in zip(recording.after, recording.weights, strict=True)
    )
    head = _HEAD.format(
        module=module, imports=imports.format(module=module, name=name), lr=LR, steps=recording.steps,
        tolerance=recording.tolerance, shapes=SHAPES, rows=rows,
    )  # fmt: skip
    return head + body.format(name=name, total=total)
