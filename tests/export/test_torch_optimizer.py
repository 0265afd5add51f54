"""What every torch optimizer does besides its rule, for exported classes and for `RuleOptimizer`."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR

from ruleforge.core.known import KNOWN
from ruleforge.core.text import RuleText
from ruleforge.optim import RuleOptimizer
from tests.export.harness import load_class

RULES = {
    "adam": KNOWN["adam"].rule,
    "lion": KNOWN["lion"].rule,
    "rprop": KNOWN["rprop"].rule,  # starts from lr0, reads lr
    "novograd": KNOWN["novograd"].rule,  # a per-tensor scalar state
    "nadam": KNOWN["nadam"].rule,  # a host state
}
SCHEDULED = RuleText.parse("update = g * (1 - 0.5 * progress)")

Make = Callable[..., torch.optim.Optimizer]


@pytest.fixture(params=["exported", "in_place"])
def maker(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[RuleText], Make]:
    """From a rule to a constructor, by either road."""

    def make(text: RuleText) -> Make:
        if request.param == "exported":
            return load_class(text, tmp_path)
        return lambda params, **options: RuleOptimizer(params, text, **options)

    return make


def model(seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def train(
    net: torch.nn.Module, optimizer: Any, steps: int, scheduler: Any = None, seed: int = 1
) -> list[float]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 4, generator=rng)
    y = x.sum(1, keepdim=True).sin()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(float(loss.detach()))
    return losses


def values(net: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().ravel() for p in net.parameters()])


@pytest.mark.parametrize("name", RULES)
def test_it_trains(maker: Any, name: str) -> None:
    net = model()
    losses = train(net, maker(RULES[name])(net.parameters(), lr=0.01), 40)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", RULES)
def test_state_dict_round_trip(maker: Any, name: str) -> None:
    """Through a file, as checkpoints go; training continues as if nothing had happened."""
    make = maker(RULES[name])
    whole, halved = model(), model()
    first = make(whole.parameters(), lr=0.01)
    train(whole, first, 10)
    optimizer = make(halved.parameters(), lr=0.01)
    train(halved, optimizer, 5)
    stored = io.BytesIO()
    torch.save({"net": halved.state_dict(), "optimizer": optimizer.state_dict()}, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=True)
    fresh = model(seed=7)
    fresh.load_state_dict(loaded["net"])
    resumed = make(fresh.parameters(), lr=0.5)
    resumed.load_state_dict(loaded["optimizer"])
    train(fresh, resumed, 5)
    assert torch.equal(values(fresh), values(whole))


@pytest.mark.parametrize("name", RULES)
def test_deepcopy_goes_its_own_way(maker: Any, name: str) -> None:
    net = model()
    optimizer = maker(RULES[name])(net.parameters(), lr=0.01)
    train(net, optimizer, 3)
    twin_net, twin = copy.deepcopy((net, optimizer))
    train(twin_net, twin, 3)
    train(net, optimizer, 3)
    assert torch.equal(values(net), values(twin_net))
    assert twin.param_groups[0]["params"][0] is next(twin_net.parameters())


def test_groups_have_their_own_values(maker: Any) -> None:
    make = maker(RULES["adam"])
    net, alone = model(), [model(), model()]
    grouped = make(
        [
            {"params": net[0].parameters(), "lr": 0.02, "weight_decay": 0.1, "beta1": 0.5},
            {"params": net[2].parameters()},
        ],
        lr=0.01,
        weight_decay=0.0,
    )
    singles = [
        make(alone[0][0].parameters(), lr=0.02, weight_decay=0.1, beta1=0.5),
        make(alone[1][2].parameters(), lr=0.01),
    ]
    for step in range(5):
        for n, part in enumerate(alone):
            layer = (0, 2)[n]
            for ours, theirs in zip(net[layer].parameters(), part[layer].parameters(), strict=True):
                gradient = torch.randn(ours.shape, generator=torch.Generator().manual_seed(step))
                ours.grad, theirs.grad = gradient, gradient.clone()
            singles[n].step()
        grouped.step()
    assert torch.equal(values(net[0]), values(alone[0][0]))
    assert torch.equal(values(net[2]), values(alone[1][2]))


def test_a_group_added_later(maker: Any) -> None:
    p, q = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = maker(RULES["rprop"])([p], lr=0.5)
    optimizer.add_param_group({"params": [q], "lr": 0.25})
    for w in (p, q):
        w.grad = torch.ones(2)
    optimizer.step()
    assert p.tolist() == [0.5, 0.5]  # the first step is the group's own initial lr
    assert q.tolist() == [0.75, 0.75]
    with pytest.raises(ValueError, match="Invalid learning rate: -1"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": -1})
    assert len(optimizer.param_groups) == 2


def test_closure(maker: Any) -> None:
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = maker(RULES["lion"])([p], lr=0.5)
    calls = []

    def closure() -> torch.Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        calls.append(float(loss.detach()))
        return loss

    assert optimizer.step(closure).detach() == 5.0
    assert calls == [5.0]
    assert p.tolist() == [0.5, -1.5]
    assert optimizer.step() is None


@pytest.mark.parametrize("name", RULES)
def test_maximize_mirrors(maker: Any, name: str) -> None:
    make = maker(RULES[name])
    p, q = (torch.nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2))
    up, down = make([p], lr=0.01, maximize=True), make([q], lr=0.01)
    for step in range(5):
        gradient = torch.randn(2, generator=torch.Generator().manual_seed(step))
        p.grad, q.grad = -gradient, gradient
        up.step()
        down.step()
    assert torch.equal(p, q)


@pytest.mark.parametrize("name", ["adam", "rprop"])
@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: LambdaLR(o, lambda t: min(1.0, (t + 1) / 3)),
        lambda o: CosineAnnealingLR(o, 10),
        lambda o: OneCycleLR(o, 0.02, total_steps=12, cycle_momentum=False),
    ],
    ids=["lambda", "cosine", "one_cycle"],
)
def test_schedulers(maker: Any, name: str, schedule: Any) -> None:
    """The lr that a rule reads is the scheduled one, and lr0 the one it was built with."""
    net, manual = model(), model()
    make = maker(RULES[name])
    optimizer = make(net.parameters(), lr=0.01)
    scheduler = schedule(optimizer)
    twin = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.01)
    lrs = schedule(twin)
    by_hand = make(manual.parameters(), lr=0.01)
    assert twin.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for _ in range(8):
        by_hand.param_groups[0]["lr"] = twin.param_groups[0]["lr"]
        train(manual, by_hand, 1)
        train(net, optimizer, 1, scheduler)
        twin.step()
        lrs.step()
    assert torch.equal(values(net), values(manual))
    assert not torch.equal(values(net), values(model()))


def test_rules_that_need_the_length_of_training(maker: Any) -> None:
    make = maker(SCHEDULED)
    p = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="needs total_steps"):
        make([p], lr=1.0)
    with pytest.raises(ValueError, match="Invalid total_steps: 0"):
        make([p], lr=1.0, total_steps=0)
    optimizer = make([p], lr=1.0, total_steps=2)
    moved = []
    for _ in range(3):
        before = p.item()
        p.grad = torch.ones(1)
        optimizer.step()
        moved.append(before - p.item())
    assert moved == [0.75, 0.5, 0.5]  # beyond the end, progress stays 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "Invalid learning rate: -1.0"),
        ({"lr": float("nan")}, "Invalid learning rate: nan"),
        ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
        ({"beta1": 1.0}, "Invalid beta1: 1.0"),
        ({"beta2": -0.5}, "Invalid beta2: -0.5"),
        ({"eps": 0.0}, "Invalid eps: 0.0"),
        ({"eps": float("nan")}, "Invalid eps: nan"),
    ],
)
def test_values_out_of_range(maker: Any, options: dict[str, float], message: str) -> None:
    p = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=message):
        maker(RULES["adam"])([p], **options)
    with pytest.raises(ValueError, match=message):
        maker(RULES["adam"])([{"params": [p], **options}])


def test_unknown_hyperparameter(maker: Any) -> None:
    with pytest.raises(TypeError, match="betta1"):
        maker(RULES["adam"])([torch.nn.Parameter(torch.ones(1))], betta1=0.5)


def test_no_parameters(maker: Any) -> None:
    with pytest.raises(ValueError, match="empty parameter list"):
        maker(RULES["adam"])([], lr=0.1)


def test_empty_group_and_missing_gradient(maker: Any) -> None:
    p, idle = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = maker(RULES["adam"])([{"params": []}, {"params": [p, idle]}], lr=0.1)
    optimizer.step()
    assert not optimizer.state
    p.grad = torch.ones(2)
    optimizer.step()
    assert idle.tolist() == [1.0, 1.0]
    assert p.tolist() != [1.0, 1.0]
    assert len(optimizer.state) == 1


@pytest.mark.parametrize("name", ["adam", "novograd", "cautious_lion", "normalized_gd", "muon"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1)])
def test_odd_shapes(maker: Any, name: str, shape: tuple[int, ...]) -> None:
    p = torch.nn.Parameter(torch.ones(shape))
    optimizer = maker(KNOWN[name].rule)([p], lr=0.1)
    for _ in range(3):
        p.grad = torch.ones(shape)
        optimizer.step()
    assert p.shape == shape
    assert torch.isfinite(p).all()
    scalars = [v for v in optimizer.state[p].values() if isinstance(v, torch.Tensor)]
    assert all(torch.isfinite(v).all() for v in scalars)


def test_sparse_gradients_are_refused(maker: Any) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3).to_sparse()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        maker(RULES["adam"])([p]).step()


def test_complex_parameters_are_refused_in_place() -> None:
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    p.grad = torch.ones(3, dtype=torch.complex64)
    with pytest.raises(RuntimeError, match="does not support complex parameters"):
        RuleOptimizer([p], RULES["adam"]).step()


@pytest.mark.parametrize("name", ["lion", "signsgd", "cautious_lion", "rprop", "grams", "adam"])
def test_a_nan_in_a_gradient_is_not_hidden(maker: Any, name: str) -> None:
    """Documented behaviour: it reaches the states and the weights that it concerns, sign rules included."""
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = maker(KNOWN[name].rule)([p], lr=0.1)
    for gradient in ([1.0, 1.0, 1.0], [1.0, float("nan"), 1.0], [1.0, 1.0, 1.0]):
        p.grad = torch.tensor(gradient)
        optimizer.step()
    assert torch.isnan(p[1])
    if name not in ("cautious_lion",):  # its mean runs over the whole tensor
        assert torch.isfinite(p[[0, 2]]).all()


def test_half_precision_keeps_its_dtype(maker: Any) -> None:
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = maker(RULES["novograd"])([p], lr=0.125)
    p.grad = torch.ones(4, dtype=torch.bfloat16)
    optimizer.step()
    assert p.dtype == torch.bfloat16
    states = {name: v for name, v in optimizer.state[p].items() if isinstance(v, torch.Tensor)}
    assert all(v.dtype == p.dtype for name, v in states.items() if name != "step")


def test_gradients_are_left_alone(maker: Any) -> None:
    """Also where a state holds the last gradient: it must not be the same memory."""
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = maker(RuleText.parse("update = 2 * g - prev(g)"))([p], lr=0.1, maximize=True)
    p.grad = torch.tensor([1.0, 2.0, 3.0])
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    assert optimizer.state[p]["prev_grad"].tolist() == [-1.0, -2.0, -3.0]


def test_rules_give_optimizers() -> None:
    net, twin, named = model(), model(), model()
    text = KNOWN["lion"].rule
    train(net, text.rule.optimizer(net.parameters(), lr=0.01), 5)
    train(twin, RuleOptimizer(twin.parameters(), str(text), lr=0.01), 5)
    train(named, RuleOptimizer(named.parameters(), text, lr=0.01, beta1=0.5), 5)
    assert torch.equal(values(net), values(twin))
    assert not torch.equal(values(net), values(named))


def test_hypers_reach_the_right_places() -> None:
    """The canonical rule numbers hyperparameters otherwise than the text does."""
    text = RuleText.parse(
        "a: hyper(0, 9) = 1\nb: hyper(0, 9) = 2\nunused: hyper(0, 9) = 3\nupdate = b * g + a"
    )
    p = torch.nn.Parameter(torch.zeros(1))
    p.grad = torch.ones(1)
    RuleOptimizer([p], text, lr=1.0, a=5.0, b=7.0).step()
    assert p.item() == -12.0
