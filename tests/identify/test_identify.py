"""Black boxes are recovered from their behaviour; what cannot be is said, with the nearest form."""

from __future__ import annotations

from pathlib import Path

import pytest

from ruleforge.core.known import known
from ruleforge.errors import InputError, RunError
from ruleforge.identify.black_box import probe
from ruleforge.identify.compose import forms
from ruleforge.identify.identify import coupled, identify
from ruleforge.simplify.verify import verify

HEAD = "import torch\nclass Mine(torch.optim.Optimizer):\n"
INIT = "    def __init__(self, params, lr=0.01):\n        super().__init__(params, dict(lr=lr))\n"


def written(folder: Path, body: str, init: str = INIT) -> str:
    """An optimizer's file; the body is that of the loop over parameters, `p` and `g`."""
    lines = "".join(f"                {line}\n" for line in body.splitlines())
    step = (
        "    @torch.no_grad()\n    def step(self, closure=None):\n        for group in self.param_groups:\n"
        "            for p in group['params']:\n"
        "                g = p.grad; lr = group['lr']; s = self.state[p]\n"
    )
    (folder / "mine.py").write_text(f"{HEAD}{init}{step}{lines}")
    return f"{folder / 'mine.py'}:Mine"


@pytest.mark.slow
def test_adamw_comes_back_with_its_hyperparameters_and_decay() -> None:
    found = identify("torch.optim:AdamW", {"betas": [0.8, 0.97], "eps": 1e-6, "weight_decay": 0.03})
    assert found.relation == "exact"
    assert found.weight_decay == pytest.approx(0.03, rel=1e-6)
    assert all(min(abs(beta - value) for value in found.text.rule.defaults) < 1e-5 for beta in (0.8, 0.97))
    assert found.residual < 1e-6


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    where = written(tmp_path, "s['m'] = 0.8 * s.get('m', 0) + g\np -= lr * 0.5 * s['m']")
    found = identify(where)
    assert found.known_as == "momentum"
    assert found.relation == "exact up to scale"
    assert found.factor == pytest.approx(0.5, rel=1e-6)
    assert list(found.seen.states) == ["m"]


def test_probing_sees_what_is_there(tmp_path: Path) -> None:
    seen = probe(written(tmp_path, "p -= lr * (g.sign() + 0.1 * p)")).seen
    assert (seen.is_elementwise, seen.reads_weights, seen.is_odd, seen.is_random) == (True, True, True, False)
    assert seen.decay == pytest.approx(0.1)
    seen = probe(written(tmp_path, "p -= lr * (g * g.norm())")).seen
    assert (seen.is_elementwise, seen.scale_degree, seen.is_odd) == (False, 2, True)


def test_randomness_and_factored_states_are_said(tmp_path: Path) -> None:
    body = "s['row'] = torch.zeros(g.shape[0])\np -= lr * (g + 0.01 * torch.randn_like(g))"
    found = identify(written(tmp_path, body), time_limit_s=8)
    assert found.relation == "closest form"
    assert 0 < found.residual < 1
    told = " ".join(found.notes)
    assert "randomness" in told and "row (4,)" in told


def test_a_closure_is_given_to_one_that_needs_it(tmp_path: Path) -> None:
    box = probe(written(tmp_path, "closure()\np -= lr * g"))
    assert box.seen.needs_closure


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("raise ValueError('no luck')", InputError, r"raised ValueError: no luck \(mine.py, line 10\)"),
        ("import os; os._exit(3)", RunError, "ended its process, with code 3"),
        ("pass", InputError, "does not move the weights"),
        ("p -= lr * g / 0 * 0", InputError, "not finite"),
    ],
)
def test_what_goes_wrong_is_said(tmp_path: Path, body: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        probe(written(tmp_path, body))


def test_one_that_hangs_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="did not finish"):
        probe(written(tmp_path, "while True: pass"), time_limit_s=1.0)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nothing.py:Mine", "there is no such file"),
        ("torch.optim", "names no class"),
        (":Mine", "names no class"),
        ("torch.optim:Nope", "it has no class 'Nope'; optimizers there: .*SGD"),
        ("torch.nn:Linear", "no optimizer"),
    ],
)
def test_a_wrong_name_is_said(where: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        probe(where)


def test_decay_inside_the_gradient_is_the_gradient_with_decay() -> None:
    made = coupled(known("momentum").rule.rule)
    assert made is not None
    from ruleforge.core.rule import Rule

    expected = Rule.parse("update = trace(g + 0.2 * w, 0.9)")
    assert verify(made.with_defaults((0.9, 0.2)), expected).holds


def test_composed_forms_are_many_and_distinct() -> None:
    every = list(forms())
    assert len({rule.key for rule in every}) == len(every) > 300
    assert all(rule.reads("g") for rule in every)


def test_messages_are_one_line_and_what_a_stranger_prints_is_dropped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"RuntimeError: needs a GPU \(mine.py") as caught:
        probe(written(tmp_path, "print('hello'); raise RuntimeError('needs\\na GPU')"))
    assert "\n" not in caught.value.message
    assert capfd.readouterr().out == ""


def test_a_class_that_is_no_optimizer_is_said(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("class Other:\n    pass\n")
    with pytest.raises(InputError, match="Other is no optimizer"):
        probe(f"{tmp_path / 'other.py'}:Other")
