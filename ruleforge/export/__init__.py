"""Rules as files that people take away: one function a target, and the door that writes files.

A target takes a rule with its names and gives text; nothing of it needs ruleforge afterwards. A
new target is one file and one entry in `TARGETS`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruleforge.core.format import name_rule
from ruleforge.core.rule import Rule
from ruleforge.core.text import RuleText
from ruleforge.errors import ExportError
from ruleforge.export.json import export_json
from ruleforge.export.latex import export_latex
from ruleforge.export.numpy import export_numpy
from ruleforge.export.optax import export_optax
from ruleforge.export.sympy import export_sympy
from ruleforge.export.torch import export_torch
from ruleforge.export.triton import export_triton
from ruleforge.words import did_you_mean


@dataclass(frozen=True)
class Target:
    """Something that a rule can be exported to.

    Attributes:
        export: `export(text, **options)` gives the file's text.
        suffix: of its files, with the dot.
        doc: one line for people.
    """

    export: Callable[..., str]
    suffix: str
    doc: str

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that it takes."""
        return tuple(inspect.signature(self.export).parameters)[1:]


TARGETS: dict[str, Target] = {
    "torch": Target(export_torch, ".py", "a torch optimizer in one file that needs torch alone"),
    "triton": Target(export_triton, ".py", "the fused kernel for fused=True, to lie beside the torch file"),
    "optax": Target(export_optax, ".py", "a GradientTransformation in one file that needs jax and optax"),
    "numpy": Target(export_numpy, ".py", "the rule in a page of numpy, for teaching"),
    "latex": Target(export_latex, ".tex", "a LaTeX document with the rule in an algorithm box"),
    "sympy": Target(export_sympy, ".py", "the update and the recurrences as sympy expressions, for algebra"),
    "json": Target(export_json, ".json", "the rule, its facts and its origin, for other programs"),
}


def export(rule: Rule | RuleText, target: str, **options: Any) -> str:
    """The text of a file for a target.

    Args:
        rule: a rule; one without names is given names.
        target: a name in `TARGETS`.
        options: what the target takes besides, see `Target.options`.

    Raises:
        ExportError: the target or an option is unknown, or the target refuses the rule.
    """
    if target not in TARGETS:
        hint = did_you_mean(target, TARGETS, f"targets: {', '.join(TARGETS)}")
        raise ExportError(f"unknown target {target!r}", hint=hint)
    unknown = sorted(set(options) - set(TARGETS[target].options))
    if unknown:
        takes = ", ".join(TARGETS[target].options) or "none"
        raise ExportError(f"{target} takes no option {unknown[0]!r}", hint=f"its options: {takes}")
    text = rule if isinstance(rule, RuleText) else name_rule(rule)
    return TARGETS[target].export(text, **options)


def write(path: str | Path, text: str, *, force: bool = False) -> Path:
    """Write an exported file, never half of it, and never over another unless told to.

    Raises:
        ExportError: the file exists, or the folder cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise ExportError("is a folder", file=str(path), hint="name a file in it")
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    claimed = False
    try:
        if not force:
            open(path, "x").close()
            claimed = True
        draft.write_text(text, encoding="utf-8", newline="\n")
        os.replace(draft, path)
    except FileExistsError:
        raise ExportError(
            "exists already", file=str(path), hint="choose another path, or use --force"
        ) from None
    except OSError as error:
        with suppress(OSError):  # a read-only disk refuses this too, and has told why already
            draft.unlink(missing_ok=True)
            if claimed:
                path.unlink(missing_ok=True)
        hint = "choose a folder that exists and that you may write to"
        raise ExportError(
            f"cannot be written: {error.strerror or error}", file=str(path), hint=hint
        ) from None
    return path


__all__ = ["TARGETS", "Target", "export", "write"]
