"""Performance profiles: on what share of the workloads is a rule within a factor of the best rule there?

As in AlgoPerf (Dahl et al. 2023, arXiv:2306.07179) after Dolan and Moré, with steps to the targets in
place of seconds. A rule that is best everywhere has a profile of 1 from ×1 on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import numpy as np

from ruleforge.evaluate.baselines import Baselines
from ruleforge.evaluate.evaluator import Outcome
from ruleforge.evaluate.measures import mean_log_steps

FACTORS = (1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
SHOWN = (1.0, 1.1, 1.3, 1.5, 2.0, 3.0)
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 340, 52, 150, 30, 44
INKS = ("#0b62a4", "#c0392b", "#1e8449", "#8e44ad", "#b9770e", "#117a8b")
PALE, DARK = "#bbbbbb", "#444444"


def performance_profiles(
    targets: Mapping[str, Mapping[str, Outcome]], tuned: Baselines, names: Iterable[str]
) -> dict[str, Any]:
    """Profiles of compared rules and of baselines, best first.

    Args:
        targets: rule name → workload name → outcome.
        tuned: the baselines.
        names: those of them that are shown.

    Returns:
        `factors`, and for each rule the `share` of workloads at each of them, the `ratio` on each
        workload, and the `area` under its profile up to the largest factor, 1 for the best everywhere.
    """
    places = tuned.usable()
    rows = {
        f"{name} (baseline)" if name in targets else name: {w: tuned.outcomes[w][name] for w in places}
        for name in names
    }
    rows |= {name: dict(outcomes) for name, outcomes in targets.items()}
    logs = {
        name: {w: mean_log_steps(outcomes[w], tuned.targets[w]) for w in places}
        for name, outcomes in rows.items()
    }
    least = {w: min(each[w] for each in logs.values()) for w in places}
    found = []
    for name, each in logs.items():
        ratios = {w: math.exp(each[w] - least[w]) for w in places}
        share = [float(np.mean([r <= f * (1 + 1e-9) for r in ratios.values()])) for f in FACTORS]
        area = float(np.mean([max(0.0, FACTORS[-1] - r) for r in ratios.values()])) / (FACTORS[-1] - 1)
        found.append(
            {"name": name, "compared": name in targets, "share": share, "area": area, "ratio": ratios}
        )
    found.sort(key=lambda row: (-float(str(row["area"])), str(row["name"])))
    return {"factors": list(FACTORS), "rules": found}


def profile_table(record: Mapping[str, Any], most: int = 5) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of the profiles as text: the compared rules, and the best of the others."""
    columns = ("rule", *(f"≤ ×{f:g}" for f in SHOWN), "area")
    at = [record["factors"].index(f) for f in SHOWN]
    others = [row["name"] for row in record["rules"] if not row["compared"]][:most]
    rows = [
        (
            row["name"],
            *(f"{_bar(row['share'][k])} {100 * row['share'][k]:3.0f} %" for k in at),
            f"{row['area']:.2f}",
        )
        for row in record["rules"]
        if row["compared"] or row["name"] in others
    ]
    return columns, rows


def _bar(share: float) -> str:
    return "█" * round(5 * share) + "·" * (5 - round(5 * share))


def profile_svg(record: Mapping[str, Any], title: str) -> str:
    """The profiles as steps on a logarithmic axis; compared rules in colour, the best of the others dark."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    most = record["factors"][-1]

    def x(factor: float) -> float:
        return LEFT + (right - LEFT) * math.log(factor) / math.log(most)

    def y(share: float) -> float:
        return bottom - (bottom - TOP) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="10">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="12" font-weight="bold">{escape(title)}</text>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<path d="M{LEFT} {y(share):.1f}H{right}" stroke="#eee"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{y(share) + 3:.1f}" text-anchor="end">{100 * share:.0f} %</text>'
        )
    for factor in (f for f in (1.0, 1.2, 1.5, 2.0, 3.0, 4.0) if f <= most):
        parts.append(f'<text x="{x(factor):.1f}" y="{bottom + 14}" text-anchor="middle">×{factor:g}</text>')
    parts.append(
        f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
        "steps to the targets, relative to the best rule of the workload</text>"
    )
    parts.append(
        f'<text x="14" y="{(TOP + bottom) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(TOP + bottom) / 2:.0f})">share of the workloads</text>'
    )
    compared = [row["name"] for row in record["rules"] if row["compared"]]
    inks = {name: INKS[k % len(INKS)] for k, name in enumerate(compared)}
    if others := [row["name"] for row in record["rules"] if not row["compared"]]:
        inks[others[0]] = DARK
    labels: list[tuple[float, int, str, str]] = []
    order = [row["name"] for row in record["rules"]]
    for row in sorted(record["rules"], key=lambda row: row["compared"]):
        ink = inks.get(row["name"], PALE)
        ratios = sorted(row["ratio"].values())
        path, share = [f"M{x(1.0):.1f} {y(0.0):.1f}"], 0.0
        for k, ratio in enumerate(ratios):
            if ratio > most:
                break
            share = (k + 1) / len(ratios)
            path.append(f"H{x(max(ratio, 1.0)):.1f}V{y(share):.1f}")
        path.append(f"H{right}")
        width = 2 if row["compared"] else 1
        parts.append(f'<path d="{"".join(path)}" fill="none" stroke="{ink}" stroke-width="{width}"/>')
        labels.append((y(share), order.index(row["name"]), row["name"], ink if ink != PALE else "#888888"))
    for at, (place, _, name, ink) in _spread(labels, TOP, bottom):
        parts.append(f'<path d="M{right} {place:.1f}L{right + 8} {at - 3:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{right + 11}" y="{at:.1f}" fill="{ink}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _spread(
    labels: list[tuple[float, int, str, str]], top: float, bottom: float
) -> list[tuple[float, tuple[float, int, str, str]]]:
    """Where labels are written: near their lines, apart, and of equal ones the best first."""
    gap = min(12.0, (bottom - top + 12) / max(len(labels), 1))
    placed: list[tuple[float, tuple[float, int, str, str]]] = []
    lowest = top
    for label in sorted(labels):
        at = max(label[0] + 3, lowest)
        placed.append((at, label))
        lowest = at + gap
    over = max(0.0, lowest - gap - bottom - 3)
    return [(at - over * k / max(len(placed) - 1, 1), label) for k, (at, label) in enumerate(placed)]
