"""Sequences: characters of a text that ships with Python, waveforms, and pairs to be recalled.

Knows how its data is made or read. The text changes with Python's patch version, so its digest is
part of the task's sources. Knows no suite.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Batch, Params, Task
from .blocks import Rows, linear, linear_init, mlp, supervised, uniform
from .seeds import generator_from

ALPHABET = "\x00 abcdefghijklmnopqrstuvwxyz.,()'"  # 0 stands for every other character


@lru_cache(maxsize=2)
def _text(n_chars: int) -> tuple[Tensor, str]:
    """The first `n_chars` of Python's help topics as symbol numbers (n,), and the excerpt's digest.

    Lower case, white space folded into single blanks, runs of other characters into one 0.
    """
    from pydoc_data.topics import topics

    folded: list[int] = []
    for character in " ".join(" ".join(topics[name] for name in sorted(topics)).lower().split()):
        symbol = max(ALPHABET.find(character), 0)
        if symbol or not folded or folded[-1]:
            folded.append(symbol)
        if len(folded) == n_chars:
            break
    digest = hashlib.blake2b(bytes(folded), digest_size=8).hexdigest()
    return torch.tensor(folded), digest


def char_mlp(
    batch_size: int = 64,
    steps: int = 200,
    context: int = 6,
    width: int = 8,
    hidden: int = 40,
    n_chars: int = 40_000,
) -> Task:
    """Next character from the last `context`: embedding, tanh layer, softmax (200 validation places).

    The last tenth of the excerpt is for validation.

    Source:
        Bengio et al. 2003, A Neural Probabilistic Language Model, JMLR 3. Departs from it: characters
        for words, no direct connections.
    """
    text, digest = _text(n_chars)
    n_symbols = len(ALPHABET)
    windows = text.unfold(0, context + 1, 1)  # (n, context + 1)
    border = 9 * windows.shape[0] // 10
    train = windows[: border - context]  # no character of the validation part
    valid = windows[torch.linspace(border, windows.shape[0] - 1, 200).long()]

    def init(generator: torch.Generator) -> Params:
        params = {"embedding": torch.randn(n_symbols, width, generator=generator)}
        params |= linear_init(generator, "0", context * width, hidden)
        return params | linear_init(generator, "1", hidden, n_symbols)

    def forward(params: Params, x: Tensor) -> Tensor:
        embedded = F.one_hot(x.flatten(), n_symbols).float() @ params["embedding"]
        return mlp(params, embedded.reshape(x.shape[0], context * width), torch.tanh, 2)

    return supervised(
        "char_mlp",
        init,
        forward,
        Rows(train[:, :-1], train[:, -1], valid[:, :-1], valid[:, -1]),
        batch_size=batch_size,
        steps=steps,
        sources=(
            f"Python's standard library, pydoc_data.topics (PSF licence), first {n_chars} folded characters,"
            f" blake2b {digest}; model: Bengio et al. 2003, JMLR 3"
        ),
    )


def signals_conv(
    batch_size: int = 64, steps: int = 200, noise: float = 0.4, channels: tuple[int, int] = (12, 24)
) -> Task:
    """Two 1-D convolutions and mean pooling tell five kinds of noisy waves apart (endless data).

    conv 8 stride 4 (36 samples → 8), conv 2 stride 2 (→ 4), mean over the four, linear to 5. Sine,
    square, sawtooth, chirp and two tones, with random phase, pitch and loudness.

    Args:
        batch_size: fresh waves a step.
        steps: optimizer steps of the full budget.
        noise: standard deviation of the noise beside waves of amplitude 0.7 … 1.3.
        channels: widths of the two convolutions.
    """
    narrow, wide = channels

    def draw(generator: torch.Generator, n: int) -> Batch:
        time = torch.arange(36) / 36
        u = torch.rand(n, 4, 1, generator=generator)
        pitch, phase, loudness = 2 + 2 * u[:, 0], u[:, 1], 0.7 + 0.6 * u[:, 2]
        turns = pitch * time + phase  # (n, 36)
        waves = torch.stack(
            [
                torch.sin(2 * torch.pi * turns),
                torch.sign(torch.sin(2 * torch.pi * turns)),
                2 * (turns - torch.floor(turns)) - 1,
                torch.sin(2 * torch.pi * turns * (1 + 1.5 * time)),
                torch.sin(2 * torch.pi * turns) * torch.cos(6 * torch.pi * time + 6 * u[:, 3]),
            ],
            1,
        )  # (n, 5, 36)
        y = torch.randint(5, (n,), generator=generator)
        chosen = (waves * F.one_hot(y, 5)[:, :, None]).sum(1) * loudness
        x = chosen + noise * torch.randn(n, 36, generator=generator)
        return x.unfold(1, 8, 4).reshape(n, 64), y  # the first layer's patches

    def init(generator: torch.Generator) -> Params:
        params = linear_init(generator, "conv0", 8, narrow)
        params |= linear_init(generator, "conv1", 2 * narrow, wide)
        return params | linear_init(generator, "head", wide, 5)

    def forward(params: Params, x: Tensor) -> Tensor:
        n = x.shape[0]
        h = torch.relu(linear(params, "conv0", x.reshape(n * 8, 8)))  # (n·8, narrow)
        h = torch.relu(linear(params, "conv1", h.reshape(n * 4, 2 * narrow)))  # (n·4, wide)
        return linear(params, "head", h.reshape(n, 4, wide).mean(1))

    x_valid, y_valid = draw(generator_from("signals_conv", "valid"), 200)
    return supervised(
        "signals_conv",
        init,
        forward,
        Rows(x_valid, y_valid, x_valid, y_valid),
        batch_size=batch_size,
        steps=steps,
        sources="generated; small 1-D benchmarks after Greydanus & Kobak 2024, arXiv:2011.14439",
        batch=lambda generator: draw(generator, batch_size),
    )


def attention_recall(
    batch_size: int = 32, steps: int = 150, n_symbols: int = 16, n_pairs: int = 8, width: int = 16
) -> Task:
    """One attention head recalls the value that was shown beside a key (endless data).

    A sequence is `n_pairs` (key, value) pairs with distinct keys; the query is one of its keys.

    Args:
        batch_size: fresh sequences a step.
        steps: optimizer steps of the full budget.
        n_symbols: keys and values there are.
        n_pairs: pairs a sequence; at most `n_symbols`.
        width: width of embeddings, queries, keys and values.

    Source:
        Ba et al. 2016, arXiv:1610.06258 (associative recall). Departs from it: keys and values come
        as pairs, so that one layer suffices.
    """

    def draw(generator: torch.Generator, n: int) -> Batch:
        keys = torch.rand(n, n_symbols, generator=generator).argsort(1)[:, :n_pairs]
        values = torch.randint(n_symbols, (n, n_pairs), generator=generator)
        asked = torch.randint(n_pairs, (n, 1), generator=generator)
        x = torch.cat([keys, values, keys.gather(1, asked)], 1)  # (n, 2·n_pairs + 1)
        return x, values.gather(1, asked).squeeze(1)

    def init(generator: torch.Generator) -> Params:
        params = {
            "key_embedding": torch.randn(n_symbols, width, generator=generator),
            "value_embedding": torch.randn(n_symbols, width, generator=generator),
        }
        for name in ("query", "key", "value"):
            params[f"{name}.weight"] = uniform(generator, width, width, bound=width**-0.5)
        return params | linear_init(generator, "head", width, n_symbols)

    def forward(params: Params, x: Tensor) -> Tensor:
        n = x.shape[0]
        one_hot = F.one_hot(x, n_symbols).float()
        pairs, asked = one_hot[:, : 2 * n_pairs], one_hot[:, -1]
        shown = pairs[:, :n_pairs].reshape(n * n_pairs, n_symbols) @ params["key_embedding"]
        shown = shown + pairs[:, n_pairs:].reshape(n * n_pairs, n_symbols) @ params["value_embedding"]
        query = F.linear(asked @ params["key_embedding"], params["query.weight"])  # (n, width)
        key = F.linear(shown, params["key.weight"]).reshape(n, n_pairs, width)
        value = F.linear(shown, params["value.weight"]).reshape(n, n_pairs, width)
        weight = torch.softmax((key * query[:, None]).sum(-1) / width**0.5, -1)  # (n, n_pairs)
        return linear(params, "head", (weight[:, :, None] * value).sum(1))

    x_valid, y_valid = draw(generator_from("attention_recall", "valid"), 128)
    return supervised(
        "attention_recall",
        init,
        forward,
        Rows(x_valid, y_valid, x_valid, y_valid),
        batch_size=batch_size,
        steps=steps,
        sources="generated; associative recall after Ba et al. 2016, arXiv:1610.06258",
        batch=lambda generator: draw(generator, batch_size),
    )
