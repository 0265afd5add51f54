"""Rules without an upstream class, held to the known rules that they are put together from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ruleforge.core.known import known
from ruleforge.core.ops import OPS
from ruleforge.core.text import RuleText

N_STEPS = 12
MATRIX, VECTOR = (6, 9), (7,)


def updates(rule: RuleText, shape: tuple[int, ...], **hypers: float) -> list[np.ndarray]:
    """The rule's updates on one float64 tensor, step by step, whatever the weights."""
    rng = np.random.default_rng(3)
    weight = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = rule.optimizer([weight], lr=1.0, **hypers)
    found = []
    for _ in range(N_STEPS):
        weight.data.zero_()
        weight.grad = torch.from_numpy(rng.standard_normal(shape))
        optimizer.step()
        found.append(-weight.detach().numpy().copy())
    return found


@pytest.mark.parametrize("name", ["muon_adamw", "expert_muon"])
def test_a_matrix_gets_muons_direction_at_the_rms_of_adam(name: str) -> None:
    for mine, muon in zip(
        updates(known(name).rule, MATRIX), updates(known("muon").rule, MATRIX), strict=True
    ):
        assert np.allclose(mine, 0.2 * muon / np.sqrt(np.mean(muon**2)), rtol=1e-6)
        # What the paper multiplies by, as far as the iterations get to an orthogonal matrix.
        assert np.allclose(mine, 0.2 * np.sqrt(max(MATRIX)) * muon, rtol=0.3, atol=1e-12)


def test_everything_else_gets_adam_or_cautious_adam() -> None:
    betas = {"beta1": 0.9, "beta2": 0.95}
    plain = zip(
        updates(known("muon_adamw").rule, VECTOR), updates(known("adam").rule, VECTOR, **betas), strict=True
    )
    assert all(np.allclose(mine, adam, rtol=1e-12) for mine, adam in plain)
    masked = zip(
        updates(known("expert_muon").rule, VECTOR),
        updates(known("cautious_adamw").rule, VECTOR, beta2=0.99),
        strict=True,
    )
    assert all(np.allclose(mine, adam, rtol=1e-12) for mine, adam in masked)


def test_the_experts_nadam_is_masked_nadam() -> None:
    rule, nadam = known("expert_nadam").rule, known("nadam_simple").rule
    rng = np.random.default_rng(3)
    for mine, plain in zip(updates(rule, VECTOR), updates(nadam, VECTOR, beta2=0.99), strict=True):
        gradient = rng.standard_normal(VECTOR)
        kept = plain * gradient > 0
        assert np.allclose(mine, plain * kept / max(kept.mean(), 1e-3), rtol=1e-12)


@pytest.mark.parametrize("shape", [MATRIX, VECTOR])
def test_the_found_rule_is_a_short_memorys_direction_at_a_long_ones_length(shape: tuple[int, ...]) -> None:
    rule, rng = known("two_memories").rule, np.random.default_rng(3)
    beta1, beta2, beta3, eps = (hyper.default for hyper in rule.rule.hypers)

    def equalized(x: np.ndarray) -> np.ndarray:
        if x.ndim != 2:
            return x
        along = OPS["orthogonalize"].meaning(x)
        return along * np.linalg.norm(x) / np.linalg.norm(along)

    short, far, square = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for t, mine in enumerate(updates(rule, shape), start=1):
        g = rng.standard_normal(shape)
        short = beta1 * short + (1 - beta1) * g / np.linalg.norm(g)
        far, square = beta2 * far + (1 - beta2) * g, beta3 * square + (1 - beta3) * g * g
        step = far / (1 - beta2**t) / (np.sqrt(square / (1 - beta3**t)) + eps)
        direction = equalized(short / (1 - beta1**t))
        given = direction * np.linalg.norm(step) / np.linalg.norm(direction)
        given = given / (1 + np.abs(given))
        assert np.allclose(mine, equalized(given), rtol=1e-9)
