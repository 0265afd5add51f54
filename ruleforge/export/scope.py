"""Names that an exported torch file and its kernel need for themselves.

Both files are given the same hyperparameters by name, so both keep away from the same names.
"""

from __future__ import annotations

import builtins
import keyword

from ruleforge.render.helpers import TORCH_HELPERS

_TORCH = """
    torch importlib math Tensor Optimizer ParamsT Any Callable Iterator annotations params grads states state
    grad w g t lr lr0 progress is_matrix weight_decay maximize total_steps self group closure loss step steps
    p param defaults foreach capturable differentiable state_dtype fused initial_lr l O I low high value name
    decayed i x y z change lists part plain options compiling found rule version keys places key kept row
    columns compress RANGES RULE VERSION STATES OPTIONS HALF PLAIN BLOCK _rule _numbers
    _together _blocks _pieces
""".split()
_KERNEL = """
    triton tl os lru_cache grad_scale found_inf addresses tensors starts sizes live size inside place at MANY
    WIDE LIVE SCALED MAXIMIZE DECAYS numbers old number given
""".split()
RESERVED = frozenset(
    {*_TORCH, *_KERNEL, *keyword.kwlist, *keyword.softkwlist, *dir(builtins), *TORCH_HELPERS}
)
