"""Families on symbols: sets of tokens, sparse labels, and text written by others or by chance.

Frequencies follow Zipf's law, so that most rows of an embedding get a gradient of exactly zero in most
steps. Lookups are one-hot products. Knows no suite.
"""

from __future__ import annotations

import hashlib
import importlib.util
import unicodedata
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import TaskError
from .base import Batch, Params, Task
from .blocks import Rows, endless, knobs_within, linear, linear_init, supervised
from .nets import CausalConv, Transformer, chosen
from .seeds import generator_from

CODE_ALPHABET = "\x00 \nabcdefghijklmnopqrstuvwxyz_.,:()='\""  # 0 stands for every other character
CODE_MODULES = ("argparse", "difflib", "textwrap")
NAME_ALPHABET = "\x00 ABCDEFGHIJKLMNOPQRSTUVWXYZ-"  # 0 ends a name, and stands for digits too


def _zipf(n: int, exponent: float) -> Tensor:
    """Frequencies of n symbols, summing to 1, (n,)."""
    weight = (1 + torch.arange(n)).double() ** -exponent
    return (weight / weight.sum()).float()


def token_sets(
    batch_size: int = 32,
    steps: int = 150,
    name: str = "token_sets",
    n_symbols: int = 48,
    length: int = 8,
    n_classes: int = 5,
    zipf: float = 1.0,
    label_noise: float = 0.0,
    width: int = 12,
) -> Task:
    """A set of tokens votes for a class; embeddings, attention pooling and a linear layer find it (endless).

    Each token has a weight and a class it speaks for; few tokens have a large weight.

    Args:
        batch_size: fresh sets a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        n_symbols: tokens there are (8 to 128).
        length: tokens of a set (2 to 16).
        n_classes: classes (2 to 10).
        zipf: exponent of the tokens' frequencies (0 = all alike, to 1.5).
        label_noise: share of training labels replaced by a random class (0 to 0.5).
        width: of the embeddings.

    Source:
        Attention pooling as in Yang et al. 2016, Hierarchical Attention Networks, NAACL.
    """
    knobs_within(
        name, n_symbols=(n_symbols, 8, 128), length=(length, 2, 16), n_classes=(n_classes, 2, 10),
        zipf=(zipf, 0, 1.5), label_noise=(label_noise, 0, 0.5),
    )  # fmt: skip
    fixed = generator_from(name, n_symbols, n_classes)
    frequency = _zipf(n_symbols, zipf)[torch.randperm(n_symbols, generator=fixed)]
    importance = torch.exp(1.5 * torch.randn(n_symbols, 1, generator=fixed))
    votes = importance * F.one_hot(torch.randint(n_classes, (n_symbols,), generator=fixed), n_classes)

    def draw(generator: torch.Generator, n: int, noise: float = label_noise) -> Batch:
        x = torch.multinomial(frequency, n * length, replacement=True, generator=generator)
        x = F.one_hot(x.reshape(n, length), n_symbols).sum(1).float()  # how often each occurs
        y = (x @ votes).argmax(-1)
        wrong = torch.rand(n, generator=generator) < noise
        return x, torch.where(wrong, torch.randint(n_classes, (n,), generator=generator), y)

    def init(generator: torch.Generator) -> Params:
        params = {"embedding": torch.randn(n_symbols, width, generator=generator)}
        params |= linear_init(generator, "key", width, width)
        params |= {"query": torch.randn(width, generator=generator) * width**-0.5}
        params |= linear_init(generator, "value", width, width)
        return params | linear_init(generator, "head", width, n_classes)

    def forward(params: Params, x: Tensor) -> Tensor:
        # A token's score and value depend on the token alone, so both are found once a symbol.
        embedding = params["embedding"]
        scores = (torch.tanh(linear(params, "key", embedding)) * params["query"]).sum(-1)
        # The softmax's numerators, (n_symbols,); detached, since the largest score cancels out and must
        # leave no rounding in the gradient of a symbol that does not occur.
        weight = torch.exp(scores - scores.amax().detach())
        value = torch.tanh(linear(params, "value", embedding))
        pooled = (x @ (weight[:, None] * value)) / (x @ weight[:, None] + 1e-9)
        return linear(params, "head", pooled)

    return endless(
        name, init, forward, draw, draw(fixed, 200, 0.0),
        batch_size=batch_size, steps=steps, sources="generated; attention pooling: Yang et al. 2016, NAACL",
    )  # fmt: skip


def bags(
    batch_size: int = 8,
    steps: int = 200,
    name: str = "bags",
    n_symbols: int = 96,
    length: int = 4,
    n_classes: int = 4,
    zipf: float = 0.8,
    label_noise: float = 0.0,
    width: int = 8,
) -> Task:
    """A bag of tokens tells a class by the sum of their meanings: summed embeddings, tanh, a linear layer.

    A batch names few of the tokens: most rows of the embedding have a gradient of exactly zero in most steps.

    Args:
        batch_size: fresh bags a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        n_symbols: tokens there are (8 to 256).
        length: tokens of a bag (1 to 16).
        n_classes: classes (2 to 10).
        zipf: exponent of the tokens' frequencies (0 = all alike, to 1.5).
        label_noise: share of training labels replaced by a random class (0 to 0.5).
        width: of the embeddings.

    Source:
        Joulin et al. 2017, Bag of Tricks for Efficient Text Classification, EACL.
    """
    knobs_within(
        name, n_symbols=(n_symbols, 8, 256), length=(length, 1, 16), n_classes=(n_classes, 2, 10),
        zipf=(zipf, 0, 1.5), label_noise=(label_noise, 0, 0.5),
    )  # fmt: skip
    fixed = generator_from(name, n_symbols, n_classes)
    frequency = _zipf(n_symbols, zipf)[torch.randperm(n_symbols, generator=fixed)]
    meaning = torch.randn(n_symbols, 3, generator=fixed)
    classes = torch.randn(3, n_classes, generator=fixed)

    def draw(generator: torch.Generator, n: int, noise: float = label_noise) -> Batch:
        x = torch.multinomial(frequency, n * length, replacement=True, generator=generator)
        x = F.one_hot(x.reshape(n, length), n_symbols).sum(1).float()
        y = (x @ meaning @ classes).argmax(-1)
        wrong = torch.rand(n, generator=generator) < noise
        return x, torch.where(wrong, torch.randint(n_classes, (n,), generator=generator), y)

    def init(generator: torch.Generator) -> Params:
        params = {"embedding": torch.randn(n_symbols, width, generator=generator) * 0.5}
        return params | linear_init(generator, "head", width, n_classes)

    return endless(
        name, init, lambda params, x: linear(params, "head", torch.tanh(x @ params["embedding"])), draw,
        draw(fixed, 200, 0.0), batch_size=batch_size, steps=steps,
        sources="generated; bags of tokens: Joulin et al. 2017, EACL",
    )  # fmt: skip


def label_sets(
    batch_size: int = 32,
    steps: int = 150,
    name: str = "label_sets",
    n_symbols: int = 60,
    length: int = 6,
    n_labels: int = 16,
    zipf: float = 1.0,
    label_noise: float = 0.0,
    rarity: float = 0.1,
) -> Task:
    """Logistic regression from sparse binary features to many rare labels; endless data, 200 validation rows.

    Args:
        batch_size: fresh rows a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is other data.
        n_symbols: binary features (8 to 128).
        length: features drawn a row, with repetition (2 to 16).
        n_labels: labels, each present or not (1 to 32).
        zipf: exponent of the features' frequencies (0 to 1.5).
        label_noise: share of training labels flipped (0 to 0.3).
        rarity: share of rows that have a given label (0.02 to 0.5).
    """
    knobs_within(
        name, n_symbols=(n_symbols, 8, 128), length=(length, 2, 16), n_labels=(n_labels, 1, 32),
        zipf=(zipf, 0, 1.5), label_noise=(label_noise, 0, 0.3), rarity=(rarity, 0.02, 0.5),
    )  # fmt: skip
    fixed = generator_from(name, n_symbols, n_labels)
    frequency = _zipf(n_symbols, zipf)[torch.randperm(n_symbols, generator=fixed)]
    true = torch.randn(n_symbols, n_labels, generator=fixed)

    def features(generator: torch.Generator, n: int) -> Tensor:
        drawn = torch.multinomial(frequency, n * length, replacement=True, generator=generator)
        return F.one_hot(drawn.reshape(n, length), n_symbols).amax(1).float()

    border = torch.quantile(features(fixed, 4096) @ true, 1 - rarity, dim=0)

    def draw(generator: torch.Generator, n: int, noise: float = label_noise) -> Batch:
        x = features(generator, n)
        y = (x @ true > border).float()
        flipped = torch.rand(y.shape, generator=generator) < noise
        return x, torch.where(flipped, 1 - y, y)

    return endless(
        name,
        lambda generator: linear_init(generator, "0", n_symbols, n_labels),
        lambda params, x: linear(params, "0", x),
        draw,
        draw(fixed, 200, 0.0),
        batch_size=batch_size,
        steps=steps,
        sources="generated; sparse features with Zipf frequencies, rare labels",
        measure=lambda output, target: (F.softplus(output) - output * target).mean(),
    )


@lru_cache(maxsize=2)
def _code(n_chars: int) -> tuple[Tensor, str]:
    """The first `n_chars` of some of Python's own modules as symbol numbers (n,), and their digest."""
    folded: list[int] = []
    for name in CODE_MODULES:
        found = importlib.util.find_spec(name)
        if found is None or not found.origin or not Path(found.origin).is_file():
            raise TaskError(
                f"this Python ships without the source of {name!r}", hint="use a full CPython installation"
            )
        lines = Path(found.origin).read_text(encoding="utf-8").lower().splitlines()
        text = "\n".join(" ".join(line.split()) for line in lines if line.strip())
        folded += [max(CODE_ALPHABET.find(character), 0) for character in text]
    folded = folded[:n_chars]
    return torch.tensor(folded), hashlib.blake2b(bytes(folded), digest_size=8).hexdigest()


@lru_cache(maxsize=2)
def _names(n_chars: int) -> tuple[Tensor, str]:
    """Names of Unicode's characters, one after the other in a fixed shuffle, and their digest; as `_code`.

    A name, once given, never changes, but later versions have more: only those that Unicode 3.2 knows.
    """
    named = unicodedata.ucd_3_2_0.name
    names = [name for point in range(0x80, 0x2E80) if (name := named(chr(point), ""))]
    order = torch.randperm(len(names), generator=generator_from("names of characters")).tolist()
    text = "\x00".join(names[k] for k in order)
    folded = [max(NAME_ALPHABET.find(character), 0) for character in text[:n_chars]]
    return torch.tensor(folded), hashlib.blake2b(bytes(folded), digest_size=8).hexdigest()


def _chance(name: str, n_chars: int, n_symbols: int) -> Tensor:
    """A text in which a symbol depends on the two before it, from a random table, (n,)."""
    fixed = generator_from(name, "text", n_symbols)
    table = torch.softmax(2.5 * torch.randn(n_symbols, n_symbols, n_symbols, generator=fixed), -1)
    choices = torch.multinomial(table.reshape(-1, n_symbols), n_chars // 40, True, generator=fixed)
    options: list[list[list[int]]] = choices.reshape(n_symbols, n_symbols, -1).tolist()
    text = [0, 0]
    for i in range(n_chars - 2):
        seen = options[text[-2]][text[-1]]
        text.append(seen[i % len(seen)])
    return torch.tensor(text)


def next_symbol(
    batch_size: int = 16,
    steps: int = 200,
    name: str = "next_symbol",
    text: str = "code",
    net: str = "transformer",
    length: int = 12,
    n_chars: int = 40_000,
    n_symbols: int = 16,
    width: int = 16,
    heads: int = 2,
    blocks: int = 1,
    norm: str = "layer",
) -> Task:
    """A small causal network predicts the next symbol at every place (64 validation windows).

    The last tenth of the text is for validation.

    Args:
        batch_size: windows a step.
        steps: optimizer steps of the full budget.
        name: what tables call it; another name is another text where that is drawn by chance.
        text: "code" (source text of Python's own modules), "names" (of Unicode's characters) or "chance"
            (symbols that depend on the last two).
        net: "transformer", or "conv" (gated convolutions).
        length: places of a window (4 to 24).
        n_chars: symbols of the text (2,000 to 100,000).
        n_symbols: alphabet of a text drawn by chance (4 to 24).
        width, blocks: of the network; see `nets`.
        heads, norm: of the transformer.
    """
    chosen("text", text, ("code", "names", "chance"))
    chosen("net", net, ("transformer", "conv"))
    knobs_within(name, length=(length, 4, 24), n_chars=(n_chars, 2000, 100_000), n_symbols=(n_symbols, 4, 24))
    if text == "code":
        symbols, digest = _code(n_chars)
        n_symbols = len(CODE_ALPHABET)
        sources = (
            f"Python's standard library, source of {', '.join(CODE_MODULES)} (PSF licence), first {n_chars}"
            f" folded characters, blake2b {digest}"
        )
    elif text == "names":
        symbols, digest = _names(n_chars)
        n_symbols = len(NAME_ALPHABET)
        sources = f"names of characters, Unicode 3.2 as in Python's unicodedata, blake2b {digest}"
    else:
        symbols, sources = _chance(name, n_chars, n_symbols), "generated; a random process of order two"
    windows = symbols.unfold(0, length + 1, 1)  # (n, length + 1)
    border = 9 * windows.shape[0] // 10
    train = windows[: border - length]
    valid = windows[torch.linspace(border, windows.shape[0] - 1, 64).long()]
    model: Transformer | CausalConv
    if net == "transformer":
        model = Transformer(n_symbols, length, width, heads, blocks, norm)
        paper = "Vaswani et al. 2017, arXiv:1706.03762"
    else:
        model, paper = CausalConv(n_symbols, width, blocks), "Dauphin et al. 2017, arXiv:1612.08083"
    return supervised(
        name,
        model.init,
        model,
        Rows(train[:, :-1], train[:, 1:], valid[:, :-1], valid[:, 1:]),
        batch_size=batch_size,
        steps=steps,
        sources=f"{sources}; model: {paper}",
    )
