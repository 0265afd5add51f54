"""Each family's knobs do what their names say, and values outside their ranges are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ruleforge.errors import TaskError
from ruleforge.tasks import Task, check_task
from ruleforge.tasks.equations import boundary_value
from ruleforge.tasks.functions import bumps, potential, surface
from ruleforge.tasks.memory import MinimalGated
from ruleforge.tasks.nets import ACTIVATIONS, FORMS, NORMS, CausalConv, Dense, Recurrent, Transformer
from ruleforge.tasks.pictures import strokes, textures
from ruleforge.tasks.recurrent import adding, echo, series
from ruleforge.tasks.symbols import bags, label_sets, next_symbol, token_sets
from ruleforge.tasks.vectors import GEOMETRIES, classes, counts, linear_map, mapping

FAMILIES: tuple[Callable[..., Task], ...] = (
    classes, mapping, linear_map, counts, token_sets, label_sets, next_symbol, textures, strokes, adding,
    series, echo, boundary_value, surface, potential, bumps, bags,
)  # fmt: skip


def rows(task: Task, n_batches: int = 40, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.cat(column) for column in zip(*(task.batch(generator) for _ in range(n_batches)), strict=True)
    ]


def imbalance_of(y: Tensor) -> float:
    counts = torch.bincount(y).float()
    return float(counts.max() / counts.min())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_a_family_runs_as_it_is_and_another_name_is_other_data(family: Callable[..., Task]) -> None:
    task = family(batch_size=8, steps=7)
    assert check_task(task) > 0
    assert (task.name, task.steps) == (family.__name__, 7)
    params = task.init(torch.Generator().manual_seed(0))
    other = family(batch_size=8, name="another", **({"text": "chance"} if family is next_symbol else {}))
    if family is next_symbol:
        assert not torch.equal(rows(other)[0], rows(next_symbol(8, name="third", text="chance"))[0])
    else:
        assert float(other.evaluate(params)["loss"]) != float(task.evaluate(params)["loss"])


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_geometry_can_be_told_apart_by_its_nearest_neighbours(geometry: str) -> None:
    x, y = rows(classes(50, geometry=geometry, n_features=6, n_classes=3), 25)
    distances = torch.cdist(x, x)
    distances[distances < 1e-6] = torch.inf  # a row itself, and where it was drawn again
    right = (y[distances.argmin(1)] == y).float().mean()
    assert right > 0.6, right


def test_label_noise_imbalance_sparsity_shift_and_condition() -> None:
    plain = rows(classes(50, imbalance=1.0))
    assert imbalance_of(plain[1]) < 1.5
    assert imbalance_of(rows(classes(50, imbalance=10.0))[1]) > 5

    clean, noisy = (rows(classes(1500, label_noise=p), 1)[1] for p in (0.0, 0.4))  # every row once
    assert 0.2 < float((clean != noisy).float().mean()) < 0.4  # 3 of 4 replaced labels are others

    def spread(task: Task) -> float:
        values = torch.linalg.svdvals(rows(task)[0])
        return float(values[0] / values[-1])

    assert spread(linear_map(condition=1.0)) < 2 < 20 < spread(linear_map(condition=30.0))

    at_home, shifted = (
        mapping(shift=s).evaluate(mapping().init(torch.Generator()))["loss"] for s in (0.0, 0.9)
    )
    assert at_home != shifted
    sparse = rows(classes(50, sparsity=0.7, n_features=2, condition=1.0))[0]
    dense = rows(classes(50, sparsity=0.0, n_features=2, condition=1.0))[0]
    assert (sparse.norm(dim=1) < 1e-6).float().mean() > 0.3 > (dense.norm(dim=1) < 1e-6).float().mean()


def test_tails_are_heavier_by_the_knob() -> None:
    def kurtosis(tail: float) -> float:
        noisy = rows(linear_map(noise=1.0, tail=tail))
        quiet = rows(linear_map(noise=0.0))
        noise = noisy[1][: len(quiet[1])] - quiet[1]
        return float(noise.abs().max() / noise.abs().median())

    # Without noise the inputs are other draws, so the spread of the targets is in both: it is about 1.
    assert kurtosis(0.45) > 3 * kurtosis(0.0)


def test_rare_labels_are_as_rare_as_asked_and_features_follow_zipf() -> None:
    for rarity in (0.05, 0.3):
        x, y = rows(label_sets(rarity=rarity), 100)
        assert abs(float(y.mean()) - rarity) < 0.4 * rarity
    assert x.mean(0).max() > 10 * x.mean(0).clamp_min(1e-3).min()
    assert set(x.unique().tolist()) == {0.0, 1.0}


def test_most_rows_of_an_embedding_get_no_gradient() -> None:
    task = token_sets(batch_size=2, length=3)
    params = task.init(torch.Generator().manual_seed(0))
    grads = torch.func.grad(task.loss)(params, task.batch(torch.Generator().manual_seed(0)), 1)
    assert (grads["embedding"] == 0).all(1).sum() >= 42


def test_most_rows_of_a_bags_embedding_get_no_gradient_in_a_step() -> None:
    task = bags(batch_size=8, length=4, n_symbols=96)
    params = task.init(torch.Generator().manual_seed(0))
    grads = torch.func.grad(task.loss)(params, task.batch(torch.Generator().manual_seed(0)), 1)
    assert (grads["embedding"] == 0).all(1).sum() >= 64


def test_hills_can_be_met_exactly_by_as_many_radial_functions() -> None:
    task = bumps(batch_size=64, hills=1, units=4, n_outputs=1)
    x, y = rows(task, 8)
    highest = y[:, 0].abs().argmax()
    params = task.init(torch.Generator().manual_seed(0))
    params["centres"], params["offset"] = x[highest].repeat(4, 1), torch.zeros(1)
    params["height"] = torch.full((4, 1), float(y[highest, 0]) / 4)
    losses = []
    for width in torch.linspace(0.15, 0.7, 40):
        params["log_width"] = torch.log(width).expand(4)
        losses.append(float(task.loss(params, (x, y), 1)))
    assert min(losses) < 0.01 * float(y.square().mean()) < max(losses)


def test_attention_pooling_over_symbols_is_pooling_over_tokens() -> None:
    task = token_sets(batch_size=4, length=5, n_symbols=10)
    params = task.init(torch.Generator().manual_seed(1))
    counts, y = task.batch(torch.Generator().manual_seed(1))

    def pooled(row: Tensor) -> Tensor:
        tokens = torch.repeat_interleave(torch.arange(10), row.long())
        e = params["embedding"][tokens]
        key = torch.tanh(F.linear(e, params["key.weight"], params["key.bias"]))
        value = torch.tanh(F.linear(e, params["value.weight"], params["value.bias"]))
        weight = torch.softmax(key @ params["query"], 0)
        return F.linear(weight @ value, params["head.weight"], params["head.bias"])

    expected = F.cross_entropy(torch.stack([pooled(row) for row in counts]), y)
    torch.testing.assert_close(task.loss(params, (counts, y), 1), expected)


def test_cells_are_those_of_torch() -> None:
    x = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    for cell, module in (
        ("gru", torch.nn.GRU(2, 7, batch_first=True)),
        ("elman", torch.nn.RNN(2, 7, batch_first=True)),
        ("lstm", torch.nn.LSTM(2, 7, batch_first=True)),
    ):
        net = Recurrent(2, 1, 7, cell, every_step=True)
        params = net.init(torch.Generator().manual_seed(0))
        names = {"weight_ih_l0": "input.weight", "bias_ih_l0": "input.bias",
                 "weight_hh_l0": "hidden.weight", "bias_hh_l0": "hidden.bias"}  # fmt: skip
        module.load_state_dict({theirs: params[ours] for theirs, ours in names.items()})
        expected = F.linear(module(x)[0], params["head.weight"], params["head.bias"])
        torch.testing.assert_close(net(params, x), expected)


def test_the_minimal_gated_unit_in_columns_is_that_of_its_paper() -> None:
    """Zhou et al. 2016, equations 4a to 4c, row by row, with the gate on the new state as written there."""
    net = MinimalGated(3, 2, width=5)
    params = net.init(torch.Generator().manual_seed(0))
    x = torch.randn(7, 4, 3, generator=torch.Generator().manual_seed(1))
    given = F.linear(x, params["input.weight"], params["input.bias"])
    h = torch.zeros(7, 5)
    for t in range(4):
        f = torch.sigmoid(given[:, t, :5] + F.linear(h, params["forget.weight"], params["forget.bias"]))
        new = torch.tanh(given[:, t, 5:] + F.linear(f * h, params["hidden.weight"], params["hidden.bias"]))
        h = (1 - f) * h + f * new
    assert torch.allclose(net(params, x), F.linear(h, params["head.weight"], params["head.bias"]), atol=1e-6)


@pytest.mark.parametrize("net", [MinimalGated(3, 2), Recurrent(3, 2), Recurrent(3, 2, cell="lstm")], ids=repr)
def test_a_net_makes_its_state_where_its_input_is(net: MinimalGated | Recurrent) -> None:
    params = {name: value.to("meta") for name, value in net.init(torch.Generator().manual_seed(0)).items()}
    assert net(params, torch.zeros(7, 4, 3, device="meta")).device.type == "meta"


@pytest.mark.parametrize("net", [Transformer(7, 6, width=8, heads=2, blocks=2), CausalConv(7, 8, blocks=2)])
def test_a_language_model_does_not_look_ahead(net: Transformer | CausalConv) -> None:
    params = net.init(torch.Generator().manual_seed(0))
    x = torch.randint(7, (2, 6), generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[:, 4:] = (x[:, 4:] + 1) % 7
    one, two = net(params, x), net(params, changed)
    torch.testing.assert_close(one[:, :4], two[:, :4])
    assert not torch.allclose(one[:, 4:], two[:, 4:])


def test_the_differential_equations_residual_is_that_of_automatic_derivatives() -> None:
    from ruleforge.tasks.equations import _network

    task = boundary_value(depth=3)
    params = {k: v.double() for k, v in task.init(torch.Generator().manual_seed(0)).items()}

    def value(x: Tensor) -> Tensor:
        return _network(params, x.reshape(1, 1), 3)[0].squeeze()

    for at in (-0.7, 0.1, 0.9):
        x = torch.tensor(at, dtype=torch.float64)
        n, slope, bend = (each.squeeze() for each in _network(params, x.reshape(1, 1), 3))
        torch.testing.assert_close(slope, torch.func.grad(value)(x))
        torch.testing.assert_close(bend, torch.func.grad(torch.func.grad(value))(x))
        assert n == value(x)


def test_residual_and_error_are_measured_by_those_of_no_solution_at_all() -> None:
    task = boundary_value(waves=1)
    params = task.init(torch.Generator().manual_seed(0))
    nothing = {name: torch.zeros_like(value) for name, value in params.items()}
    scores = task.evaluate(nothing)  # u = 0: both are scaled to 1
    assert float(scores["loss"]) == pytest.approx(1.0, rel=1e-5)
    assert float(scores["error"]) == pytest.approx(1.0, rel=1e-5)


def test_forces_are_minus_the_gradient_of_the_networks_potential() -> None:
    task = potential(batch_size=6, n_inputs=2)
    params = task.init(torch.Generator().manual_seed(0))
    x, force = task.batch(torch.Generator().manual_seed(1))

    def height(place: Tensor) -> Tensor:
        first = F.softplus(F.linear(place, params["0.weight"], params["0.bias"]))
        return (
            F.softplus(F.linear(first, params["1.weight"], params["1.bias"])) @ params["head"].T
        ).squeeze()

    found = -torch.func.vmap(torch.func.grad(height))(x)
    torch.testing.assert_close(task.loss(params, (x, force), 1), (found - force).square().mean())


def test_an_echo_is_what_was_shown_and_a_sum_that_fades() -> None:
    x, y = echo(batch_size=3, length=7, delay=2, fading=0.6).batch(torch.Generator().manual_seed(0))
    total = torch.zeros(3)
    for t in range(7):
        total = 0.6 * total + x[:, t, 0]
        torch.testing.assert_close(y[:, t, 1], total * (1 - 0.6**2) ** 0.5)
        assert torch.equal(y[:, t, 0], x[:, t - 2, 0] if t >= 2 else torch.zeros(3))


def test_counts_are_poisson_and_the_true_rates_lose_nothing() -> None:
    task = counts(batch_size=500, n_features=4, n_outputs=3, mean=3.0)
    x, target = rows(task, 20)
    count, expected = target[..., 0], target[..., 1]
    assert torch.equal(count, count.round())
    assert float((count - expected).square().mean() / expected.mean()) == pytest.approx(1.0, rel=0.05)
    # Rates are mean · softplus(2 x·w): least squares on their inverse gives the true weights.
    score = torch.log(torch.expm1((expected.double() - 1e-3) / 3)) / 2
    weight = torch.linalg.lstsq(x.double(), score).solution.T.float()
    true = {"0.weight": weight, "0.bias": torch.zeros(3)}
    assert float(task.loss(true, (x, target), 1)) == pytest.approx(0.0, abs=1e-5)
    worse = {"0.weight": 1.3 * weight, "0.bias": torch.zeros(3)}
    assert float(task.loss(worse, (x, target), 1)) > 1e-3


def test_names_of_characters_are_the_same_text_on_every_python() -> None:
    sources = next_symbol(text="names", net="conv", length=8).sources
    assert "blake2b 5e9d02353dfe4173" in sources


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("norm", NORMS)
def test_a_dense_network_of_every_form_has_a_gradient_everywhere(form: str, norm: str) -> None:
    for activation in ACTIVATIONS:
        net = Dense(5, 2, 6, 3, activation, norm, form)
        params = net.init(torch.Generator().manual_seed(0))
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
        grads = torch.func.grad(lambda p, net=net, x=x: net(p, x).square().mean())(params)
        assert all(grad.any() and grad.isfinite().all() for grad in grads.values()), activation


@pytest.mark.parametrize(
    ("family", "knobs", "message", "hint"),
    [
        (classes, {"label_noise": 0.6}, "label_noise is 0.6", "choose 0 to 0.5"),
        (classes, {"geometry": "cloud"}, "no geometry 'cloud'", "did you mean 'clouds'"),
        (classes, {"activation": "rellu"}, "no activation 'rellu'", "did you mean 'relu'"),
        (classes, {"norm": "batch"}, "no norm 'batch'", "choose among none, layer, rms"),
        (classes, {"geometry": "parity", "imbalance": 3.0}, "parity decides", "leave imbalance at 1"),
        (classes, {"batch_size": 50, "n_rows": 40}, "n_rows is 40", "choose 50 to"),
        (linear_map, {"condition": 0.5}, "condition is 0.5", "choose 1 to 100"),
        (linear_map, {"noise": float("nan")}, "noise is nan", "choose 0 to 3"),
        (label_sets, {"rarity": 0}, "rarity is 0", "choose 0.02 to 0.5"),
        (next_symbol, {"width": 10, "heads": 4}, "no multiple of 4 heads", "choose one"),
        (next_symbol, {"text": "prose"}, "no text 'prose'", "choose among code, names, chance"),
        (textures, {"net": "vit"}, "no net 'vit'", "choose among mixer, conv"),
        (adding, {"cell": "mgu"}, "no cell 'mgu'", "choose among elman, gru, lstm"),
        (series, {"length": 2}, "length is 2", "choose 4 to 24"),
        (boundary_value, {"waves": 9}, "waves is 9", "choose 1 to 4"),
    ],
)
def test_a_knob_outside_its_range_is_refused(
    family: Callable[..., Task], knobs: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        family(**knobs)
    assert hint in caught.value.hint
