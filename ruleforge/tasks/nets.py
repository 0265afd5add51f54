"""Networks that the families are built from: dense, recurrent, transformer, convolution over patches.

Each is a frozen record of sizes with `init` (generator → params) and a call (params, x) → output.
Everything is matrix products, sums and pointwise functions, which vmap and compile well. Knows no data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import TaskError
from ..words import did_you_mean
from .base import Params
from .blocks import linear, linear_init

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
    "elu": F.elu,
    "softplus": F.softplus,
    "sine": torch.sin,
    "none": lambda x: x,
}
NORMS = ("none", "layer", "rms")
FORMS = ("plain", "residual", "gated")


def chosen(what: str, value: str, among: tuple[str, ...]) -> str:
    """The value, if it is one of those.

    Raises:
        TaskError: it is not; the hint lists them.
    """
    if value not in among:
        raise TaskError(
            f"there is no {what} {value!r}",
            hint=did_you_mean(value, among, f"choose among {', '.join(among)}"),
        )
    return value


def norm_init(name: str, width: int, norm: str) -> Params:
    """`{name}.weight` at 1, and for layer norm `{name}.bias` at 0; nothing for "none"."""
    if norm == "none":
        return {}
    scale = {f"{name}.weight": torch.ones(width)}
    return scale | {f"{name}.bias": torch.zeros(width)} if norm == "layer" else scale


def normalized(params: Params, name: str, x: Tensor, norm: str) -> Tensor:
    """Layer norm (Ba et al. 2016), root-mean-square norm (Zhang & Sennrich 2019), or x itself."""
    if norm == "none":
        return x
    if norm == "layer":
        x = x - x.mean(-1, keepdim=True)
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * params[f"{name}.weight"]
    return x + params[f"{name}.bias"] if norm == "layer" else x


@dataclass(frozen=True)
class Dense:
    """A multilayer perceptron.

    Attributes:
        n_in, n_out: inputs and outputs.
        width: of every hidden layer.
        depth: hidden layers; 0 is a linear map.
        activation: a name in `ACTIVATIONS`.
        norm: "none", "layer" or "rms", before each activation.
        form: "plain"; "residual", where each layer after the first adds to what it got; "gated", where
            each layer is a product of a linear half and an activated one (Shazeer 2020, GLU).
    """

    n_in: int
    n_out: int
    width: int = 32
    depth: int = 2
    activation: str = "relu"
    norm: str = "none"
    form: str = "plain"

    def __post_init__(self) -> None:
        chosen("activation", self.activation, tuple(ACTIVATIONS))
        chosen("norm", self.norm, NORMS)
        chosen("form", self.form, FORMS)

    def init(self, generator: torch.Generator) -> Params:
        params: Params = {}
        n = self.n_in
        for i in range(self.depth):
            params |= linear_init(generator, str(i), n, self.width * (2 if self.form == "gated" else 1))
            params |= norm_init(f"norm{i}", self.width, self.norm)
            n = self.width
        return params | linear_init(generator, "head", n, self.n_out)

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        activation = ACTIVATIONS[self.activation]
        for i in range(self.depth):
            h = linear(params, str(i), x)
            if self.form == "gated":
                h, gate = h[..., : self.width], h[..., self.width :]
                x = normalized(params, f"norm{i}", h, self.norm) * activation(gate)
                continue
            h = activation(normalized(params, f"norm{i}", h, self.norm))
            x = x + h if self.form == "residual" and i else h
        return linear(params, "head", x)


CELLS = {"elman": 1, "gru": 3, "lstm": 4}  # and how many linear maps of input and state each has


@dataclass(frozen=True)
class Recurrent:
    """A recurrent layer, unrolled over all steps of its input, with a linear head.

    Attributes:
        n_in, n_out: of one step.
        width: of the hidden state.
        cell: "elman" (tanh), "gru" (Cho et al. 2014) or "lstm" (Hochreiter & Schmidhuber 1997), gates
            as torch has them.
        every_step: outputs after every step, (B, T, n_out), or after the last, (B, n_out).
    """

    n_in: int
    n_out: int
    width: int = 16
    cell: str = "gru"
    every_step: bool = False

    def __post_init__(self) -> None:
        chosen("cell", self.cell, tuple(CELLS))

    def init(self, generator: torch.Generator) -> Params:
        n = self.width * CELLS[self.cell]
        params = linear_init(generator, "input", self.n_in, n)
        params |= linear_init(generator, "hidden", self.width, n)
        return params | linear_init(generator, "head", self.width, self.n_out)

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        given = linear(params, "input", x)  # (B, T, n): all steps at once
        h = memory = torch.zeros_like(given[:, 0, : self.width])
        states = []
        for t in range(x.shape[1]):
            kept = linear(params, "hidden", h)
            if self.cell == "lstm":
                h, memory = self._remembering(given[:, t] + kept, memory)
            else:
                h = self._step(given[:, t], kept, h)
            states.append(h)
        return linear(params, "head", torch.stack(states, 1) if self.every_step else h)

    def _step(self, given: Tensor, kept: Tensor, h: Tensor) -> Tensor:
        if self.cell == "elman":
            return torch.tanh(given + kept)
        w = self.width
        gates = torch.sigmoid(given[:, : 2 * w] + kept[:, : 2 * w])
        reset, update = gates[:, :w], gates[:, w:]
        new = torch.tanh(given[:, 2 * w :] + reset * kept[:, 2 * w :])
        return new + update * (h - new)

    def _remembering(self, sums: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """An LSTM's next hidden state and memory."""
        w = self.width
        entry, forget, leave = (torch.sigmoid(sums[:, k * w : (k + 1) * w]) for k in (0, 1, 3))
        memory = forget * memory + entry * torch.tanh(sums[:, 2 * w : 3 * w])
        return leave * torch.tanh(memory), memory


@dataclass(frozen=True)
class Transformer:
    """Symbols in, scores of the next symbol at every place out: pre-norm blocks with causal attention.

    Attributes:
        n_symbols: size of the alphabet.
        length: places of a sequence.
        width: of the embeddings; a multiple of `heads`.
        heads: attention heads a block.
        blocks: how many.
        norm: "layer" or "rms".

    Source:
        Vaswani et al. 2017, arXiv:1706.03762; norm first as in Xiong et al. 2020, arXiv:2002.04745.
    """

    n_symbols: int
    length: int
    width: int = 16
    heads: int = 2
    blocks: int = 1
    norm: str = "layer"

    def __post_init__(self) -> None:
        chosen("norm", self.norm, NORMS)
        if self.width % self.heads:
            raise TaskError(
                f"width {self.width} is no multiple of {self.heads} heads", hint="choose one that is"
            )

    def init(self, generator: torch.Generator) -> Params:
        params = {
            "embedding": torch.randn(self.n_symbols, self.width, generator=generator) * 0.5,
            "places": torch.randn(self.length, self.width, generator=generator) * 0.5,
        }
        for i in range(self.blocks):
            params |= norm_init(f"norm{i}.attention", self.width, self.norm)
            params |= linear_init(generator, f"qkv{i}", self.width, 3 * self.width)
            params |= linear_init(generator, f"mixed{i}", self.width, self.width)
            params |= norm_init(f"norm{i}.dense", self.width, self.norm)
            params |= linear_init(generator, f"up{i}", self.width, 2 * self.width)
            params |= linear_init(generator, f"down{i}", 2 * self.width, self.width)
        params |= norm_init("norm.head", self.width, self.norm)
        return params | linear_init(generator, "head", self.width, self.n_symbols)

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        n, length = x.shape
        symbols = F.one_hot(x.reshape(-1), self.n_symbols).float() @ params["embedding"]
        h = symbols.reshape(n, length, self.width) + params["places"]
        later = torch.full((length, length), -1e9).triu(1)
        for i in range(self.blocks):
            given = normalized(params, f"norm{i}.attention", h, self.norm)
            h = h + linear(params, f"mixed{i}", self._attended(linear(params, f"qkv{i}", given), later))
            given = normalized(params, f"norm{i}.dense", h, self.norm)
            h = h + linear(params, f"down{i}", torch.relu(linear(params, f"up{i}", given)))
        return linear(params, "head", normalized(params, "norm.head", h, self.norm))

    def _attended(self, qkv: Tensor, later: Tensor) -> Tensor:
        n, length, _ = qkv.shape
        size = self.width // self.heads
        split = qkv.reshape(n, length, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        query, key, value = split[0], split[1], split[2]  # (B, heads, T, size)
        weight = torch.softmax(query @ key.transpose(-1, -2) / size**0.5 + later, -1)
        return (weight @ value).transpose(1, 2).reshape(n, length, self.width)


@dataclass(frozen=True)
class CausalConv:
    """Symbols in, scores of the next symbol at every place out: gated convolutions that look back alone.

    Attributes:
        n_symbols: size of the alphabet.
        width: channels.
        blocks: convolutions in a row, each added to what it got.
        reach: places that each sees: its own and those just before.

    Source:
        Dauphin et al. 2017, Language modeling with gated convolutional networks, arXiv:1612.08083.
    """

    n_symbols: int
    width: int = 12
    blocks: int = 2
    reach: int = 3

    def init(self, generator: torch.Generator) -> Params:
        params = {"embedding": torch.randn(self.n_symbols, self.width, generator=generator) * 0.5}
        for i in range(self.blocks):
            params |= linear_init(generator, f"conv{i}", self.reach * self.width, 2 * self.width)
        return params | linear_init(generator, "head", self.width, self.n_symbols)

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        n, length = x.shape
        symbols = F.one_hot(x.reshape(-1), self.n_symbols).float() @ params["embedding"]
        h = symbols.reshape(n, length, self.width)
        for i in range(self.blocks):
            padded = F.pad(h, (0, 0, self.reach - 1, 0))
            seen = torch.cat([padded[:, k : k + length] for k in range(self.reach)], -1)
            value, gate = linear(params, f"conv{i}", seen).chunk(2, -1)
            h = h + value * torch.sigmoid(gate)
        return linear(params, "head", h)


@dataclass(frozen=True)
class Mixer:
    """An MLP-mixer of one block over patches, mean-pooled: weights shared over places and over channels.

    Attributes:
        n_patches, patch: how many patches, and numbers in each; x is (B, n_patches · patch).
        n_out: outputs.
        width: channels.
        activation: a name in `ACTIVATIONS`.

    Source:
        Tolstikhin et al. 2021, arXiv:2105.01601. Departs from it: no norm, no layer wider than
        the channels.
    """

    n_patches: int
    patch: int
    n_out: int
    width: int = 16
    activation: str = "gelu"

    def __post_init__(self) -> None:
        chosen("activation", self.activation, tuple(ACTIVATIONS))

    def init(self, generator: torch.Generator) -> Params:
        params = linear_init(generator, "patch", self.patch, self.width)
        params |= linear_init(generator, "places", self.n_patches, self.n_patches)
        params |= linear_init(generator, "up", self.width, self.width)
        params |= linear_init(generator, "down", self.width, self.width)
        return params | linear_init(generator, "head", self.width, self.n_out)

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        activation = ACTIVATIONS[self.activation]
        h = linear(params, "patch", x.reshape(-1, self.n_patches, self.patch))
        h = h + activation(linear(params, "places", h.transpose(-1, -2))).transpose(-1, -2)
        h = h + linear(params, "down", activation(linear(params, "up", h)))
        return linear(params, "head", h.mean(1))


@dataclass(frozen=True)
class Conv:
    """Two convolutions over patches that do not overlap, mean-pooled: linear layers over neighbours.

    Attributes:
        n_patches, patch: a multiple of `group` patches in an order in which `group` neighbours lie side by
            side; x is (B, n_patches · patch).
        n_out: outputs.
        width: channels of the first convolution; the second has twice as many.
        group: patches that the second convolution sees at once.
        activation: a name in `ACTIVATIONS`.
    """

    n_patches: int
    patch: int
    n_out: int
    width: int = 12
    group: int = 4
    activation: str = "relu"

    def __post_init__(self) -> None:
        chosen("activation", self.activation, tuple(ACTIVATIONS))

    def init(self, generator: torch.Generator) -> Params:
        params = linear_init(generator, "conv0", self.patch, self.width)
        params |= linear_init(generator, "conv1", self.group * self.width, 2 * self.width)
        return params | linear_init(generator, "head", 2 * self.width, self.n_out)

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        activation = ACTIVATIONS[self.activation]
        n, places = x.shape[0], self.n_patches // self.group
        h = activation(linear(params, "conv0", x.reshape(n * self.n_patches, self.patch)))
        h = activation(linear(params, "conv1", h.reshape(n * places, self.group * self.width)))
        return linear(params, "head", h.reshape(n, places, 2 * self.width).mean(1))
