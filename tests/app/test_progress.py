"""Progress: what is told reaches the reader, on a terminal and in a log, and stays harmless."""

from __future__ import annotations

import io
import time

import pytest

from ruleforge.app.plain import clean, format_bytes, format_count, format_ratio, format_span
from ruleforge.app.progress import LiveProgress, PlainProgress, Progress, QuietProgress, make_progress

STATS = {
    "best_speedup": 1.125,
    "front": 4,
    "rules_per_s": 310.4,
    "trained": 99,
    "funnel": {"proposed": 120, "unique": 101},
}


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def tell_all(progress: Progress) -> None:
    progress.start(8, 90.0)
    progress.phase("tuning baselines", 1, 3)
    progress.generation(0, STATS)
    progress.phase("generation 2, training", 2, 5)
    progress.message("done \x1b[31mred [bold]")
    if isinstance(progress, LiveProgress):
        progress.live.refresh()
    progress.close()
    progress.close()


def test_a_log_gets_one_line_for_each_thing() -> None:
    stream = io.StringIO()
    tell_all(PlainProgress(stream, every_s=0.0))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert "tuning baselines: 1/3" in lines[0]
    assert "generation 1/8: best ×1.125 · front 4 · 310 rules/s · 99 trained" in lines[1]
    assert lines[1].endswith("left")
    assert lines[3].endswith("done red [bold]")


def test_a_phase_is_told_when_nothing_was_said_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    progress = PlainProgress(stream, every_s=5.0)
    for done in range(1, 13):
        now += 1.0
        progress.phase("training", done, 12)
    lines = stream.getvalue().splitlines()
    assert lines == ["[    5s] training: 5/12", "[   10s] training: 10/12"]


def test_time_gone_counts_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    progress = PlainProgress(stream)
    now = 104.0
    progress.message("baselines are tuned")
    progress.start(2, None)
    now = 106.0
    progress.generation(0, {})
    assert [line[:8] for line in stream.getvalue().splitlines()] == ["[    4s]", "[    6s]"]
    assert stream.getvalue().rstrip().endswith("2s left")


def test_a_terminal_shows_where_the_search_stands() -> None:
    stream = Terminal()
    tell_all(LiveProgress(stream))
    text = clean(stream.getvalue())
    for words in (
        "generation 1/8",
        "best ×1.125",
        "front 4",
        "310 rules/s",
        "proposed 120 → unique 101",
        "2/5",
    ):
        assert words in text, words
    assert "\x1b[31m" not in stream.getvalue()
    assert "[bold]" in text


def test_the_display_fits_the_stream() -> None:
    assert isinstance(make_progress(stream=io.StringIO()), PlainProgress)
    assert isinstance(make_progress(stream=Terminal()), LiveProgress)
    assert isinstance(make_progress(quiet=True), QuietProgress)


def test_missing_numbers_are_left_out() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.start(None, None)
    progress.generation(3, {"best_speedup": None, "trained": 2})
    assert stream.getvalue().rstrip().endswith("generation 4: 2 trained")


def test_the_time_left_follows_the_pace_and_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.start(10, 1000.0)
    now = 120.0  # a first generation that compiles is slow, and is not taken for the pace
    progress.generation(0, {})
    now = 125.0
    progress.generation(1, {})
    now = 995.0 + 100.0
    progress.generation(2, {})
    left = [line.rpartition(" · ")[2] for line in stream.getvalue().splitlines()]
    assert left == ["3m00s left", "40s left", "5s left"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é ×\n\ttab", "plain é ×\n\ttab"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07rest", "rest"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x07b\x08c\rd", "abcd"),
        ("\x9b31mred", "red"),
        ("\u202ereversed", "reversed"),
        ("\x1bcreset", "reset"),
        ("\x1b[2J\x1b[", ""),
        ("a\r\nb", "a\nb"),
    ],
)
def test_text_is_made_safe(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_numbers_as_words() -> None:
    assert [format_span(s) for s in (0, 0.25, 12, 59.7, 185, 7800)] == [
        "0s", "250ms", "12s", "1m00s", "3m05s", "2h10m",
    ]  # fmt: skip
    assert [format_bytes(n) for n in (10, 2048, 3 * 1024**3)] == ["10 B", "2.0 KiB", "3.0 GiB"]
    assert [format_count(n) for n in (None, 3, 0.123456, 1e-16)] == ["—", "3", "0.1235", "1e-16"]
    assert [format_ratio(v) for v in (None, 1.297, 12.34)] == ["—", "×1.30", "×12.3"]
