"""Functions that exported Python carries along, where a library means something else by an op.

Each source is text that is written into a file as it stands, and only into files that call it. A
helper may call others; `with_needed` collects them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ruleforge.core.format import format_number
from ruleforge.core.ops import NEWTON_SCHULZ, NEWTON_SCHULZ_EPS, NEWTON_SCHULZ_STEPS

_A, _B, _C = (format_number(value) for value in NEWTON_SCHULZ)


def _torch_compare(name: str, symbol: str) -> str:
    return f'''
def {name}(a: Tensor | float, b: Tensor | float) -> Tensor:
    """1 where a {symbol} b, else 0; NaN where either is NaN."""
    return _mask(a {symbol} b, a, b)
'''


def _numpy_compare(name: str, symbol: str) -> str:
    return f'''
def {name}(a: Array, b: Array) -> Array:
    """1 where a {symbol} b, else 0; NaN where either is NaN."""
    return _mask(a {symbol} b, a, b)
'''


_COMPARE = {
    "_less": "<",
    "_less_equal": "<=",
    "_greater": ">",
    "_greater_equal": ">=",
    "_equal": "==",
    "_not_equal": "!=",
}

TORCH_HELPERS: dict[str, str] = {
    "_ieee": '''
def _ieee(op: Callable[..., Tensor], *args: Any) -> Any:
    """An op on numbers that answers as IEEE does: 1 / 0 is inf. Tensors stay tensors."""
    found = op(*(torch.as_tensor(arg, dtype=torch.float64) for arg in args))
    return found if any(isinstance(arg, Tensor) for arg in args) else float(found)
''',
    "_as_real": '''
def _as_real(x: Tensor) -> Tensor:
    """Complex numbers as pairs of real ones, in the same memory."""
    return torch.view_as_real(x) if x.is_complex() else x
''',
    "_take_back": '''
def _take_back(overflow: Tensor, written: list[Tensor], before: list[Tensor]) -> None:
    """Undo a step with an overflow, without waiting for the device to say whether."""
    for x, old in zip(written, before, strict=True):
        x.copy_(torch.where(overflow.to(x.device) != 0, old, x))
''',
    "_number": '''
def _number(x: Tensor, capturable: bool) -> float | Tensor:
    """A number, or a copy as a tensor where the device must not be waited for."""
    return x.to(torch.float64, copy=True) if capturable else x.item()
''',
    "_one_for_all": '''
def _one_for_all(states: list[Tensor], capturable: bool) -> Any:
    """The number that all of these are, or a list of tensors: see _number."""
    found = states if capturable else states[:1]
    numbers = [_number(x, capturable) for x in found]
    return numbers if capturable else numbers[0]
''',
    "_each": '''
def _each(op: Callable[..., Any], *args: Any) -> Any:
    """An op on each tensor of lists; what is no list goes to each of them."""
    lists = [arg for arg in args if isinstance(arg, list | tuple)]
    if not lists:
        return op(*args)
    size = len(lists[0])
    columns = [a if isinstance(a, list | tuple) else [a] * size for a in args]
    return [op(*row) for row in zip(*columns, strict=True)]
''',
    "_columns": '''
def _columns(op: Callable[..., tuple[Any, ...]], *args: Any) -> tuple[Any, ...]:
    """What an op gives for numbers; for lists of them, a list of each thing that it gives."""
    if not any(isinstance(arg, list | tuple) for arg in args):
        return op(*args)
    return tuple(list(column) for column in zip(*_each(op, *args), strict=True))
''',
    "_store": '''
def _store(states: list[Tensor], values: Any) -> None:
    """Keep a number, or one of a list, in each 0-dim tensor."""
    for i, state in enumerate(states):
        state.fill_(values[i] if isinstance(values, list) else values)
''',
    "_choose": '''
def _choose(c: Tensor | bool, a: Tensor, b: Tensor) -> Tensor:
    """The value a where c holds, else b."""
    return torch.where(c, a, b) if isinstance(c, Tensor) else (a if c else b)
''',
    "_like": '''
def _like(number: Tensor | float, w: Tensor) -> Tensor:
    """A number as a tensor of the same dtype and device as w."""
    return torch.as_tensor(number, dtype=w.dtype, device=w.device)
''',
    "_is_first": '''
def _is_first(t: Any) -> Any:
    """1 at the first step, else 0."""
    return (t == 1).double() if isinstance(t, Tensor) else float(t == 1)
''',
    "_smaller": '''
def _smaller(a: Any, b: float) -> Any:
    """The smaller of two numbers, the first of which may be a tensor."""
    return torch.clamp(a, max=b) if isinstance(a, Tensor) else min(a, b)
''',
    "_sign": '''
def _sign(x: Tensor) -> Tensor:
    """Sign of x; NaN stays NaN, which torch.sign would turn into 0."""
    return torch.where(torch.isnan(x), x, torch.sign(x))
''',
    "_signs_": '''
def _signs_(xs: list[Tensor] | tuple[Tensor, ...]) -> None:
    """Signs in place, NaN kept. A number of float32 or wider that is below the normal ones
    becomes less than 1, that is, almost nothing."""
    dtype = xs[0].dtype
    # As a tensor: torch would make one of a Python number for every tensor of the list.
    scale = xs[0].new_full((), 1 / torch.finfo(dtype).tiny)
    for _ in range(2 if dtype is torch.float16 else 1):
        torch._foreach_mul_(xs, scale)
    for x in xs:
        torch.nn.functional.hardtanh_(x)  # between -1 and 1
''',
    "_cbrt": '''
def _cbrt(x: Tensor) -> Tensor:
    """Real cube root."""
    return torch.copysign(torch.abs(x) ** (1 / 3), x)
''',
    "_clip": '''
def _clip(x: Tensor | float, low: Tensor | float, high: Tensor | float) -> Tensor:
    """The smaller of high and the larger of x and low; NaN where one of them is NaN."""
    like = next(value for value in (x, low, high) if isinstance(value, Tensor))
    options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    x, low, high = (torch.as_tensor(value, **options) for value in (x, low, high))
    return torch.minimum(torch.maximum(x, low), high)
''',
    "_where": '''
def _where(c: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """The value a where c is not 0, else b; NaN where c is NaN."""
    a, b = (torch.as_tensor(value, dtype=c.dtype, device=c.device) for value in (a, b))
    return torch.where(torch.isnan(c), c, torch.where(c != 0, a, b))
''',
    "_mask": '''
def _mask(holds: Tensor | bool, a: Tensor | float, b: Tensor | float) -> Tensor:
    """1 where a comparison of a and b holds, else 0; NaN where either is NaN."""
    unknown = torch.isnan(torch.as_tensor(a)) | torch.isnan(torch.as_tensor(b))
    like: Any = b
    if isinstance(a, Tensor) and not (isinstance(b, Tensor) and b.dim() > a.dim()):
        like = a
    return torch.as_tensor(holds).to(like.dtype).masked_fill(unknown, torch.nan)
''',
    **{name: _torch_compare(name, symbol) for name, symbol in _COMPARE.items()},
    "_mean": '''
def _mean(x: Tensor) -> Tensor:
    """Mean over the tensor; 0 where it is empty."""
    return x.sum() / max(x.numel(), 1)
''',
    "_rms": '''
def _rms(x: Tensor) -> Tensor:
    """Root of the mean square over the tensor; 0 where it is empty."""
    return torch.sqrt(x.square().sum() / max(x.numel(), 1))
''',
    "_dot": '''
def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of two tensors."""
    return (a * b).sum()
''',
    "_max_abs": '''
def _max_abs(x: Tensor) -> Tensor:
    """Largest |x| over the tensor; 0 where it is empty."""
    return x.abs().amax() if x.numel() else x.new_zeros(())
''',
    "_orthogonalize": f'''
def _orthogonalize(x: Tensor) -> Tensor:
    """Five Newton-Schulz steps towards U V^T for a matrix, as in Muon; other tensors unchanged."""
    if x.ndim != 2:
        return x
    y = x.mT if x.shape[0] > x.shape[1] else x
    y = y / torch.clamp(torch.linalg.vector_norm(y), min={format_number(NEWTON_SCHULZ_EPS)})
    for _ in range({NEWTON_SCHULZ_STEPS}):
        gram = y @ y.mT
        y = {_A} * y + ({_B} * gram + {_C} * (gram @ gram)) @ y
    return y.mT if x.shape[0] > x.shape[1] else y
''',
}

NUMPY_HELPERS: dict[str, str] = {
    "_where": '''
def _where(c: Array, a: Array, b: Array) -> Array:
    """The value a where c is not 0, else b; NaN where c is NaN."""
    return np.where(np.isnan(c), c, np.where(c != 0, a, b))
''',
    "_mask": '''
def _mask(holds: Array, a: Array, b: Array) -> Array:
    """1 where a comparison of a and b holds, else 0; NaN where either is NaN."""
    unknown = np.isnan(a) | np.isnan(b)
    return np.where(unknown, np.nan, holds).astype(np.result_type(a, b))
''',
    **{name: _numpy_compare(name, symbol) for name, symbol in _COMPARE.items()},
    "_norm": '''
def _norm(x: Array) -> Array:
    """2-norm of the whole array, summed in float64."""
    return x.dtype.type(np.sqrt(np.sum(np.square(x, dtype=np.float64))))
''',
    "_mean": '''
def _mean(x: Array) -> Array:
    """Mean over the array, summed in float64; 0 where it is empty."""
    return x.dtype.type(np.sum(x, dtype=np.float64) / max(x.size, 1))
''',
    "_rms": '''
def _rms(x: Array) -> Array:
    """Root of the mean square over the array; 0 where it is empty."""
    return x.dtype.type(np.sqrt(np.sum(np.square(x, dtype=np.float64)) / max(x.size, 1)))
''',
    "_dot": '''
def _dot(a: Array, b: Array) -> Array:
    """Inner product of two arrays, summed in float64."""
    return a.dtype.type(np.sum(np.multiply(a, b, dtype=np.float64)))
''',
    "_max_abs": '''
def _max_abs(x: Array) -> Array:
    """Largest |x| over the array; 0 where it is empty."""
    return np.max(np.abs(x), initial=x.dtype.type(0))
''',
    "_orthogonalize": f'''
def _orthogonalize(x: Array) -> Array:
    """Five Newton-Schulz steps towards U V^T for a matrix, as in Muon; other arrays unchanged."""
    if x.ndim != 2:
        return x
    y = x.T if x.shape[0] > x.shape[1] else x
    y = y / np.maximum(_norm(y), {format_number(NEWTON_SCHULZ_EPS)})
    for _ in range({NEWTON_SCHULZ_STEPS}):
        gram = y @ y.T
        y = {_A} * y + ({_B} * gram + {_C} * (gram @ gram)) @ y
    return y.T if x.shape[0] > x.shape[1] else y
''',
}


JAX_HELPERS: dict[str, str] = {
    **{name: NUMPY_HELPERS[name].replace("np.", "jnp.") for name in (*_COMPARE, "_where", "_mask")},
    "_sign": '''
def _sign(x: Array) -> Array:
    """-1, 0 or 1; 0 for -0 too, which jnp.sign keeps."""
    return jnp.where(x == 0, 0.0, jnp.sign(x))
''',
    "_norm": '''
def _norm(x: Array) -> Array:
    """2-norm of the whole array."""
    return jnp.sqrt(jnp.sum(jnp.square(x)))
''',
    "_mean": '''
def _mean(x: Array) -> Array:
    """Mean over the array; 0 where it is empty."""
    return jnp.sum(x) / max(x.size, 1)
''',
    "_rms": '''
def _rms(x: Array) -> Array:
    """Root of the mean square over the array; 0 where it is empty."""
    return jnp.sqrt(jnp.sum(jnp.square(x)) / max(x.size, 1))
''',
    "_dot": '''
def _dot(a: Array, b: Array) -> Array:
    """Inner product of two arrays."""
    return jnp.sum(a * b)
''',
    "_max_abs": '''
def _max_abs(x: Array) -> Array:
    """Largest |x| over the array; 0 where it is empty."""
    return jnp.max(jnp.abs(x), initial=0)
''',
    "_orthogonalize": NUMPY_HELPERS["_orthogonalize"].replace("np.", "jnp."),
    "_rate": '''
def _rate(learning_rate: Any, count: Any) -> Any:
    """The learning rate at a step, counted from 0."""
    return learning_rate(count) if callable(learning_rate) else learning_rate
''',
    "_shared": '''
def _shared(tree: Any, old: Any) -> Any:
    """A number that is the same for all arrays."""
    leaves = jax.tree.leaves(tree)
    return jnp.asarray(leaves[0], old.dtype) if leaves else old
''',
    "_cast": '''
def _cast(tree: Any, like: Any) -> Any:
    """Arrays in the shapes and dtypes of others."""
    return jax.tree.map(
        lambda x, y: jnp.broadcast_to(jnp.asarray(x, y.dtype), y.shape),
        tree,
        like,
    )
''',
}


def with_needed(names: Iterable[str], helpers: Mapping[str, str]) -> list[str]:
    """Sources of the helpers and of those that they call, in the order of the table."""
    wanted = set(names)
    while True:
        called = {other for name in wanted for other in helpers if re.search(rf"\b{other}\b", helpers[name])}
        if called <= wanted:
            return [source.strip() for name, source in helpers.items() if name in wanted]
        wanted |= called
