"""What holds of a rule whatever it is trained on: proved from the graph, or measured on signals.

Each property says how it is known: "proved" follows from the op table's facts and the ranges of the
hyperparameters; "measured" was seen on the streams, at the default hyperparameters, and could be
otherwise elsewhere. Measurements with gradients below an eps say what the eps does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ruleforge.backends import reference
from ruleforge.backends.reference import StepContext
from ruleforge.core import expr as ex
from ruleforge.core.canon import fold
from ruleforge.core.format import format_number
from ruleforge.core.program import compile_rule
from ruleforge.core.rule import Rule
from ruleforge.core.text import RuleText
from ruleforge.explain.signals import answer
from ruleforge.explain.traces import Array, Inputs, make_inputs, run_settings
from ruleforge.records import Json
from ruleforge.render.names import slot_names
from ruleforge.simplify.facts import Facts
from ruleforge.simplify.trajectories import elements_meet

TOLERANCE = 1e-6
LONG = 400
LEAST_FINITE = 0.2


@dataclass(frozen=True)
class Property:
    """One statement about a rule.

    Attributes:
        name: key in JSON.
        known_by: "proved" or "measured".
        value: for programs.
        text: for people.
    """

    name: str
    known_by: str
    value: Json
    text: str

    def as_json(self) -> dict[str, Json]:
        return {"known_by": self.known_by, "value": self.value, "text": self.text}


def properties(text: RuleText) -> list[Property]:
    """All properties of a rule, in the order in which they are read.

    Of a rule that is hardly ever finite nothing can be measured.
    """
    rule = text.rule
    if not np.isfinite(_updates(rule, make_inputs().grads)).mean() > LEAST_FINITE:
        return [_reads(rule)]
    found = [_scale(rule), _symmetry(rule), _bound(rule), _descent(rule), _reads(rule)]
    alone = [_at_zero(rule), _at_flip(rule), _at_outlier(rule), _first_step(rule)]
    if elements_meet(rule):
        alone = [replace(each, text=f"{each.text} (on a tensor of one element)") for each in alone]
    return [*found, *alone, *_horizons(text)]


def _updates(rule: Rule, grads: Array, weights: Array | None = None) -> Array:
    plain = make_inputs()
    inputs = Inputs(plain.names, grads, plain.weights if weights is None else weights)
    return run_settings(rule, np.array([rule.defaults]), inputs)[0]


def _is_near(a: Array, b: Array) -> bool:
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return False
    size = np.sqrt(np.mean(np.square(b[both])))
    return bool(np.sqrt(np.mean(np.square(a[both] - b[both]))) <= TOLERANCE * max(size, 1e-300))


def _scale(rule: Rule) -> Property:
    """Degree k with update(s·g) = s^k · update(g), on gradients of ordinary size."""
    grads = make_inputs().grads[[0, 2, 3, 5]]
    inputs = make_inputs()
    weights = inputs.weights[[0, 2, 3, 5]]

    def at(scale: float) -> Array:
        made = Inputs(inputs.names[:4], scale * grads, weights)
        return run_settings(rule, np.array([rule.defaults]), made)[0]

    def degree(low: float, high: float) -> float | None:
        a, b = at(low), at(high)
        both = np.isfinite(a) & np.isfinite(b)
        size_a, size_b = (float(np.sqrt(np.mean(np.square(x[both])))) if both.any() else 0.0 for x in (a, b))
        if not (size_a > 0 and size_b > 0):
            return None
        k = math.log(size_b / size_a) / math.log(high / low)
        k = round(k) if abs(k - round(k)) < 0.05 else k
        apart = np.sqrt(np.mean(np.square(b - a * (high / low) ** k)[both])) / size_b
        return k if apart < 1e-3 else None

    near, far = degree(0.1, 1.0), degree(1e3, 1e5)
    exact = near is not None and _is_near(at(0.1) * 10.0**near, at(1.0))
    if near is None and far is None:
        return Property(
            "scale_degree", "measured", None, "no degree: a larger gradient gives an update of another shape"
        )
    if near is None:
        assert far is not None
        return Property(
            "scale_degree",
            "measured",
            far,
            f"degree {far:g}, for gradients above 1000 alone: {_meaning(far)}",
        )
    ending = "" if exact else " once the gradient is well above the eps"
    return Property("scale_degree", "measured", near, f"degree {near:g}{ending}: {_meaning(near)}")


def _meaning(degree: float) -> str:
    if degree == 0:
        return "the size of the gradient does not matter"
    if degree == 1:
        return "the update grows with the gradient"
    return f"an update 2^{degree:g} times as large for a gradient twice as large"


def _symmetry(rule: Rule) -> Property:
    inputs = make_inputs()
    plain = _updates(rule, inputs.grads)
    if _is_near(_updates(rule, -inputs.grads), -plain):
        return Property(
            "sign_symmetry", "measured", "odd", "turning the gradient round turns the update round"
        )
    if _is_near(_updates(rule, -inputs.grads, -inputs.weights), -plain):
        return Property(
            "sign_symmetry",
            "measured",
            "odd in g and w",
            "turning gradient and weights round turns the update round",
        )
    return Property(
        "sign_symmetry",
        "measured",
        "none",
        "not symmetric: a gradient and its mirror image get different answers",
    )


def _bound(rule: Rule) -> Property:
    """The range that interval arithmetic proves, else the largest update seen."""
    canonical = rule.canonical
    folded = fold(canonical)
    starts = {i: canonical.states[i].init for i in folded.states}
    proved = Facts(canonical.hypers, starts, folded.states)(folded.update)
    low, high = proved.low, proved.high
    if math.isfinite(low) and math.isfinite(high):
        limit = max(abs(low), abs(high))
        return Property("bound", "proved", limit, f"never larger than {limit:.4g}")
    rng = np.random.default_rng(1)
    calm = 0.01 * np.abs(rng.standard_normal((1, LONG)))
    shocks = np.concatenate([calm, calm, calm])
    shocks[1, LONG // 2] = 1e4
    shocks[2, LONG // 2 :] = 1e4
    seen = np.abs(answer(rule, shocks))
    seen[np.isnan(seen).all(axis=1)] = np.inf
    sizes = np.nanmax(seen, axis=1)
    if not np.isfinite(sizes).all():
        return Property("bound", "measured", None, "no bound: an outlier makes it infinite")
    larger = answer(rule, np.where(shocks > 1, 1e8, shocks))
    grown = float(np.nanmax(np.abs(larger)))
    most = float(sizes.max())
    if grown <= 1.01 * most:
        return Property(
            "bound",
            "measured",
            most,
            f"bounded, as far as was seen: at most {most:.4g}, however large the outlier",
        )
    return Property("bound", "measured", None, "no bound: a larger outlier gives a larger update")


def _descent(rule: Rule) -> Property:
    inputs = make_inputs()
    rows = [0, 2, 5]
    u, g = _updates(rule, inputs.grads)[rows][:, 4:], inputs.grads[rows][:, 4:]
    with np.errstate(all="ignore"):
        inner = np.sum(u * g, axis=-1)
        cosine = inner / np.sqrt(np.sum(u * u, axis=-1) * np.sum(g * g, axis=-1))
    seen = cosine[np.isfinite(cosine)]
    if not seen.size:
        return Property("descent", "measured", None, "not to be seen: the update is zero or not finite")
    value: dict[str, Json] = {
        "mean_cosine": float(seen.mean()),
        "worst_cosine": float(seen.min()),
        "against": float((seen < 0).mean()),
    }
    words = f"cosine with the gradient {seen.mean():.2f} on average, {seen.min():.2f} at worst"
    uphill = float((seen < 0).mean())
    words += f"; against it at {100 * uphill:.0f} % of the steps" if uphill else "; never against it"
    return Property("descent", "measured", value, words)


def _reads(rule: Rule) -> Property:
    names = {
        "t": "the step number",
        "first": "whether it is the first step",
        "w": "the weights",
        "lr": "the learning rate",
        "lr0": "the first learning rate",
        "progress": "how far the training is",
        "is_matrix": "whether it is a matrix",
    }
    read = [leaf for leaf in names if rule.reads(leaf)]
    meets = sorted({item.op for item in ex.walk(rule.canonical.roots) if item.op in _MEETING})
    words = (
        "besides gradients it reads " + ", ".join(names[leaf] for leaf in read)
        if read
        else "reads gradients alone"
    )
    words += f"; elements of a tensor meet in {', '.join(meets)}" if meets else "; elements do not meet"
    if not rule.reads("g"):
        others = f"; it reads {', '.join(names[leaf] for leaf in read)}" if read else ""
        words = f"does not read the gradient{others}"
    return Property("reads", "proved", [*(["g"] if rule.reads("g") else []), *read, *meets], words)


_MEETING = frozenset({"norm", "mean", "rms", "dot", "max_abs", "orthogonalize"})


def _at_zero(rule: Rule) -> Property:
    rng = np.random.default_rng(2)
    signal = np.abs(1 + 0.2 * rng.standard_normal(60 + LONG))
    signal[60:] = 0.0
    got = answer(rule, signal)[0]
    usual = float(np.median(np.abs(got[30:60])))
    if not np.isfinite(got).all():
        return Property("zero_gradient", "measured", None, "not finite once the gradient is zero")
    after = np.abs(got[60:]) / max(usual, 1e-300)
    if after.max() < 1e-9:
        return Property("zero_gradient", "measured", 0, "stops at once when the gradient is zero")
    below = np.flatnonzero(after < 0.1)
    resting = int(below[0]) if below.size and (after[below[0] :] < 0.1).all() else None
    if resting is None:
        text = f"goes on after {LONG} steps of zero gradient, at {100 * after[-1]:.3g} % of its usual size"
    else:
        text = f"below a tenth of its usual size after {resting} steps of zero gradient"
    return Property("zero_gradient", "measured", resting, text)


def _at_flip(rule: Rule) -> Property:
    rng = np.random.default_rng(3)
    signal = 1 + 0.05 * rng.standard_normal(60 + LONG)
    signal[60:] *= -1
    got = answer(rule, signal)[0]
    before = float(np.sign(np.median(got[40:60])))
    if not abs(before) > 0:
        return Property("sign_flip", "measured", None, "has no direction under a constant gradient")
    turned = np.flatnonzero(np.sign(got[60:]) == -before)
    if not turned.size:
        return Property(
            "sign_flip", "measured", None, f"does not turn within {LONG} steps of a turned gradient"
        )
    steps = int(turned[0])
    return Property(
        "sign_flip", "measured", steps, f"turns {_count(steps, 'step')} after the gradient has turned"
    )


def _at_outlier(rule: Rule) -> Property:
    rng = np.random.default_rng(4)
    calm = 1 + 0.1 * rng.standard_normal(60 + 2 * LONG)
    hit = calm.copy()
    hit[60] *= 1e3
    plain, got = answer(rule, np.stack([calm, hit]))
    usual = float(np.median(np.abs(plain[40:])))
    if not np.isfinite(got).all():
        return Property("outlier", "measured", None, "not finite after a gradient 1000 times too large")
    if not usual > 0:
        return Property("outlier", "measured", None, "no usual update to compare with")
    peak = float(np.abs(got[60:]).max() / usual)
    off = np.flatnonzero(np.abs(got[60:] - plain[60:]) > 0.1 * usual)
    lasting = int(off[-1]) + 1 if off.size else 0
    value: dict[str, Json] = {"peak": peak, "steps": lasting}
    words = f"a gradient 1000 times too large gives an update {peak:.3g} times the usual"
    if lasting >= 2 * LONG:
        words += f" and is still felt after {lasting} steps"
    else:
        words += f" and is felt for {_count(lasting, 'step')}"
    return Property("outlier", "measured", value, words)


def _first_step(rule: Rule) -> Property:
    got = np.abs(answer(rule, np.ones(LONG))[0])
    if not (np.isfinite(got).all() and got[-1] > 0):
        return Property("first_step", "measured", None, "no steady update under a constant gradient")
    ratio = float(got[0] / got[-1])
    return Property(
        "first_step",
        "measured",
        ratio,
        f"the first update is {ratio:.3g} times the steady one, under a constant gradient",
    )


def _count(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")


def _horizons(text: RuleText) -> list[Property]:
    """For how many steps each state remembers one gradient: until 1/e of the difference is left."""
    rule = text.rule.canonical
    names = slot_names(rule)
    rng = np.random.default_rng(5)
    signal = 1 + 0.1 * rng.standard_normal(LONG * 4)
    other = signal.copy()
    other[40] += 0.5
    found = []
    with np.errstate(all="ignore"):
        plain, moved = _states(rule, signal), _states(rule, other)
    for i, name in enumerate(names):
        apart = np.abs(moved[:, i] - plain[:, i])[40:]
        key = f"memory_{name}"
        if not np.isfinite(apart).all() or apart.max() == 0:
            found.append(Property(key, "measured", 0, f"{name}: one gradient leaves no mark"))
            continue
        peak = int(np.argmax(apart))
        gone = np.flatnonzero(apart[peak:] < apart[peak] / math.e)
        if gone.size:
            steps = peak + int(gone[0])
            found.append(
                Property(key, "measured", steps, f"{name}: remembers a gradient for {_count(steps, 'step')}")
            )
        else:
            left = format_number(float(f"{100 * apart[-1] / apart[peak]:.2g}"))
            words = f"{name}: {left} % of the mark of a gradient is left after {len(apart)} steps"
            found.append(Property(key, "measured", None, words))
    return found


def _states(rule: Rule, signal: Array) -> Array:
    """Values of all states of a canonical rule over a signal, (steps, states)."""
    program = compile_rule(rule)
    order = [s for kind in range(3) for s in program.slots if int(s.kind) == kind]
    w = [np.ones(1)]

    def context(t: int) -> StepContext:
        return StepContext(t=t, lr=1e-3, lr0=1e-3, progress=t / len(signal), hypers=rule.defaults)

    state = reference.init_state(program, w, context(1))
    rows = []
    for t, g in enumerate(signal):
        _, state = reference.update(program, state, [np.array([g])], w, context(t + 1))
        values = [
            *map(float, state.host),
            *map(float, state.scalar[0]),
            *(float(v[0]) for v in state.tensor[0]),
        ]
        rows.append([values[order.index(slot)] for slot in program.slots])
    return np.array(rows).reshape(len(signal), len(program.slots))
