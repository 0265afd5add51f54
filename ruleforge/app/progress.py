"""What a long command says while it works: a live display on a terminal, plain lines elsewhere.

Knows words and numbers to show. Does not know searches: the driver calls `Progress`, and never asks
who listens. Everything goes to stderr; results are not progress.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

from ruleforge.app.plain import clean, format_span


class Progress(Protocol):
    """How a driver tells where it stands. Calls come from one thread, in any order after `start`.

    `generation` takes what is known of: `trained` (rules trained so far), `rules_per_s`,
    `best_speedup`, `front` (size of the Pareto front), `funnel` (counts by name). Missing ones are
    not shown.
    """

    def start(self, total_generations: int | None, budget_s: float | None) -> None:
        """The work begins; either bound may be absent."""

    def generation(self, n: int, stats: Mapping[str, Any]) -> None:
        """Generation `n`, counted from 0, has ended."""

    def phase(self, text: str, done: int, total: int) -> None:
        """`done` of `total` parts of a phase such as "tuning baselines" are done."""

    def message(self, text: str) -> None:
        """A line worth keeping."""

    def close(self) -> None:
        """The work ended, well or not; later calls do nothing."""


class QuietProgress:
    """Says nothing."""

    def start(self, total_generations: int | None, budget_s: float | None) -> None:
        pass

    def generation(self, n: int, stats: Mapping[str, Any]) -> None:
        pass

    def phase(self, text: str, done: int, total: int) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class KeptProgress:
    """Passes everything on to another display, and keeps messages and generations as lines of a log."""

    def __init__(self, shown: Progress, keep: Callable[[str], None]) -> None:
        self.shown, self.keep = shown, keep

    def start(self, total_generations: int | None, budget_s: float | None) -> None:
        self.shown.start(total_generations, budget_s)

    def generation(self, n: int, stats: Mapping[str, Any]) -> None:
        self.keep(f"generation {n + 1}: {stats_line(stats)}")
        self.shown.generation(n, stats)

    def phase(self, text: str, done: int, total: int) -> None:
        self.shown.phase(text, done, total)

    def message(self, text: str) -> None:
        self.keep(clean(text))
        self.shown.message(text)

    def close(self) -> None:
        self.shown.close()


class _Clock:
    """How long it took, and how long it may still take.

    What came before `start`, such as tuning baselines, counts as time gone, but not for the pace.
    """

    def __init__(self) -> None:
        self.made = self.started = time.monotonic()
        self.total: int | None = None
        self.budget_s: float | None = None
        self.first: tuple[int, float] | None = None
        self.last = 0.0

    def start(self, total: int | None, budget_s: float | None) -> None:
        self.started = time.monotonic()
        self.total, self.budget_s = total, budget_s

    def gone_s(self) -> float:
        """Seconds since this was made."""
        return time.monotonic() - self.made

    def searching_s(self) -> float:
        """Seconds since `start`."""
        return time.monotonic() - self.started

    def eta_s(self, n: int) -> float | None:
        """Seconds to the end after generation `n`, from the pace since the first one seen."""
        bounds = []
        elapsed = self.searching_s()
        if self.first is None:
            self.first = (n, elapsed)  # a resumed run starts in the middle: its pace counts from here
        since, at = self.first
        if self.total is not None:
            pace = (elapsed - at) / (n - since) if n > since else elapsed
            bounds.append(pace * (self.total - n - 1))
        if self.budget_s is not None:
            bounds.append(self.budget_s - elapsed)
        return max(0.0, min(bounds)) if bounds else None


def stats_line(stats: Mapping[str, Any]) -> str:
    """The numbers of one generation as words: "best ×1.12 · front 14 · 310 rules/s · 2480 trained"."""
    parts = []
    if (best := stats.get("best_speedup")) is not None:
        parts.append(f"best ×{best:.3f}")
    if (front := stats.get("front")) is not None:
        parts.append(f"front {front}")
    if (rate := stats.get("rules_per_s")) is not None:
        parts.append(f"{rate:.0f} rules/s" if rate >= 10 else f"{rate:.1f} rules/s")
    if (trained := stats.get("trained")) is not None:
        parts.append(f"{trained} trained")
    return " · ".join(parts)


def funnel_line(funnel: Mapping[str, Any]) -> str:
    """Counts in the order given: "proposed 2400 → unique 2011 → trained 1700"."""
    return " → ".join(
        f"{clean(str(name)).replace('_', ' ')} {count}"
        for name, count in funnel.items()
        if not isinstance(count, Mapping)
    )


class PlainProgress:
    """One line for each generation and message, for logs and pipes; a phase is told when nothing else
    has been said for a while."""

    def __init__(self, stream: TextIO | None = None, *, every_s: float = 5.0) -> None:
        self.stream = stream if stream is not None else sys.stderr
        self.every_s = every_s
        self.clock = _Clock()
        self.said_at = time.monotonic()

    def start(self, total_generations: int | None, budget_s: float | None) -> None:
        self.clock.start(total_generations, budget_s)

    def generation(self, n: int, stats: Mapping[str, Any]) -> None:
        of = f"/{self.clock.total}" if self.clock.total is not None else ""
        eta = self.clock.eta_s(n)
        rest = f" · {format_span(eta)} left" if eta is not None else ""
        self.message(f"generation {n + 1}{of}: {stats_line(stats)}{rest}")

    def phase(self, text: str, done: int, total: int) -> None:
        if time.monotonic() - self.said_at >= self.every_s:
            self.message(f"{text}: {done}/{total}")

    def message(self, text: str) -> None:
        self.said_at = time.monotonic()
        print(f"[{format_span(self.clock.gone_s()):>6}] {clean(text)}", file=self.stream, flush=True)

    def close(self) -> None:
        pass


class LiveProgress:
    """A display that is redrawn in place: where the search stands, and what it found so far."""

    def __init__(self, stream: TextIO | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console = Console(file=stream if stream is not None else sys.stderr, highlight=False)
        self.clock = _Clock()
        self.n = -1
        self.eta_s: float | None = None
        self.stats: Mapping[str, Any] = {}
        self.now: tuple[str, int, int] | None = None
        self.live = Live(
            console=self.console, refresh_per_second=4, transient=True, get_renderable=self._drawn
        )
        self.is_open = False

    def start(self, total_generations: int | None, budget_s: float | None) -> None:
        self.clock.start(total_generations, budget_s)
        self._open()

    def generation(self, n: int, stats: Mapping[str, Any]) -> None:
        self.n, self.stats = n, stats
        self.eta_s = self.clock.eta_s(n)
        self.now = None

    def phase(self, text: str, done: int, total: int) -> None:
        self._open()
        self.now = (text, done, total)

    def message(self, text: str) -> None:
        self.console.print(clean(text), markup=False)

    def close(self) -> None:
        if self.is_open:
            self.live.stop()
        self.is_open = False

    def _open(self) -> None:
        if not self.is_open:
            self.is_open = True
            self.live.start()

    def _drawn(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        clock = self.clock
        grid = Table.grid(padding=(0, 1))
        fractions = []
        if clock.total:
            fractions.append((self.n + 1) / clock.total)
        if clock.budget_s:
            fractions.append(clock.searching_s() / clock.budget_s)
        of = f"/{clock.total}" if clock.total is not None else ""
        head = f"generation {self.n + 1}{of}" if self.n >= 0 else "starting"
        rest = f" · {format_span(self.eta_s)} left" if self.eta_s is not None else ""
        bar = ProgressBar(total=1.0, completed=min(1.0, max(fractions, default=0.0)), width=28)
        grid.add_row(Text(head, style="bold"), bar, Text(f"{format_span(clock.gone_s())} gone{rest}"))
        lines: list[Any] = [grid]
        if self.stats:
            lines.append(Text(stats_line(self.stats)))
            if funnel := self.stats.get("funnel"):
                lines.append(Text(funnel_line(funnel), style="dim"))
        if self.now is not None:
            text, done, total = self.now
            lines.append(Text(f"{clean(text)} {done}/{total}", style="cyan"))
        return Group(*lines)


def make_progress(*, quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """The display that fits: none, live on a terminal, plain lines elsewhere."""
    stream = stream if stream is not None else sys.stderr
    if quiet:
        return QuietProgress()
    return LiveProgress(stream) if stream.isatty() else PlainProgress(stream)
