"""Arrays as pointers, for the inner loops of the interpreter.

A view of an array, or its address by way of `ctypes`, counts references with locked instructions, which for a
parameter tensor of ten numbers took as long as all the rest. Whoever uses these keeps the arrays alive.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic


@intrinsic
def start_of(typingctx: Any, array: Any) -> Any:
    """A pointer to the first element of a contiguous array."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), lower


@intrinsic
def moved(typingctx: Any, pointer: Any, n: Any) -> Any:
    """A pointer to n elements further on."""
    return pointer(pointer, types.intp), lambda context, builder, _, args: builder.gep(args[0], [args[1]])


@intrinsic
def pointer_to(typingctx: Any, like: Any, address: Any) -> Any:
    """An address as a pointer to elements of the type of `like`, an array or a pointer."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[1], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(like, types.intp), lower


@intrinsic
def prefetch(typingctx: Any, address: Any) -> Any:
    """Ask for the cache line at an address that will be read soon; any address is allowed."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.PointerType(ir.IntType(8))
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), (pointer, number, number, number))
        function = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), kind)
        how = (number(0), number(3), number(1))  # to read, into L1, data
        builder.call(function, (builder.inttoptr(args[0], pointer), *how))
        return context.get_dummy_value()

    return types.void(types.intp), lower
