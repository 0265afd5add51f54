"""Words that messages share: counts, the nearest name to a misspelt one, and what a wait is for.

Knows the standard library alone, so that every part may import it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

PATIENCE_S = 2.0


@contextmanager
def said_if_slow(say: Callable[[str], None], message: str) -> Iterator[None]:
    """Within, `say` is told the message once, if the work takes longer than two seconds."""
    waiting = threading.Timer(PATIENCE_S, say, [message])
    waiting.daemon = True
    waiting.start()
    try:
        yield
    finally:
        waiting.cancel()


def counted(n: int, thing: str) -> str:
    """A number and its thing: "1 node", "2 nodes"."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def shortened(text: str, most: int = 60) -> str:
    """A text of at most so many characters; a longer one ends in "…"."""
    return text if len(text) <= most else text[: most - 1] + "…"


def did_you_mean(
    given: str, names: Iterable[str], rest: str = "", *, most: int = 1, cutoff: float = 0.6
) -> str:
    """A hint for a misspelt name: the nearest ones, if any is near, then the rest.

    Args:
        given: what was written.
        names: what would have been right.
        rest: what the hint says besides.
        most: how many names to offer.
        cutoff: how near a name must be, from 0 to 1 (equal).

    Example:
        >>> did_you_mean("emaa", ["ema", "sign"], "ops: ema, sign")
        "did you mean 'ema'? ops: ema, sign"
        >>> did_you_mean("xyz", ["ema", "sign"])
        ''
    """
    near = get_close_matches(given, list(names), most, cutoff)
    guess = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
    return " ".join(part for part in (guess, rest) if part)
