"""A Ctrl-C that falls where Python drops exceptions arrives all the same, without a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from ruleforge.app.interrupts import every_interrupt


class Thing:
    pass


def interrupted_while_clearing() -> None:
    """Raises SIGINT inside a weak reference's callback, where KeyboardInterrupt is dropped."""
    thing = Thing()
    watch = weakref.ref(thing, lambda dead: signal.raise_signal(signal.SIGINT))
    del thing
    assert watch() is None


@pytest.fixture
def patience() -> Callable[[], None]:
    """Waits for an interrupt for as long as a slow machine may need."""

    def wait() -> None:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            time.sleep(0.001)

    return wait


def test_a_dropped_interrupt_is_raised_again(
    patience: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    arrived = False
    with every_interrupt():
        try:
            interrupted_while_clearing()
            patience()
        except KeyboardInterrupt:
            arrived = True
    assert arrived
    assert capsys.readouterr().err == ""


def test_other_dropped_exceptions_are_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(dropped.exc_value))
    before = sys.unraisablehook

    def fails(dead: object) -> None:
        raise ValueError("boom")

    with every_interrupt():
        thing = Thing()
        watch = weakref.ref(thing, fails)
        del thing
        assert watch() is None
    assert [str(each) for each in told] == ["boom"]
    assert sys.unraisablehook is before


TWICE = """
import signal, sys, time
from ruleforge.app.interrupts import every_interrupt
with every_interrupt():
    try:
        print("up", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("tidying", flush=True)
        if sys.argv[1] == "stuck":
            time.sleep(60)
        sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("state", ["stuck", "well"])
def test_the_second_interrupt_ends_what_the_first_could_not(number: signal.Signals, state: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TWICE, state],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    assert process.stdout.readline() == "tidying\n"
    if state == "stuck":
        process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr == ("interrupted twice: ended at once\n" if state == "stuck" else "")
