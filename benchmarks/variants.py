"""Seventy rules around the best known ones, written by hand: what a search meets where it lives.

They vary the masks, the bends, the second moment and the memory of cautious Adam, NAdam and Grams one at a
time, and what is made orthogonal of a matrix. `benchmarks/rungs.py --rules variants` asks which cheap
training tells them apart. No search is seeded with them.
"""

from __future__ import annotations

from typing import Final

NADAM: Final = "lerp(g, ema_hat(g, beta1), beta1)"
MOMENTUM: Final = "ema_hat(g, beta1)"
ROOT: Final = "sqrt(ema_hat(square(g), beta2)) + 1e-8"
FIRST: Final = "hyper(0, 1, one_minus_log)"


def _rule(
    tail: str, m: str = NADAM, v: str = ROOT, beta1: float = 0.9, beta2: float = 0.99, head: str = ""
) -> str:
    betas = f"beta1: {FIRST} = {beta1}\nbeta2: {FIRST} = {beta2}\n"
    return f"{head}{betas}m = {m}\nv = {v}\na = m / v\n{tail}\n"


def _cautious(bent: str, more: str = "", **parts: str | float) -> str:
    """`bent` where the average agrees with the gradient, scaled up for the share left out."""
    tail = f"mask = agree(a, g)\nupdate = {bent} * mask / maximum(mean(mask), 1e-3){more}"
    return _rule(tail, **parts)  # type: ignore[arg-type]


def _scaled(step: str) -> str:
    """Steps of a whole tensor that grow while updates agree with what follows."""
    return _rule(f"s = s * exp({step})\nupdate = s * a", head="s: state = 1\n")


def _matrix(matrix: str, of: str = "m", beta1: float = 0.9) -> str:
    """`matrix` for matrices, where `n` is `of` made orthogonal, and cautious NAdam, `c`, for the rest."""
    tail = f"mask = agree(a, g)\nc = a * mask / maximum(mean(mask), 1e-3)\no = orthogonalize({of})\n"
    return _rule(f"{tail}n = 0.2 * o / (rms(o) + 1e-8)\nupdate = where(is_matrix, {matrix}, c)", beta1=beta1)


MASKED: Final = "n * agree(n, g) / maximum(mean(agree(n, g)), 1e-3)"
SIGNED_SQRT: Final = "sign(a) * sqrt(abs(a))"
COSINE: Final = "dot(g, prev(a)) / (norm(g) * norm(prev(a)) + 1e-12)"
AGREEMENT: Final = "(mean(agree(g, prev(a))) - 0.5)"

VARIANTS: Final[dict[str, str]] = {
    "nadam": _rule("update = a"),
    "cautious": _cautious("a", m=MOMENTUM),
    "cautious_nadam": _cautious("a"),
    **{
        f"cautious_nadam_{b1}_{b2}": _cautious("a", beta1=b1, beta2=b2)
        for b1, b2 in ((0.8, 0.99), (0.95, 0.99), (0.9, 0.95), (0.9, 0.97), (0.9, 0.995), (0.85, 0.95))
    },
    "mask_alone": _rule("update = a * agree(a, g)"),
    "mask_squared": _rule("mask = agree(a, g)\nupdate = a * mask * mean(mask)"),
    "half_masked": _rule("update = a * (agree(a, g) + 0.3)"),
    "soft_mask": _rule("k = sigmoid(3 * a * g / v)\nupdate = a * k / mean(k)"),
    "slow_memory": _cautious(
        "a", m="ema_hat(g, 0.8) + 0.5 * ema_hat(g, beta3)", head=f"beta3: {FIRST} = 0.98\n"
    ),
    "decayed": _cautious("a", " + 0.01 * w"),
    "ending": _cautious("a", " * (1.02 - progress)"),
    "difference": _cautious("a", m="ema_hat(g + 0.5 * where(first, 0 * g, g - prev(g)), beta1)"),
    "damped_root": _cautious("m / (v + 0.3 * rms(v))"),
    "half_preconditioned": _cautious("m / sqrt(v * rms(v))"),
    "clipped": _cautious("clip(a, -1, 1)"),
    "grams": _rule("update = sign(g) * abs(a)", m=MOMENTUM),
    "grams_nadam": _rule("update = sign(g) * abs(a)"),
    "grams_sqrt": _rule("update = sign(g) * sqrt(abs(a))"),
    "grams_sqrt_momentum": _rule("update = sign(g) * sqrt(abs(a))", m=MOMENTUM),
    "sign_between": _rule("update = sign(lerp(g, m, 0.5)) * abs(a)"),
    "sign_between_sqrt": _rule("update = sign(lerp(g, m, 0.5)) * sqrt(abs(a))", beta2=0.95),
    "sign_added": _rule("update = a + 0.5 * sign(g) * abs(a)", m=MOMENTUM),
    "geometric_mean": _rule("update = sign(g) * sqrt(maximum(g * m, 0)) / v", m=MOMENTUM),
    "geometric_mean_short": _rule("update = sign(g) * sqrt(maximum(g * m, 0)) / v", m=MOMENTUM, beta2=0.95),
    "geometric_mean_sqrt": _rule("update = sign(g) * sqrt(sqrt(maximum(g * m, 0)) / v)", m=MOMENTUM),
    "smaller_of_two": _rule("update = sign(g) * minimum(abs(g), abs(m)) / v * agree(m, g)", m=MOMENTUM),
    "harmonic_mean": _rule(
        "update = sign(g) * maximum(g * m, 0) / (abs(g) + abs(m) + 1e-12) / v", m=MOMENTUM
    ),
    "sqrt": _cautious(SIGNED_SQRT),
    "sqrt_momentum": _cautious(SIGNED_SQRT, m=MOMENTUM),
    "sqrt_momentum_short": _cautious(SIGNED_SQRT, m=MOMENTUM, beta2=0.95),
    "sqrt_short": _cautious(SIGNED_SQRT, beta2=0.95),
    "sqrt_middle": _cautious(SIGNED_SQRT, beta2=0.97),
    "sqrt_long": _cautious(SIGNED_SQRT, beta2=0.999),
    "sqrt_beta1_0.95": _cautious(SIGNED_SQRT, beta1=0.95),
    "sqrt_beta1_0.8": _cautious(SIGNED_SQRT, beta1=0.8),
    "sqrt_unscaled": _rule(f"update = {SIGNED_SQRT} * agree(a, g)"),
    "sqrt_unmasked": _rule(f"update = {SIGNED_SQRT}"),
    "sqrt_half_masked": _rule(f"update = {SIGNED_SQRT} * (agree(a, g) + 0.2)"),
    "sqrt_twice_masked": _rule(f"update = {SIGNED_SQRT} * agree(a, g) * (agree(g, prev(g)) + 0.5)"),
    "sqrt_decayed": _cautious(SIGNED_SQRT, " + 0.01 * w"),
    "sqrt_of_absolute": _cautious(SIGNED_SQRT, v="ema_hat(abs(g), beta2) + 1e-8"),
    "sqrt_of_momentum": _cautious(SIGNED_SQRT, v="sqrt(ema_hat(square(m), beta2)) + 1e-8"),
    "cbrt": _cautious("cbrt(a)"),
    "cbrt_momentum": _cautious("cbrt(a)", m=MOMENTUM),
    "two_thirds": _cautious("square(cbrt(a)) * sign(a)"),
    "softsign": _cautious("a / (1 + abs(a))"),
    "softsign_hard": _cautious("a / (0.3 + abs(a))"),
    "sqrt_softened": _cautious("a / sqrt(abs(a) + 0.1)"),
    "tanh": _cautious("tanh(3 * a)"),
    **{f"aligned_{k}": _scaled(f"{k} * {COSINE}") for k in (0.02, 0.05)},
    **{f"agreeing_{k}": _scaled(f"{k} * {AGREEMENT}") for k in (0.02, 0.05)},
    "muon": _matrix("n", beta1=0.95),
    "muon_short": _matrix("n", beta1=0.8),
    "muon_masked": _matrix(MASKED, beta1=0.9),
    "muon_of_adam": _matrix("n", of="a"),
    "muon_of_adam_masked": _matrix(MASKED, of="a"),
    "muon_beside_adam": _matrix("n + 0.5 * c"),
    "muon_of_adam_beside_it": _matrix("n + 0.5 * c", of="a"),
    "a_little_muon": _matrix("c + 0.3 * n"),
    "muon_over_its_size": _matrix("0.2 * n / (sqrt(ema_hat(n * n, 0.95)) + 1e-8)"),
    "muon_of_adams_size": _matrix("5 * n * rms(a)"),
    "muon_of_adams_size_masked": _matrix(f"5 * rms(a) * ({MASKED})"),
}
