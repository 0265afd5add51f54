"""Laws that are procedures: sums and products collected, weights normalised, ranges used.

Constants are added and multiplied as exact decimals, the way they are written: 1.1 · 0.1 − 0.1 is 0.01
here, and 1 − 0.9, which core folds to 0.09999999999999998, is read as 0.1 again. That is rounding made
good, at most 1e-12 relative; rounding 0.8997 to 0.9 would be a change of behaviour and is not done here.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.laws import ONE, ZERO
from ruleforge.core.spell import tidy
from ruleforge.simplify.facts import Facts, Range
from ruleforge.simplify.view import View, make, mentions

Sum = dict[Expr, Fraction]  # of coefficient times term; ONE stands for the constant term
MAX_WEIGHT_DIGITS = 4
_TANH_ONE = 20.0  # tanh is 1 in float64 beyond


def _fraction(item: Expr) -> Fraction:
    return _decimal(item.number)


@lru_cache(maxsize=4096)
def _decimal(value: float) -> Fraction:
    return Fraction(Decimal(repr(tidy(value))))


def _constant(value: Fraction) -> Expr:
    return ex.const(tidy(float(value)))


def _size(item: Expr) -> int:
    return len(ex.walk([item]))


def _digits(item: Expr) -> int:
    """Characters that the constants of a term take."""
    return sum(len(repr(node.number)) for node in ex.walk([item]) if node.op == "const")


def _sane(value: Fraction) -> bool:
    return value == 0 or 1e-250 < abs(value) < 1e250


# sums


def as_sum(item: Expr) -> Sum:
    """A term as coefficients of terms that are no sums."""
    found: Sum = {}
    pending = [(item, Fraction(1))]
    while pending:
        node, weight = pending.pop()
        args = node.args
        match node.op:
            case "const":
                found[ONE] = found.get(ONE, Fraction(0)) + weight * _fraction(node)
            case "add":
                pending += [(args[1], weight), (args[0], weight)]
            case "sub":
                pending += [(args[1], -weight), (args[0], weight)]
            case "neg":
                pending.append((args[0], -weight))
            case "mul" if args[0].op == "const":
                pending.append((args[1], weight * _fraction(args[0])))
            case "mul" if args[1].op == "const":
                pending.append((args[0], weight * _fraction(args[1])))
            case "div" if args[1].op == "const" and args[1].number != 0:
                pending.append((args[0], weight / _fraction(args[1])))
            case "lerp" if args[2].op == "const":
                share = _fraction(args[2])
                pending += [(args[1], weight * share), (args[0], weight * (1 - share))]
            case _:
                found[node] = found.get(node, Fraction(0)) + weight
    return {node: weight for node, weight in found.items() if weight != 0}


def put_sum(terms: Sum) -> Expr:
    """The shortest spelling of a sum."""
    if not terms:
        return ZERO
    spelled = [_plain_sum(terms)]
    sizes = {abs(weight) for weight in terms.values()}
    if len(sizes) == 1 and sizes != {Fraction(1)} and ONE not in terms:
        size = sizes.pop()
        rest = _plain_sum({node: weight / size for node, weight in terms.items()})
        spelled.append(make("mul", _constant(size), rest))
    if len(terms) == 2 and ONE not in terms and sum(terms.values()) == 1:
        spelled.append(_average(terms))
    return min(spelled, key=_size)


def _plain_sum(terms: Sum) -> Expr:
    ordered = sorted(terms.items(), key=lambda pair: pair[1] < 0)  # stable: positive terms first
    total: Expr | None = None
    for node, weight in ordered:
        size = abs(weight)
        if node is ONE:
            part = _constant(size)
        else:
            part = node if size == 1 else make("mul", _constant(size), node)
        if total is None:
            total = make("neg", part) if weight < 0 else part
        else:
            total = make("sub" if weight < 0 else "add", total, part)
    return total if total is not None else ZERO


def _average(terms: Sum) -> Expr:
    """Two weights that sum to 1 as `lerp`, the larger weight in its last place."""
    (x, _), (y, larger) = sorted(terms.items(), key=lambda pair: pair[1])
    return make("lerp", x, y, _constant(larger))


def collect_sum(item: Expr, facts: Facts) -> Expr | None:
    """Like terms added, constants folded, weights that sum to 1 as `lerp`."""
    return _collected_sum(item)


@lru_cache(maxsize=4096)
def _collected_sum(item: Expr) -> Expr | None:
    if item.op not in ("add", "sub", "neg", "mul", "div", "lerp"):
        return None
    terms = as_sum(item)
    if (len(terms) == 1 and next(iter(terms)) is item) or not all(map(_sane, terms.values())):
        return None
    made = put_sum(terms)
    return made if _size(made) < _size(item) else None


def _normalised(item: Expr) -> Expr | None:
    """A positive combination of two terms as their weighted average, if the weight is short."""
    terms = as_sum(item)
    if ONE in terms or not all(weight > 0 for weight in terms.values()):
        return None
    if len(terms) == 1:
        return next(iter(terms)) if item not in terms else None
    if len(terms) != 2:
        return None
    total = sum(terms.values())
    if total == 1 and item.op == "lerp":
        return None
    shares = {node: weight / total for node, weight in terms.items()}
    larger = float(max(shares.values()))
    if not 0 < larger < 1 or len(f"{larger:.15g}") > MAX_WEIGHT_DIGITS + 2:
        return None
    made = _average(shares)
    return made if _size(made) < _size(item) else None


def weights_under_sign(item: Expr, facts: Facts) -> Expr | None:
    """`sign(c * x + d * y)` as `sign(lerp(x, y, d / (c + d)))`, for c, d > 0."""
    if item.op != "sign":
        return None
    made = _normalised(item.args[0])
    return make("sign", made) if made is not None else None


def weights_of_update(update: Expr) -> Expr | None:
    """The update up to a positive factor: weights that sum to 1, or one weight less."""
    made = _normalised(update)
    if made is not None:
        return made
    terms = as_sum(update)
    if ONE in terms or len(terms) < 2 or not all(map(_sane, terms.values())):
        return None
    sizes = dict.fromkeys(abs(weight) for weight in terms.values())
    spelled = [put_sum({node: weight / size for node, weight in terms.items()}) for size in sizes]
    best = min(spelled, key=lambda made: (_size(made), _digits(made)))
    return best if _size(best) < _size(update) else None


# products


Product = dict[Expr, int]  # of exponent of each factor


def as_product(item: Expr) -> tuple[Fraction, Product]:
    """A term as a constant times powers of terms that are no products."""
    factor = Fraction(1)
    powers: Product = {}
    pending = [(item, 1)]
    while pending:
        node, power = pending.pop()
        match node.op:
            case "const" if node.number != 0:
                factor *= _fraction(node) ** power
            case "mul":
                pending += [(node.args[1], power), (node.args[0], power)]
            case "div":
                pending += [(node.args[1], -power), (node.args[0], power)]
            case "neg":
                factor = -factor
                pending.append((node.args[0], power))
            case _:
                powers[node] = powers.get(node, 0) + power
    return factor, {node: power for node, power in powers.items() if power}


def put_product(factor: Fraction, powers: Product) -> Expr:
    """A short spelling of a product."""
    above = _plain_product({node: power for node, power in powers.items() if power > 0})
    below = _plain_product({node: -power for node, power in powers.items() if power < 0})
    return _with_factor(factor, above, below)


def collect_product(item: Expr, facts: Facts) -> Expr | None:
    """Equal factors above and below cancelled, constants multiplied into one."""
    if item.op not in ("mul", "div"):
        return None
    factor, powers = as_product(item)
    if not _sane(factor):
        return None
    made = put_product(factor, powers)
    return made if _size(made) < _size(item) else None


def _plain_product(powers: Product) -> Expr:
    made = ONE
    for node, power in powers.items():
        made = make("mul", made, _whole_power(node, power))
    return made


def _whole_power(node: Expr, power: int) -> Expr:
    if power == 1:
        return node
    half = _whole_power(node, power // 2)
    square = make("mul", half, half)
    return make("mul", square, node) if power % 2 else square


def _with_factor(factor: Fraction, above: Expr, below: Expr) -> Expr:
    size, sign = _constant(abs(factor)), factor < 0
    if below is ONE:
        made = make("mul", size, above)
    elif above is ONE:
        return make("div", ex.const(-size.number) if sign else size, below)
    else:
        made = make("mul", size, make("div", above, below))
    inverse = _constant(1 / abs(factor))
    if above is not ONE and len(repr(inverse)) < len(repr(size)):
        made = make("div", make("div", above, below), inverse)
    return make("neg", made) if sign else made


# shared parts


def shared_parts(view: View) -> Iterator[View]:
    """A sum or product that holds another one of the rule, written with it."""
    sums = {item: as_sum(item) for item in view.nodes if item.op in ("add", "sub")}
    for whole, terms in sums.items():
        for part, inner in sums.items():
            if 1 < len(inner) < len(terms) and _apart(whole, part) and set(inner) <= set(terms):
                ratios = {terms[node] / inner[node] for node in inner}
                if len(ratios) == 1:
                    rest = {node: weight for node, weight in terms.items() if node not in inner}
                    yield view.swapped({whole: put_sum({part: ratios.pop(), **rest})})
    products = {item: as_product(item) for item in view.nodes if item.op in ("mul", "div")}
    for whole, (factor, powers) in products.items():
        for part, (inner_factor, inner_powers) in products.items():
            left = {node: powers.get(node, 0) - power for node, power in inner_powers.items()}
            smaller = all(rest * _sign_of(inner_powers[node]) >= 0 for node, rest in left.items())
            if smaller and inner_powers and inner_powers != powers and _apart(whole, part):
                rest_powers = {node: power for node, power in {**powers, **left}.items() if power}
                made = put_product(factor / inner_factor, {part: 1, **rest_powers})
                yield view.swapped({whole: made})


def _apart(whole: Expr, part: Expr) -> bool:
    return not mentions(whole, part) and not mentions(part, whole)


def _sign_of(number: int) -> int:
    return 1 if number > 0 else -1


# ranges


def decided(item: Expr, facts: Facts) -> Expr | None:
    """A term that its arguments' ranges decide: `abs(x)` of what is never negative is x."""
    if not item.args:
        return None
    here = facts(item)
    if here.low == here.high and item.op not in ("prev", "running_max"):
        return ex.const(here.low)
    args = item.args
    r = tuple(facts(arg) for arg in args)
    match item.op:
        case "sign" if r[0].positive or r[0].negative:
            return ONE if r[0].positive else ex.const(-1.0)
        case "abs" if r[0].not_negative:
            return args[0]
        case "abs" if r[0].high <= 0:
            return make("neg", args[0])
        case "minimum" | "clip" if r[0].high <= r[-1].low:
            return args[0] if item.op == "minimum" else make("maximum", args[0], args[1])
        case "minimum" if r[1].high <= r[0].low:
            return args[1]
        case "maximum" | "clip" if r[0].low >= r[1].high:
            return args[0] if item.op == "maximum" else make("minimum", args[0], args[2])
        case "maximum" if r[1].low >= r[0].high:
            return args[1]
        case "running_max" if r[0].high <= 0:
            return ZERO
        case "where" if r[0].positive or r[0].negative:
            return args[1]
        case "tanh" if abs(here.high) == 1 and (r[0].low >= _TANH_ONE or r[0].high <= -_TANH_ONE):
            return ONE if r[0].low > 0 else ex.const(-1.0)
        case "gt" | "ge" | "lt" | "le":
            return _decided_comparison(item.op, *r)
    return None


def _decided_comparison(op: str, a: Range, b: Range) -> Expr | None:
    if op in ("lt", "le"):
        a, b, op = b, a, {"lt": "gt", "le": "ge"}[op]
    touching = a.open_low or b.open_high
    if a.low > b.high or (a.low == b.high and (op == "ge" or touching)):
        return ONE
    touching = a.open_high or b.open_low
    if a.high < b.low or (a.high == b.low and (op == "gt" or touching)):
        return ZERO
    return None


# states


def trace_as_average(item: Expr, facts: Facts) -> Expr | None:
    """`trace((1 - c) * x, c)` as `ema(x, c)`, for a constant c."""
    if item.op != "trace" or item.args[1].op != "const" or not 0 < item.args[1].number < 1:
        return None
    terms = as_sum(item.args[0])
    if not terms or not all(map(_sane, terms.values())):
        return None
    made = make("ema", _shared_out(terms, item.args[1].number), item.args[1])
    return made if _size(made) < _size(item) else None


def _shared_out(terms: Sum, keep: float) -> Expr:
    """A sum divided by `1 - keep`."""
    share = 1 - Fraction(Decimal(repr(keep)))
    return put_sum({node: weight / share for node, weight in terms.items()})


def average_states(view: View) -> Iterator[View]:
    """A state `a·s + rest` with a constant `a` as an average or a decaying sum of the rest."""
    inits = dict(view.inits)
    for index, value in view.nexts:
        old = ex.state(index)
        terms = as_sum(value)
        keep = float(terms.pop(old, Fraction(0)))
        if inits[index] is not ZERO or not terms or not 0 < keep <= 1 or not all(map(_sane, terms.values())):
            continue
        if any(mentions(node, old) for node in terms):
            continue
        if keep == 1:
            yield _folded(view, index, make("total", put_sum(terms)))
            continue
        weight = ex.const(keep)
        yield _folded(view, index, make("ema", _shared_out(terms, keep), weight))
        yield _folded(view, index, make("trace", put_sum(terms), weight))


def _folded(view: View, index: int, term: Expr) -> View:
    return view.without_state(index, make("prev", term), term)


def resting_states(view: View) -> Iterator[View]:
    """A state that never changes, as the number it starts from."""
    for index, value in view.nexts:
        if value is ex.state(index):
            start = dict(view.inits)[index]
            yield view.without_state(index, start, start)
