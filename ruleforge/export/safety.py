"""What strangers wrote, made harmless before it stands in a file that people run.

Docstrings and names come with rules that others share. Code is written from names only after
they have been checked to be plain identifiers, and a docstring is text that cannot end early.
"""

from __future__ import annotations

import builtins
import keyword
import re
import textwrap
from collections.abc import Iterable

from ruleforge.core.text import RuleText
from ruleforge.errors import ExportError

MAX_DOC_LINES = 60
_KEYWORDS = frozenset({*keyword.kwlist, *keyword.softkwlist})
_BUILTINS = frozenset(dir(builtins))
# Classes that a script imports from torch by these names.
_TORCH_CLASSES = frozenset(
    "ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax LBFGS Muon NAdam Optimizer RAdam RMSprop Rprop SGD "
    "SparseAdam Tensor Parameter Module Generator Size Storage device dtype".split()
)
_TORCH_MODULES = frozenset("torch optim nn math functional utils cuda autograd".split())


def plain_lines(text: str, width: int) -> list[str]:
    """The text as lines of printable characters, wrapped; nothing in them can end a docstring.

    Quotes in threes become apostrophes, characters that do not print become spaces, and backslashes
    are doubled, so that Python reads back the ones that were written.
    """
    lines: list[str] = []
    for paragraph in _paragraphs(text):
        indent = min(len(paragraph) - len(paragraph.lstrip()), 20)
        wrapped = textwrap.wrap(
            paragraph.strip(), width - indent, break_long_words=False, break_on_hyphens=False
        )  # fmt: skip
        lines += [" " * indent + part for part in wrapped] or [""]
    while lines and not lines[0]:
        lines.pop(0)
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) > MAX_DOC_LINES:
        lines = [*lines[:MAX_DOC_LINES], "…"]
    return [line.replace('"""', "'''").replace("\\", "\\\\") for line in lines]


def _paragraphs(text: str) -> list[str]:
    """Printable lines; those that stand at the margin, one after the other, flow together."""
    found: list[str] = []
    flows = False
    for raw in text.expandtabs(4).splitlines():
        line = "".join(char if char.isprintable() else " " for char in raw).rstrip()
        at_margin = bool(line) and not line.startswith(" ")
        if flows and at_margin:
            found[-1] += f" {line}"
        else:
            found.append(line)
        flows = at_margin
    return found


def is_plain_name(name: object) -> bool:
    """Whether a name is an ASCII identifier that Python can assign to."""
    return isinstance(name, str) and name.isascii() and name.isidentifier() and name not in _KEYWORDS


def check_names(text: RuleText) -> None:
    """Refuse rule texts whose names are no identifiers, however they were made.

    Raises:
        ExportError: with the first such name.
    """
    names: Iterable[str] = (*text.hypers, *text.states, *(line.target for line in text.lines))
    for name in names:
        if not is_plain_name(name):
            raise ExportError(f"{name!r} is no name that code can use", hint="rename it in the rule text")


def check_class_name(name: str) -> str:
    """The class name, if it is one that a script can import without harm.

    Raises:
        ExportError: it is no identifier, a keyword, a builtin or a name of torch.
    """
    if not isinstance(name, str) or not name.isascii() or not name.isidentifier() or len(name) > 60:
        raise ExportError(f"{name!r} is no class name", hint="use letters, digits and _, such as MyLion")
    if name in _KEYWORDS:
        raise ExportError(f"{name!r} is a keyword of Python", hint=f"try {_other(name)!r}")
    if name in _BUILTINS:
        raise ExportError(f"{name!r} shadows a builtin of Python", hint=f"try {_other(name)!r}")
    if name in _TORCH_CLASSES or name in _TORCH_MODULES:
        raise ExportError(f"{name!r} shadows a name of torch", hint=f"try {_other(name)!r}")
    if name.startswith("_"):
        raise ExportError(f"{name!r} starts with _", hint="a class that others import has a public name")
    return name


def _other(name: str) -> str:
    return f"{name[:1].upper()}{name[1:]}Rule"


def class_name_for(doc: str) -> str:
    """A class name from the headline of a docstring: `Lion. Chen et al.` → `Lion`.

    Where torch has a class of that name, `Rule` is appended: `AdamRule`.
    """
    headline = re.split(r"[.,:\n(]", doc.strip(), maxsplit=1)[0]
    words = re.findall(r"[A-Za-z0-9]+", headline if headline.isascii() else "")
    name = "".join(word[:1].upper() + word[1:] for word in words)
    if not name or not name[0].isalpha() or len(name) > 40:
        return "DiscoveredRule"
    taken = name in _TORCH_CLASSES | _TORCH_MODULES | _KEYWORDS | _BUILTINS
    return f"{name}Rule" if taken else name


def snake(name: str) -> str:
    """`CautiousLion` → `cautious_lion`, `RAdam` → `radam`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
