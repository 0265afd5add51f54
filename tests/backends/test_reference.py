"""The reference is the definition, so it is held to formulas written down again by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from ruleforge.backends.reference import RuleState, StepContext, apply_update, init_state, update
from ruleforge.core.known import KNOWN
from ruleforge.core.program import Program, compile_rule
from ruleforge.core.rule import Rule
from ruleforge.core.text import parse

SHAPES = ((3, 4), (5,), ())


def draw(rng: np.random.Generator, dtype: type = np.float64) -> list[np.ndarray]:
    return [np.asarray(rng.standard_normal(shape), dtype=dtype) for shape in SHAPES]


def run(rule: Rule | str, steps: int, dtype: type = np.float64, **options: float) -> list[list[np.ndarray]]:
    """The updates of each step on random gradients, at weights that stay where they are."""
    rule = parse(rule).rule if isinstance(rule, str) else rule
    program, rng = compile_rule(rule), np.random.default_rng(0)
    w, found = draw(rng, dtype), []
    lr = options.get("lr", 0.1)
    hypers = rule.canonical.defaults
    state = init_state(program, w, StepContext(t=1, lr=lr, lr0=lr, hypers=hypers))
    for t in range(1, steps + 1):
        ctx = StepContext(t=t, lr=lr, lr0=lr, progress=t / steps, hypers=hypers)
        made, state = update(program, state, draw(rng, dtype), w, ctx)
        found.append(made)
    return found


def gradients(steps: int, dtype: type = np.float64) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """The weights and gradients that `run` draws."""
    rng = np.random.default_rng(0)
    w = draw(rng, dtype)
    return w, [draw(rng, dtype) for _ in range(steps)]


def test_sgd_is_the_gradient() -> None:
    _, gs = gradients(3)
    for made, g in zip(run(KNOWN["sgd"].rule.rule, 3), gs, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(made, g, strict=True))


def test_adam_by_hand() -> None:
    """Kingma & Ba 2014, algorithm 1."""
    _, gs = gradients(20)
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    m = [np.zeros(shape) for shape in SHAPES]
    v = [np.zeros(shape) for shape in SHAPES]
    for t, (made, g) in enumerate(zip(run(KNOWN["adam"].rule.rule, 20), gs, strict=True), 1):
        for i in range(len(SHAPES)):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i]
            expected = (m[i] / (1 - beta1**t)) / (np.sqrt(v[i] / (1 - beta2**t)) + eps)
            np.testing.assert_allclose(made[i], expected, rtol=1e-13)


def test_lion_by_hand() -> None:
    """Chen et al. 2023, algorithm 2: the update mixes with the old average."""
    _, gs = gradients(10)
    m = [np.zeros(shape) for shape in SHAPES]
    for made, g in zip(run(KNOWN["lion"].rule.rule, 10), gs, strict=True):
        for i in range(len(SHAPES)):
            np.testing.assert_array_equal(made[i], np.sign(0.9 * m[i] + (1 - 0.9) * g[i]))
            m[i] = 0.99 * m[i] + (1 - 0.99) * g[i]


def test_each_tensor_has_its_own_scalars() -> None:
    w, (g, *_) = gradients(1)
    (made,) = run("update = g / norm(g) + mean(w) * is_matrix", 1)
    for u, gi, wi in zip(made, g, w, strict=True):
        np.testing.assert_allclose(u, gi / np.sqrt(np.sum(gi**2)) + np.mean(wi) * (gi.ndim == 2), rtol=1e-14)


def test_scalar_and_host_states_live_on() -> None:
    text = "p: state = 1\ns: state = 0\np = p * 0.5\ns = s + norm(g)\nupdate = g * p + s"
    _, gs = gradients(4)
    total = np.zeros(len(SHAPES))
    for t, (made, g) in enumerate(zip(run(text, 4), gs, strict=True), 1):
        for i in range(len(SHAPES)):
            total[i] += np.sqrt(np.sum(g[i] ** 2))
            np.testing.assert_allclose(made[i], g[i] * 0.5**t + total[i], rtol=1e-13)


def test_states_are_stored_together() -> None:
    """Two states that swap must not see each other's new values."""
    program = compile_rule(
        parse("a: state = 1\nb: state = 2\na_old = a\na = b * g / g\nb = a_old * g / g\nupdate = a - b").rule
    )
    w = [np.ones(2)]
    ctx = StepContext(t=1)
    state = init_state(program, w, ctx)
    seen = []
    for _ in range(3):
        made, state = update(program, state, w, w, ctx)
        seen.append(float(made[0][0]))
    assert seen == [1.0, -1.0, 1.0]


def test_prev_is_zero_at_first_and_then_one_step_late() -> None:
    _, gs = gradients(3)
    made = run("update = prev(g)", 3)
    assert all(np.all(u == 0) for u in made[0])
    assert np.array_equal(made[1][0], gs[0][0]) and np.array_equal(made[2][0], gs[1][0])


def test_prev_of_ema_hat_is_its_value_one_step_ago_bit_for_bit() -> None:
    now = run("update = ema_hat(g, 0.9)", 5)
    before = run("update = prev(ema_hat(g, 0.9))", 5)
    assert all(np.all(u == 0) for u in before[0])
    for late, early in zip(before[1:], now, strict=False):
        assert all(np.array_equal(a, b) for a, b in zip(late, early, strict=True))


def test_first_t_progress_and_learning_rates() -> None:
    made = run("update = 0 * g + first * 1000 + t * 100 + progress * 10 + lr + lr0", 2, lr=0.25)
    assert [float(u[2]) for u in made] == [1000 + 100 + 5 + 0.5, 200 + 10 + 0.5]


def test_inits_read_hypers_and_the_initial_lr() -> None:
    program = compile_rule(parse("c: hyper(0, 9) = 3\nm: state = c * lr0\nm = m + g\nupdate = m").rule)
    state = init_state(program, [np.zeros(2, np.float32)], StepContext(t=1, lr0=0.5, hypers=(4.0,)))
    assert state.tensor[0][0].tolist() == [2.0, 2.0] and state.tensor[0][0].dtype == np.float32


# dtypes


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", ["adam", "lion", "lamb", "nadam", "rprop", "adadelta"])
def test_the_dtype_of_the_weights_is_kept(name: str, dtype: type) -> None:
    rule = KNOWN[name].rule.rule
    program, rng = compile_rule(rule), np.random.default_rng(0)
    w = draw(rng, dtype)
    ctx = StepContext(t=1, lr=0.1, lr0=0.1, hypers=rule.canonical.defaults)
    made, state = update(program, init_state(program, w, ctx), draw(rng, dtype), w, ctx)
    assert all(u.dtype == dtype and u.shape == p.shape for u, p in zip(made, w, strict=True))
    assert all(
        s.dtype == dtype and s.shape == p.shape for p, of in zip(w, state.tensor, strict=True) for s in of
    )
    assert all(s.dtype == dtype for of in state.scalar for s in of)
    assert all(isinstance(s, np.float64) for s in state.host)


def test_host_numbers_are_float64_and_rounded_where_they_meet_a_tensor() -> None:
    (made,) = run("update = 0 * g + (1 - 0.999 ** t)", 1, np.float32)
    assert made[2] == np.float32(1 - 0.999)
    assert made[2] != np.float32(1) - np.float32(0.999)


def test_tensor_arithmetic_is_rounded_after_each_op() -> None:
    w, (g, *_) = gradients(1, np.float32)
    (made,) = run("update = g * w + g / 3", 1, np.float32)
    for u, gi, wi in zip(made, g, w, strict=True):
        assert np.array_equal(u, gi * wi + gi / np.float32(3))


# special values


def one(text: str, g: float, w: float = 1.0, dtype: type = np.float32) -> np.ndarray:
    program = compile_rule(parse(text).rule)
    params = [np.array([w, 1.0], dtype)]
    ctx = StepContext(t=1)
    made, _ = update(program, init_state(program, params, ctx), [np.array([g, 1.0], dtype)], params, ctx)
    return made[0]


def test_nan_stays_in_its_element_unless_a_reduction_spreads_it() -> None:
    assert np.array_equal(
        one("update = sign(g) + maximum(g, 0) * (g < 2)", np.nan), [np.nan, 2], equal_nan=True
    )
    assert np.all(np.isnan(one("update = g / norm(g)", np.nan)))
    assert np.array_equal(one("update = where(g < 2, 1, 0) * w", np.nan), [np.nan, 1], equal_nan=True)


def test_divergence_is_a_value_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isinf(one("update = g / 0", 1.0)).all()
        assert np.isnan(one("update = log(-abs(g))", 1.0)).all()
        assert np.isinf(one("m: state = 1e300\nm = m * g\nupdate = m", 1.0)).all()  # beyond float32
        assert np.isinf(one("update = g * exp(1000)", 1.0)).all()


def test_denormal_numbers_are_kept() -> None:
    tiny = np.float32(1e-42)
    assert one("update = g * 1", tiny)[0] == tiny != 0


def test_empty_tensors_are_nobody_s_trouble() -> None:
    program = compile_rule(parse("update = g / (norm(g) + rms(g) + 1) + ema(g, 0.9)").rule)
    w = [np.zeros((0, 3), np.float32), np.ones(2, np.float32)]
    ctx = StepContext(t=1)
    made, _ = update(program, init_state(program, w, ctx), w, w, ctx)
    assert made[0].shape == (0, 3) and np.all(np.isfinite(made[1]))


def test_a_rule_that_reads_no_tensor_gives_full_tensors() -> None:
    (made,) = run("update = 0.5", 1)
    assert [u.shape for u in made] == list(SHAPES) and all(np.all(u == 0.5) for u in made)


# purity


def everything(state: RuleState) -> list[np.ndarray]:
    return [np.array(v) for of in (state.host, *state.scalar, *state.tensor) for v in of]


def test_nothing_is_changed_in_place_and_nothing_is_shared() -> None:
    program: Program = compile_rule(
        parse("p: state = 1\np = p * 0.9\nupdate = (prev(g) + g) * p * ema(norm(g), 0.9)").rule
    )
    rng = np.random.default_rng(0)
    w, g, ctx = draw(rng), draw(rng), StepContext(t=1)
    state = init_state(program, w, ctx)
    before = [v.copy() for v in (*w, *g, *everything(state))]
    made, after = update(program, state, g, w, ctx)
    again, _ = update(program, state, g, w, ctx)
    assert all(np.array_equal(a, b) for a, b in zip((*w, *g, *everything(state)), before, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    for u in made:
        u[...] = 7
    for of in after.tensor:
        of[0][...] = 7  # the next value is the gradient itself, but not the same array
    assert all(np.array_equal(a, b) for a, b in zip(g, before[len(w) : 2 * len(w)], strict=True))


def test_applying_an_update() -> None:
    w, u = np.array([1.0, -2.0], np.float32), np.array([0.5, 0.25], np.float32)
    lr, decay = np.float32(0.1), np.float32(0.01)
    assert np.array_equal(apply_update(w, u, 0.1), w - lr * u)
    assert np.array_equal(apply_update(w, u, 0.1, 0.01), w - lr * (u + decay * w))
    assert apply_update(w, u, 0.1).dtype == np.float32
    assert apply_update(np.float32(1).reshape(()), np.float32(2).reshape(()), 0.5).shape == ()
