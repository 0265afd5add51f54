"""Rules in which the order of overwriting, the kinds of values or the names are awkward."""

from __future__ import annotations

TRICKY: dict[str, str] = {
    "swap": """
a: state = 1
b: state = 2
old = a
update = a * g + b
a = b + 0 * g
b = old + 0 * g
""",
    "swap_bare": """
a: state = 1
b: state = 2
kept = a
update = a * g - b
a = b
b = kept
""",
    "swap_tensors": """
a: state = 1
b: state = 2
x = a
a = where(first, g, b)
b = where(first, w, x)
update = a - 2 * b
""",
    "chain": "update = g + prev(g) + prev(prev(g)) + prev(prev(prev(g)))",
    "new_and_old": """
beta: hyper(0, 1) = 0.9
update = ema(g, beta) - prev(ema(g, beta))
""",
    "hat_and_old": """
beta: hyper(0, 1) = 0.9
update = ema_hat(g, beta) - prev(ema_hat(g, beta))
""",
    "old_alias": """
m: state = 0
old = m
m = 0.9 * m + g
update = m + old
""",
    "old_through_where": """
m: state = 1
x = where(t > 3, m, g)
m = 0.5 * m + g
update = x * 2 + x
""",
    "old_through_orthogonalize": """
m: state = 1
x = orthogonalize(m)
m = 0.5 * m + g
update = x * x + x
""",
    "state_reads_itself_twice": """
m: state = 1
k: state = 2
m = 0.5 * m + sin(m) * g
k = k - k * g
update = m + k
""",
    "state_squares_itself": """
m: state = 0.5
k: state = 0.5
m = m * m
k = m * k - g * 0.1
update = g * m - k
""",
    "update_is_old": """
m: state = 1
update = m
m = 0.5 * m + g
""",
    "update_is_new": """
m: state = 1
m = 0.5 * m + g
update = m
""",
    "same_next": """
a: state = 1
b: state = 2
x = a * b
a = g * g
b = g * g
update = x + a
""",
    "state_is_leaf": """
k: state = 0
update = k + g
k = w
""",
    "state_of_state": """
a: state = 0
b: state = 0
update = a + b * g
b = a
a = g
""",
    "scalar_states": """
n: state = 0
update = g / (sqrt(n) + 1)
n = 0.5 * n + dot(g, g)
""",
    "scalar_swap": """
a: state = 0
b: state = 1
x = a
a = b
b = norm(g)
update = g * x + a
""",
    "host_states": """
p: state = 1
q: state = 2
update = g * p + q
p = p * 0.9
q = p / q
""",
    "host_old": """
p: state = 1
old = p
p = p * 0.9
update = g * p + old
""",
    "host_fibonacci": """
p: state = 1
q: state = 1
x = p
p = p + q
q = x
update = g * p / q
""",
    "constant_state": """
k: state = lr0
update = g * k
""",
    "init_expression": """
beta: hyper(0, 1) = 0.25
k: state = sqrt(beta) / lr0
update = g + k
k = k * 0.5 + g
""",
    "host_update": "update = 3 * t",
    "scalar_update": "update = norm(g)",
    "weights_alone": "update = w",
    "first_as_number": "update = g * first + (1 - first) * w",
    "progress": "update = g * (1 - progress)",
    "matrix": "update = where(is_matrix, orthogonalize(g), sign(g)) + is_matrix",
    "division_by_zero": "update = g * (1 / (t - 3)) + 1 / (first - 1)",
    "host_overflow": "update = g * exp(t * 100) + 2 ** (t * 100)",
    "host_invalid": "update = g * sqrt(3 - t) + log(5 - t) + asin(t) + (2 - t) ** 0.5 + sin(1 / (4 - t))",
    "host_nan_choice": """
x = log(2 - t)
update = where(x, g, w) + where(x < 0, 1, g) + minimum(x, 1) + sign(x)
""",
    "zeros_with_signs": """
m: state = 0
old = m
m = clip(g, -0.8, 1.3) / m
update = maximum(g, minimum(g, m) / sign(-old))
""",
    "infinite_state": """
m: state = 0
update = exp(-abs(lerp(g, m, 0.8)))
m = g / m
""",
    "average_near_zero": """
m: state = 0
update = square(g / (2.91e-05 + m))
m = lerp(g, m, 0.999545)
""",
    "numbers_meet_tensors": """
a = where(first, 1, g) + minimum(2, g) + maximum(g, 0.5) + atan2(g, 2) + hypot(3, g)
b = clip(g, -1, t) + clip(2, g, w) + where(g > 0, 1, 0.3) + (2 < g) + (g == g)
update = a + b + 2 ** g + lerp(1, g, 0.3)
""",
    "awkward_names": """
l: hyper(0, 1) = 0.5
params: hyper(0, 1) = 0.25
maximize: state = 0
torch = g * l
state_ = g * params
grad = torch + state_
float = grad * 2
maximize = maximize * 0.5 + float
update = maximize
""",
}
