"""Ctrl-C that is never lost, and a second one that always ends the process.

An exception that is raised while Python clears a weak reference or finalises an object is reported
and dropped, and interned expressions are cleared all the time: without help, one Ctrl-C in some
dozens would print a traceback and change nothing. A request to terminate, as batch systems send it,
counts as Ctrl-C. Knows signals; does not know what was interrupted.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

AGAIN_S: Final = 0.02
INTERRUPTED: Final = 130


@contextmanager
def every_interrupt() -> Iterator[None]:
    """Within, the first interrupt raises KeyboardInterrupt, for certain; the second ends the process.

    A KeyboardInterrupt that Python drops is raised again a moment later, in silence. The first one lets
    the run put itself in order, which takes moments; whoever asks again gets the prompt back at once,
    and loses nothing that was stored.
    """
    before = sys.unraisablehook
    seen = 0

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            before(dropped)
            return
        # Not at once: here it would be dropped again. Not as a signal: that would count as a second one.
        timer = threading.Timer(AGAIN_S, _raise_in_main)
        timer.daemon = True
        timer.start()

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            with suppress(OSError):
                os.write(2, b"interrupted twice: ended at once\n")
            _end_children()
            os._exit(INTERRUPTED)
        raise KeyboardInterrupt

    def _raise_in_main() -> None:
        nonlocal seen
        seen -= 1
        _thread.interrupt_main(signal.SIGINT)

    kept: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in kept:
            signal.signal(number, handler)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        for number, old in kept.items():
            signal.signal(number, old)


def _end_children() -> None:
    """Kill the processes that this one started, so that none is left behind."""
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError, ValueError):
            for child in map(int, listed.read_text(encoding="ascii").split()):
                with suppress(OSError):
                    os.kill(child, signal.SIGKILL)
