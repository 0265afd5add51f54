"""Ctrl-C that is never lost.

An exception that is raised while Python clears a weak reference or finalises an object is reported
and dropped, and interned expressions are cleared all the time: without help, one Ctrl-C in some
dozens would print a traceback and change nothing. Knows signals; does not know what was interrupted.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

AGAIN_S: Final = 0.02


@contextmanager
def every_interrupt() -> Iterator[None]:
    """Within, a KeyboardInterrupt that Python drops is raised again a moment later, in silence."""
    before = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            before(dropped)
            return
        # Not at once: here it would be dropped again.
        timer = threading.Timer(AGAIN_S, _thread.interrupt_main)
        timer.daemon = True
        timer.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
