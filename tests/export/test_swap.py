"""Swapping the optimizer of a running training, and torch's schedulers around exported ones."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

import ruleforge as rf
from ruleforge.core.known import KNOWN
from tests.export.harness import load_class
from tests.export.test_torch_optimizer import model, train, values

OTHER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "LambdaLR": {"lr_lambda": lambda t: 0.9**t},
    "MultiplicativeLR": {"lr_lambda": lambda t: 0.9},
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [2, 4]},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingLR": {"T_max": 5},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "cycle_momentum": False},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 10, "cycle_momentum": False},
    "ReduceLROnPlateau": {"patience": 0},
}
SCHEDULERS = sorted(
    name
    for name, each in vars(lr_scheduler).items()
    if inspect.isclass(each)
    and issubclass(each, lr_scheduler.LRScheduler)
    and name not in ("LRScheduler", "_LRScheduler", "SequentialLR", "ChainedScheduler")
)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(name: str, tmp_path: Path) -> None:
    """The learning rates are those that torch's own optimizer gets."""
    net = model()
    ours = load_class(KNOWN["adam"].rule, tmp_path)(net.parameters(), lr=0.05)
    theirs = torch.optim.Adam(model().parameters(), lr=0.05)
    make = getattr(lr_scheduler, name)
    pair = [make(each, **OTHER_ARGUMENTS.get(name, {})) for each in (ours, theirs)]
    theirs.step()
    for _ in range(6):
        train(net, ours, 1)
        for each in pair:
            each.step(*([1.0] if name == "ReduceLROnPlateau" else []))
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]


def test_swapping_keeps_schedulers_and_states() -> None:
    net = model()
    adam = torch.optim.Adam(net.parameters(), lr=0.05)
    scheduler = lr_scheduler.ExponentialLR(adam, 0.5)
    train(net, adam, 3, scheduler)
    average = adam.state[net[0].weight]["exp_avg"].clone()
    lion = rf.swap(adam, rf.known("lion"), beta1=0.8)
    assert lion.carried == ("exp_avg",)
    assert torch.equal(lion.state[net[0].weight]["exp_avg"], average)
    assert lion.param_groups[0]["beta1"] == 0.8
    assert lion.param_groups[0]["lr"] == 0.05 * 0.5**3
    train(net, lion, 1, scheduler)
    assert lion.param_groups[0]["lr"] == 0.05 * 0.5**4
    back = rf.swap(lion, adam)
    assert back is adam
    train(net, adam, 1, scheduler)
    assert adam.param_groups[0]["lr"] == 0.05 * 0.5**5


def test_the_same_rule_goes_on_as_if_nothing_had_happened() -> None:
    net, twin = model(), model()
    ours, theirs = (torch.optim.Adam(each.parameters(), lr=0.01) for each in (net, twin))
    train(net, ours, 4)
    train(twin, theirs, 4)
    train(net, rf.swap(ours, rf.known("adam")), 4)
    train(twin, theirs, 4)
    torch.testing.assert_close(values(net), values(twin), rtol=1e-5, atol=1e-7)


def test_bias_corrected_rules_start_afresh_without_their_states() -> None:
    net = model()
    lion = rf.known("lion").optimizer(net.parameters(), lr=0.001)
    train(net, lion, 50)
    adam = rf.swap(lion, rf.known("adam"))
    assert adam.carried == ()
    before = values(net)
    train(net, adam, 1)
    assert (values(net) - before).abs().max() < 0.0011  # Adam's first step is lr at most


def test_other_parameters_are_refused() -> None:
    a, b = (torch.optim.SGD(model().parameters(), lr=0.1) for _ in range(2))
    with pytest.raises(ValueError, match="other parameters"):
        rf.swap(a, b)
