"""ruleforge: searches for update rules of neural networks, and hands over formulas and tested optimizers.

    import ruleforge as rf

    run = rf.search("quickstart")                         # or rf.load("results/…")
    print(run.champion)
    optimizer = run.champion.rule.optimizer(model.parameters(), lr=1e-3)

Importing it is light: torch and the other heavy libraries are imported when something needs them.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "search",
    "load",
    "compare",
    "export",
    "parse",
    "known",
    "Rule",
    "RuleText",
    "Run",
    "swap",
    "RuleforgeError",
    "__version__",
]

if TYPE_CHECKING:
    from ruleforge.app.api import Run, compare, export, load, search
    from ruleforge.core.known import known
    from ruleforge.core.rule import Rule
    from ruleforge.core.text import RuleText, parse
    from ruleforge.errors import RuleforgeError
    from ruleforge.optim import swap

# Public name -> module that holds it.
_HOMES = {
    "load": "ruleforge.app.api",
    "compare": "ruleforge.app.api",
    "Run": "ruleforge.app.api",
    "known": "ruleforge.core.known",
    "Rule": "ruleforge.core.rule",
    "RuleText": "ruleforge.core.text",
    "parse": "ruleforge.core.text",
    "RuleforgeError": "ruleforge.errors",
    "swap": "ruleforge.optim",
}
# Parts of the package that are also functions of its API: `rf.search(…)` and `ruleforge.search.grammar`.
_CALLED = ("search", "export")


class _CallableModule(ModuleType):
    """A part whose name is also a function of the API."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(import_module("ruleforge.app.api"), name)(*args, **options)


class _Package(ModuleType):
    """This package. Python binds each part to it on import, whoever imports it, and that is the moment
    at which a part that is also a function becomes callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLED and type(value) is ModuleType:
            value.__class__ = _CallableModule
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """The public names, on first use."""
    if name in _CALLED:
        return import_module(f"ruleforge.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
