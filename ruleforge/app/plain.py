"""Text for people: numbers and times as words, and text from files made safe to print.

Knows the standard library alone, so that every command may start with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Escape sequences: CSI (colours, cursor), OSC and other strings up to their end, two-character ones.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[PX^_\]].*?(?:\x1b\\|\x07|\x9c|$)"
    r"|\x1b[ -/]*[0-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]",
    re.DOTALL,
)
# Other control characters, and those that reorder the text around them.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """The text without terminal escape sequences and control characters; lines and tabs stay.

    Example:
        >>> clean("a\\x1b[31mred\\x1b[0m\\x07")
        'ared'
    """
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


def format_span(seconds: float) -> str:
    """A time span in at most two units: "850ms", "12s", "3m05s", "2h10m".

    Example:
        >>> format_span(185)
        '3m05s'
    """
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms" if seconds > 0 else "0s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_bytes(count: float) -> str:
    """A size in binary units: "1.5 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_count(number: float | None) -> str:
    """A number in a table: "—" where there is none, four digits otherwise."""
    if number is None:
        return "—"
    if isinstance(number, int) or (float(number).is_integer() and abs(number) < 1e6):
        return str(int(number))
    return f"{number:.4g}"


def format_ratio(value: float | None) -> str:
    """A speed-up: "×1.30", or "—"."""
    return "—" if value is None else f"×{value:.3g}" if value >= 9.995 else f"×{value:.2f}"


def format_interval(ends: Sequence[float]) -> str:
    """An interval of a ratio; an end so far out that it says "anything" is not spelled out.

    Example:
        >>> format_interval((0.9, 1.2)), format_interval((0.0001, 4711.0))
        ('[0.90, 1.20]', '[0.00, > 100]')
    """
    return "[" + ", ".join(f"{end:.2f}" if end <= 100 else "> 100" for end in ends) + "]"
