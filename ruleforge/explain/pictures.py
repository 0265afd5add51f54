"""Response plots as SVG and as text: a writer of its own, so that a picture needs no plotting library.

Knows curves and heat maps, and nothing of rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from ruleforge.explain.signals import Curve, HeatMap
from ruleforge.explain.traces import Array

WIDTH, HEIGHT = 320, 210
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 26, 38
INK = {"update": "#0b62a4", "gradient": "#a0a0a0"}
COLUMNS = 3
NOWHERE = "the update is not finite anywhere"
_BLOCKS = "▁▂▃▄▅▆▇█"


def svg(figures: Sequence[Curve | HeatMap], title: str = "", columns: int = COLUMNS) -> str:
    """One picture with a panel for each figure."""
    head = 28 if title else 0
    rows = -(-len(figures) // columns)
    width, height = WIDTH * min(columns, len(figures)), HEIGHT * rows + head
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    if title:
        parts.append(f'<text x="10" y="19" font-size="14" font-weight="bold">{escape(title)}</text>')
    for number, figure in enumerate(figures):
        x, y = WIDTH * (number % columns), HEIGHT * (number // columns) + head
        body = _heat(figure) if isinstance(figure, HeatMap) else _curve(figure)
        parts.append(f'<g transform="translate({x},{y})">{body}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _frame(figure: Curve | HeatMap, low: float, high: float) -> list[str]:
    """Title, axes, ticks at the ends of both axes and at 0."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    middle = (TOP + bottom) / 2
    parts = [
        f'<text x="{LEFT}" y="16" font-size="11">{escape(figure.title)}</text>',
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#444"/>',
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{escape(figure.x_label)}</text>',
        f'<text x="12" y="{middle:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 12 {middle:.0f})">{escape(figure.y_label)}</text>',
    ]
    first, last = float(figure.x[0]), float(figure.x[-1])
    for value in dict.fromkeys((first, (first + last) / 2, last)):
        at = _place(value, first, last, LEFT, right)
        parts.append(f'<text x="{at:.1f}" y="{bottom + 13}" text-anchor="middle">{_number(value)}</text>')
    marks = [low, high, *([0.0] if low < 0 < high else [])]
    for value in marks:
        at = _place(value, low, high, bottom, TOP)
        parts.append(f'<text x="{LEFT - 4}" y="{at + 3:.1f}" text-anchor="end">{_number(value)}</text>')
    if low < 0 < high:
        at = _place(0.0, low, high, bottom, TOP)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{right}" stroke="#ddd"/>')
    return parts


def _curve(figure: Curve) -> str:
    values = np.concatenate([line[np.isfinite(line)] for line in figure.lines.values()])
    low, high = _limits(values)
    parts = _frame(figure, low, high)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    if not np.isfinite(figure.lines["update"]).any():
        parts.append(
            f'<text x="{(LEFT + right) / 2:.0f}" y="{TOP + 20}" text-anchor="middle">{NOWHERE}</text>'
        )
    for number, (name, line) in enumerate(reversed(figure.lines.items())):
        points = [
            f"{_place(x, figure.x[0], figure.x[-1], LEFT, right):.1f},{_place(y, low, high, bottom, TOP):.1f}"
            for x, y in zip(figure.x, line, strict=True)
            if np.isfinite(y)
        ]
        ink = INK.get(name, "#0b62a4")
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{ink}" stroke-width="1.5"/>')
        y = HEIGHT - 22
        parts.append(
            f'<text x="{right - 60 * number}" y="{y + 14}" text-anchor="end" fill="{ink}">{name}</text>'
        )
    return "\n".join(parts)


def _heat(figure: HeatMap) -> str:
    parts = _frame(figure, float(figure.y[0]), float(figure.y[-1]))
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    rows, columns = figure.values.shape
    wide, high = (right - LEFT) / columns, (bottom - TOP) / rows
    seen = np.abs(figure.values[np.isfinite(figure.values)])
    most = float(seen.max()) if seen.size and seen.max() > 0 else 1.0
    for i in range(rows):
        y = bottom - (i + 1) * high
        for j in range(columns):
            value = float(figure.values[i, j])
            parts.append(
                f'<rect x="{LEFT + j * wide:.1f}" y="{y:.1f}" width="{wide + 0.3:.1f}" '
                f'height="{high + 0.3:.1f}" fill="{_colour(value / most)}"/>'
            )
    parts.append(
        f'<text x="{right}" y="{HEIGHT - 8}" text-anchor="end" fill="#444">red {_number(most)}, '
        f"blue {_number(-most)}</text>"
    )
    return "\n".join(parts)


def _colour(share: float) -> str:
    """White at 0, red at 1, blue at −1, grey where it is not finite."""
    if not np.isfinite(share):
        return "#999999"
    pale = round(255 * (1 - min(1.0, abs(share))))
    return f"#ff{pale:02x}{pale:02x}" if share >= 0 else f"#{pale:02x}{pale:02x}ff"


def _limits(values: Array) -> tuple[float, float]:
    if not values.size:
        return -1.0, 1.0
    low, high = float(min(values.min(), 0.0)), float(max(values.max(), 0.0))
    return (low, high) if high > low else (-1.0, 1.0)


def _place(value: float, low: float, high: float, start: float, end: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return start + share * (end - start)


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def spark(values: Array, width: int = 60) -> str:
    """A line of blocks; a gap where a value is not finite."""
    chosen = np.asarray(values)[np.linspace(0, len(values) - 1, min(width, len(values))).round().astype(int)]
    finite = chosen[np.isfinite(chosen)]
    low, high = _limits(finite)
    return "".join(
        _BLOCKS[min(7, int((v - low) / (high - low) * 7.999))] if np.isfinite(v) else " " for v in chosen
    )


def as_text(figures: Sequence[Curve | HeatMap]) -> list[str]:
    """The figures as lines for a terminal: blocks for curves, a small table for a heat map."""
    lines: list[str] = []
    for figure in figures:
        lines.append(figure.title)
        if isinstance(figure, HeatMap):
            rows = np.linspace(0, len(figure.y) - 1, 5).round().astype(int)[::-1]
            columns = np.linspace(0, len(figure.x) - 1, 5).round().astype(int)
            lines.append("    before ↓  now → " + "".join(f"{_number(figure.x[j]):>9}" for j in columns))
            for i in rows:
                cells = "".join(f"{_number(figure.values[i, j]):>9}" for j in columns)
                lines.append(f"    {_number(figure.y[i]):>15} {cells}")
        else:
            line = figure.lines["update"]
            finite = line[np.isfinite(line)]
            low, high = _limits(finite)
            shown = f"{spark(line)}  {_number(low)} … {_number(high)}" if finite.size else NOWHERE
            lines.append(f"    {shown}")
        lines.append("")
    return lines[:-1]
