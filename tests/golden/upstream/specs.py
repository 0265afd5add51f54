"""Which upstream optimizer each known rule is compared with, and how it is called.

A flat list of frozen records. Adding a comparison is adding a line here, then running `record.py`
(for packages other than torch, whose classes are compared live).

`TOLERANCE` holds for everything that upstream computes in float64 throughout. The few larger
figures belong to upstream classes which keep a scalar in float32, and say so in their note.

This module imports neither ruleforge nor any upstream package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

TOLERANCE = 1e-10


@dataclass(frozen=True)
class Spec:
    """One comparison of one rule with one upstream optimizer.

    Args:
        rule: name of the known rule.
        upstream: dotted path of the class or function, `torch.optim.Adam`; its first part names the
            package that is asked for its version.
        kwargs: what the upstream constructor is given besides parameters and lr.
        hypers: the rule's hyperparameters where they differ from its defaults.
        lr: learning rate, on both sides.
        weight_decay: the decoupled decay that the rule's side applies (upstream's is in `kwargs`).
        tolerance: bound on max |difference of weights| / max(1, max |w|) over all steps and streams.
        variant: tells apart two comparisons of one rule with one upstream.
        transpose: compare on (5, 7) in place of (7, 5) tensors.
        lift_bfloat16: undo upstream's casts to bfloat16 while it runs.
        note: why a figure or an argument is as it is.
    """

    rule: str
    upstream: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    hypers: Mapping[str, float] = field(default_factory=dict)
    lr: float = 1e-2
    weight_decay: float = 0.0
    tolerance: float = TOLERANCE
    variant: str = ""
    transpose: bool = False
    lift_bfloat16: bool = False
    note: str = ""

    @property
    def package(self) -> str:
        """The upstream package, as it is imported."""
        return self.upstream.split(".", 1)[0]

    @property
    def id(self) -> str:
        """Unique name, which is also the key of its recording."""
        return "--".join(part for part in (self.rule, self.upstream, self.variant) if part)


def _t(rule: str, name: str, /, hypers: Mapping[str, float] | None = None, **kwargs: Any) -> Spec:
    return Spec(rule, f"torch.optim.{name}", kwargs, hypers or {})


def _p(rule: str, name: str, /, hypers: Mapping[str, float] | None = None, **kwargs: Any) -> Spec:
    return Spec(rule, f"pytorch_optimizer.{name}", kwargs, hypers or {})


def _o(rule: str, name: str, /, hypers: Mapping[str, float] | None = None, **kwargs: Any) -> Spec:
    return Spec(rule, f"optax.{name}", kwargs, hypers or {})


def _m(rule: str, name: str, /, hypers: Mapping[str, float] | None = None, **kwargs: Any) -> Spec:
    return Spec(rule, f"timm.optim.{name}", kwargs, hypers or {})


ADAM_HYPERS = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}
ADAM_KWARGS = {"betas": (0.8, 0.95), "eps": 1e-3}
VISIBLE = "hyperparameters that make the place of eps visible"

SPECS: tuple[Spec, ...] = (
    # momentum
    _t("sgd", "SGD"),
    _o("sgd", "sgd"),
    _t("momentum", "SGD", momentum=0.9),
    _o("momentum", "sgd", momentum=0.9),
    Spec("momentum", "torch.optim.SGD", {"momentum": 0.5}, {"mu": 0.5}, variant="mu_half"),
    _t("momentum_dampened", "SGD", momentum=0.9, dampening=0.1),
    _t("nesterov", "SGD", momentum=0.9, nesterov=True),
    _o("nesterov", "sgd", momentum=0.9, nesterov=True),
    _o("ema_momentum", "ema", decay=0.9, debias=False),
    _p("ema_momentum", "QHM", momentum=0.9, nu=1.0),
    _o("ema_momentum_debiased", "ema", decay=0.9, debias=True),
    _p("qhm", "QHM", momentum=0.999, nu=0.7),
    _p("aggmo", "AggMo", betas=(0.0, 0.9, 0.99)),
    _p("pid", "PID", momentum=0.9),
    _p("pnm", "PNM", betas=(0.9, 1.0)),
    _o("optimistic_gd", "optimistic_gradient_descent"),
    # adaptive step sizes without momentum
    _t("adagrad", "Adagrad"),
    _o("adagrad_eps_inside", "adagrad"),
    _t("adadelta", "Adadelta"),
    Spec("adadelta", "torch.optim.Adadelta", {"rho": 0.8, "eps": 1e-3}, {"rho": 0.8, "eps": 1e-3},
         lr=1.0, variant="lr_one", note=VISIBLE),
    _o("adadelta", "adadelta", rho=0.9, eps=1e-6),
    _t("rmsprop", "RMSprop", alpha=0.99),
    Spec("rmsprop", "torch.optim.RMSprop", {"alpha": 0.9, "eps": 1e-2}, {"rho": 0.9, "eps": 1e-2},
         variant="large_eps", note=VISIBLE),
    _o("rmsprop", "rmsprop", decay=0.99, eps_in_sqrt=False),
    _o("rmsprop_eps_inside", "rmsprop", decay=0.9),
    _o("rmsprop_debiased", "rmsprop", decay=0.9, eps_in_sqrt=False, bias_correction=True),
    _t("rmsprop_centered", "RMSprop", alpha=0.99, centered=True),
    _t("rmsprop_momentum", "RMSprop", alpha=0.99, momentum=0.9),
    _o("rmsprop_momentum", "rmsprop", decay=0.99, momentum=0.9, eps_in_sqrt=False),
    _t("rmsprop_centered_momentum", "RMSprop", alpha=0.99, centered=True, momentum=0.9),
    _m("rmsprop_tf", "RMSpropTF", momentum=0.9),
    _p("kate", "Kate"),
    # the Adam family
    _t("adam", "Adam"),
    Spec("adam", "torch.optim.Adam", ADAM_KWARGS, ADAM_HYPERS, variant="large_eps", note=VISIBLE),
    _o("adam", "adam"),
    Spec("adamw", "torch.optim.AdamW", {"weight_decay": 0.01}, weight_decay=0.01),
    Spec("adamw", "torch.optim.AdamW", {"weight_decay": 0.5, **ADAM_KWARGS}, ADAM_HYPERS,
         weight_decay=0.5, variant="strong_decay"),
    Spec("adamw", "optax.adamw", {"weight_decay": 0.01}, weight_decay=0.01),
    Spec("adamw", "timm.optim.AdamWLegacy", {"weight_decay": 0.01}, weight_decay=0.01),
    _t("amsgrad", "Adam", amsgrad=True),
    Spec("amsgrad", "torch.optim.Adam", {"amsgrad": True, **ADAM_KWARGS}, ADAM_HYPERS,
         variant="large_eps", note=VISIBLE),
    _m("amsgrad", "AdamWLegacy", amsgrad=True, weight_decay=0.0),
    _o("amsgrad_max_of_debiased", "amsgrad"),
    _t("adamax", "Adamax"),
    Spec("adamax", "torch.optim.Adamax", ADAM_KWARGS, ADAM_HYPERS, variant="large_eps", note=VISIBLE),
    _o("adamax", "adamax"),
    _p("adamax", "AdaMax"),
    _t("nadam", "NAdam"),
    Spec("nadam", "torch.optim.NAdam", {"momentum_decay": 0.1, **ADAM_KWARGS},
         {"psi": 0.1, **ADAM_HYPERS}, variant="large_eps", note=VISIBLE),
    _m("nadam", "NAdamLegacy"),
    _o("nadam_constant", "nadam"),
    Spec("nadam_simple", "timm.optim.NAdamW", {"weight_decay": 0.01}, weight_decay=0.01),
    _t("radam", "RAdam"),
    Spec("radam", "torch.optim.RAdam", ADAM_KWARGS, ADAM_HYPERS, variant="large_eps", note=VISIBLE),
    _o("radam_eps_debiased", "radam"),
    _p("adabelief", "AdaBelief"),
    _o("adabelief", "adabelief"),
    _m("adabelief", "AdaBelief", rectify=False),
    Spec("adabelief", "pytorch_optimizer.AdaBelief", {"eps": 1e-3}, {"eps": 1e-3},
         variant="large_eps", note=VISIBLE),
    _m("adabelief_rectified", "AdaBelief"),
    _p("adabelief_rectified", "AdaBelief", rectify=True),
    Spec("adabelief_rectified", "timm.optim.AdaBelief", {"eps": 1e-3}, {"eps": 1e-3},
         variant="large_eps", note=VISIBLE),
    _p("yogi", "Yogi"),
    _o("yogi", "yogi"),
    _p("adamod", "AdaMod"),
    _p("adabound", "AdaBound"),
    _p("amsbound", "AdaBound", ams_bound=True),
    _p("diffgrad", "DiffGrad"),
    _p("adan", "Adan"),
    _m("adan", "Adan"),
    _o("adan_optax", "adan"),
    _p("grams", "Grams"),
    _o("adopt", "contrib.adopt"),
    _m("adopt", "Adopt", {"clip_power": 0.333}),
    Spec("adopt", "optax.contrib.adopt", {"eps": 0.1}, {"eps": 0.1},
         variant="large_eps", note=VISIBLE),
    _p("adopt_po", "ADOPT"),
    Spec("adopt_po", "pytorch_optimizer.ADOPT", {"eps": 0.1}, {"eps": 0.1},
         variant="large_eps", note=VISIBLE),
    _p("ademamix", "AdEMAMix"),
    _o("ademamix", "contrib.ademamix"),
    _o("simplified_ademamix", "contrib.simplified_ademamix", alpha=1.0),
    _m("laprop", "LaProp"),
    Spec("laprop", "timm.optim.LaProp", {"eps": 1e-3}, {"eps": 1e-3},
         variant="large_eps", note=VISIBLE),
    Spec("laprop_po", "pytorch_optimizer.LaProp", tolerance=5e-9,
         note="upstream's batched path keeps one scalar in float32"),
    Spec("laprop_po", "pytorch_optimizer.LaProp", {"eps": 1e-3, "foreach": False}, {"eps": 1e-3},
         variant="large_eps, one tensor at a time", note=VISIBLE),
    Spec("qhadam", "pytorch_optimizer.QHAdam", {"nus": (0.7, 0.9)}, tolerance=5e-8,
         note="upstream keeps the moving weight of its averages in float32"),
    _o("acprop", "contrib.acprop"),
    _p("padam", "PAdam"),
    _p("exadam", "EXAdam"),
    _p("msvag", "MSVAG"),
    _p("ano", "Ano"),
    # signs
    _o("signsgd", "sign_sgd"),
    _p("signsgd", "SignSGD", momentum=0.0),
    _o("signum", "signum", beta=0.9),
    _p("signum", "SignSGD", momentum=0.9),
    Spec("tiger", "pytorch_optimizer.Tiger", {"weight_decay": 0.01}, weight_decay=0.01),
    Spec("lion", "pytorch_optimizer.Lion", {"weight_decay": 0.1}, weight_decay=0.1),
    Spec("lion", "optax.lion", {"weight_decay": 1e-3}, weight_decay=1e-3),
    _m("lion", "Lion"),
    _o("lion_tanh", "scale_by_lion", mode="smooth"),
    Spec("powersign", "tensorflow.raw_ops.ResourceApplyPowerSign",
         {"logbase": 1.0, "sign_decay": 1.0, "beta": 0.9}),
    Spec("addsign", "tensorflow.raw_ops.ResourceApplyAddSign",
         {"alpha": 1.0, "sign_decay": 1.0, "beta": 0.9}),
    _t("rprop", "Rprop"),
    _o("rprop_optax", "rprop"),
    # cautious
    Spec("cautious_adamw", "timm.optim.AdamWLegacy", {"caution": True, "weight_decay": 0.01},
         weight_decay=0.01),
    _m("cautious_lion", "Lion", caution=True),
    _p("cautious_lion_po", "Lion", cautious=True),
    # reductions over the tensor
    _m("mars_adamw", "Mars", betas=(0.95, 0.99)),
    _p("mars_adamw_po", "MARS"),
    _m("mars_lion", "Mars", betas=(0.95, 0.99), mars_type="lion"),
    _p("mars_lion_po", "MARS", mars_type="lion"),
    _p("novograd", "NovoGrad"),
    _o("novograd", "novograd", b1=0.95, b2=0.98, eps=1e-8),
    _m("novograd", "NvNovoGrad"),
    Spec("novograd", "pytorch_optimizer.NovoGrad", {"eps": 0.1}, {"eps": 0.1},
         variant="large_eps", note=VISIBLE),
    Spec("lars", "pytorch_optimizer.LARS", {"weight_decay": 0.01, "trust_coefficient": 0.1},
         {"trust": 0.1, "decay": 0.01}, lr=0.1),
    Spec("lars", "timm.optim.Lars",
         {"momentum": 0.9, "weight_decay": 0.01, "trust_coeff": 0.1, "eps": 1e-16},
         {"trust": 0.1, "decay": 0.01}, lr=0.1, note="eps as near to the paper's none as floats see"),
    Spec("lars_norm_of_sum", "optax.lars", {"weight_decay": 0.01, "trust_coefficient": 0.1},
         {"trust": 0.1, "decay": 0.01}, lr=0.1),
    _o("lamb", "lamb", weight_decay=0.01),
    _m("lamb", "Lamb", max_grad_norm=None),
    _p("lamb_po", "Lamb"),
    _p("stable_adamw", "StableAdamW"),
    _p("avagrad", "AvaGrad"),
    _p("adai", "Adai"),
    _p("fromage", "Fromage"),
    _o("normalized_gd", "normalize_by_update_norm"),
    _o("clipped_sgd", "clip_by_global_norm", max_norm=1.0),
    # beyond the elementwise and per-tensor classes, yet within the language
    _p("madgrad", "MADGRAD"),
    _m("madgrad", "MADGRAD"),
    Spec("madgrad", "optax.contrib.madgrad", tolerance=5e-8, note="upstream computes sqrt(t) in float32"),
    Spec("muon", "torch.optim.Muon", {"weight_decay": 0.1}, weight_decay=0.1, transpose=True,
         lift_bfloat16=True, variant="wide, bfloat16 lifted",
         note="the factor that depends on the shape is 1 on matrices at least as wide as high"),
)  # fmt: skip


def digest(specs: tuple[Spec, ...]) -> str:
    """Hex digest of all that decides what upstream computes for these specs.

    Tolerances, notes and the rule's own hyperparameters are left out: they change no recording.
    """
    deciding = ("rule", "upstream", "kwargs", "lr", "variant")
    rows = [{key: asdict(spec)[key] for key in deciding} for spec in specs]
    return hashlib.blake2b(json.dumps(rows, sort_keys=True).encode(), digest_size=16).hexdigest()
