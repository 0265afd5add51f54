"""The block of the probes against the reference in float64, states carried along, lane by lane."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ruleforge.backends import numpy_block
from ruleforge.backends.base import LaneGroup, Layout
from ruleforge.backends.numpy_block import NumpyBlock
from ruleforge.backends.reference_lanes import ReferenceLanes
from ruleforge.core import expr as ex
from ruleforge.core.known import KNOWN
from ruleforge.core.ops import CORE, OPS
from ruleforge.core.program import compile_rule
from ruleforge.core.rule import Rule
from ruleforge.core.text import parse
from ruleforge.search.grammar import load_grammar
from ruleforge.search.strategies import Setup, make_strategy

LAYOUT = Layout(("a", "b", "c", "d"), ((4, 3), (5,), (), (0, 2)))
EDGES = (0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 2.0, 1e300)
N = 3


def check(rule: Rule, *, steps: int = 6, edges: float = 0.0) -> None:
    """Both take the same steps from the same weights, each from its own states."""
    rng = np.random.default_rng(0)
    program = compile_rule(rule)
    hypers = np.asarray(rule.canonical.defaults, float)[:, None] * np.array([1.0, 0.99, 0.97])
    lr0 = np.array([0.1, 0.03, 0.01])
    block = NumpyBlock(program, LAYOUT, hypers, lr0)
    lanes = ReferenceLanes([LaneGroup(program, N, hypers)], LAYOUT, lr0, torch.float64)
    for t in range(1, steps + 1):
        w, g = rng.standard_normal((2, N, LAYOUT.n_weights))
        w, g = (np.where(rng.random(x.shape) < edges, rng.choice(EDGES, x.shape), x) for x in (w, g))
        lr, progress = lr0 / t, t / steps
        u = torch.empty(w.shape, dtype=torch.float64)
        lanes.step(torch.from_numpy(w.copy()), torch.from_numpy(g), t=t, lr=lr, progress=progress, updates=u)
        with np.errstate(all="ignore"):
            made = block.step(w, g, t=t, lr=lr, progress=progress)
        assert made.shape == w.shape
        np.testing.assert_allclose(made, u.numpy(), rtol=1e-9, atol=1e-12, err_msg=f"step {t}")


@pytest.mark.parametrize("name", list(KNOWN))
def test_every_known_rule(name: str) -> None:
    check(KNOWN[name].rule.rule)


@pytest.mark.parametrize("name", CORE)
def test_every_op(name: str) -> None:
    leaves = [ex.leaf("g"), ex.leaf("w"), ex.node("sub", ex.leaf("w"), ex.leaf("g"))][: OPS[name].arity]
    plain = OPS[name].kind == "elementwise"
    check(Rule(ex.node(name, *leaves)), edges=0.3 if plain else 0.0)


@pytest.mark.parametrize("name", [n for n in CORE if OPS[n].kind == "reduce"])
def test_a_reduction_that_has_no_form_for_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(numpy_block.REDUCTIONS, name)
    leaves = [ex.leaf("g"), ex.leaf("w")][: OPS[name].arity]
    check(Rule(ex.node("mul", ex.leaf("g"), ex.node(name, *leaves))))


@pytest.mark.parametrize(
    "text",
    [
        "update = 0.5\n",
        "update = is_matrix\n",
        "update = norm(g)\n",
        "update = g * lr + lr0 * w + progress + first\n",
        "m: state = lr0\nm = 0.5\nupdate = m * g\n",
        "m: state = 1\nupdate = g * m\nm = m * 0.9\n",
        "s: state = 1\nupdate = g * s\ns = s * 0.9 + norm(g)\n",
        "s: state = 1\nt2: state = 0\nupdate = g * s + t2\ns = t2 + 0.1\nt2 = norm(g) * s\n",
        "update = prev(g) + prev(w) * norm(prev(w))\n",
        "update = g * norm(g * norm(w)) + norm(w) * mean(g * norm(w))\n",
        "c: hyper(0, 1) = 0.5\nupdate = ema(g, c) ** c + c\n",
    ],
)
def test_values_of_every_kind_and_shape(text: str) -> None:
    check(parse(text).rule)


def test_random_rules() -> None:
    setup = Setup(
        grammar=load_grammar("full"), directions=("max",), population=100, seed=3, seeds=(), immigrants=0.0
    )
    for proposal in make_strategy("random", setup).ask(0, 0, 100):
        check(proposal.rule, steps=4)
