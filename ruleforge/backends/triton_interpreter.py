"""Triton's interpreter, without what takes most of its time.

It patches the language anew at each call of a function from a kernel. Starting the kernel has patched what
our functions use; Triton's own, such as `tl.sum`, need it once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from triton.runtime import interpreter


@contextmanager
def quick_interpreter() -> Iterator[None]:
    """As long as it lasts, kernels are interpreted several times as fast; without effect on a GPU."""
    original = interpreter.InterpretedFunction.__call__
    patched: set[int] = set()

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "tl" not in self.fn.__globals__ and id(self.fn.__globals__) not in patched:
            interpreter._patch_lang(self.fn)
            patched.add(id(self.fn.__globals__))
        return self.rewrite()(*args, **kwargs)

    interpreter.InterpretedFunction.__call__ = call
    try:
        yield
    finally:
        interpreter.InterpretedFunction.__call__ = original
