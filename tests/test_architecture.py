"""Holds the arrows: which part may import which, and what no part may do.

The table below is the one of docs/design.md. An import counts wherever it stands, so a lazy import
inside a function is held to the same arrow. The tests walk over the modules that exist.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ruleforge"

# Importable by every part. All but `testing` must themselves import no part.
SHARED = frozenset({"errors", "records", "toml", "toml_places", "words", "testing"})
LEAVES = frozenset({"errors", "records", "toml", "toml_places", "words"})

# part -> what it may import of ruleforge; "core.text" allows that one module of core.
ARROWS: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "render": frozenset({"core"}),
    "backends": frozenset({"core"}),
    "tasks": frozenset(),
    "evaluate": frozenset({"core", "backends", "tasks"}),
    "search": frozenset({"core"}),
    "store": frozenset({"core.text"}),
    "simplify": frozenset({"core", "backends", "evaluate", "tasks"}),
    "explain": frozenset({"core", "render", "backends", "evaluate", "simplify", "tasks"}),
    "identify": frozenset({"core", "backends", "explain", "search", "simplify"}),
    "export": frozenset({"core", "render"}),
    "optim": frozenset({"core", "render", "backends"}),
}
# Single imports against the arrows, each for a promise that the Python API makes. Asked for late, inside
# a function, so that core still loads with numpy alone.
DOORS: dict[tuple[str, str], str] = {
    ("core.rule", "optim"): "rule.optimizer(params, lr) gives a torch optimizer",
    ("core.text", "optim"): "the same for a rule with names",
    ("core.rule", "render.sympy"): "rule.to_sympy() gives sympy expressions",
    ("core.text", "render.sympy"): "the same for a rule with names",
}
# Modules that put the parts together, and so may import all of them.
COMPOSERS = frozenset({"app", "testing", "__init__", "__main__"})

# Heavy or telling libraries -> the parts that may import them. Others are not restricted.
THIRD_PARTY: dict[str, frozenset[str]] = {
    "torch": frozenset({"backends", "tasks", "evaluate", "optim", "explain", "identify"}),
    "sympy": frozenset({"render", "simplify"}),
    "numba": frozenset({"backends"}),
    "triton": frozenset({"backends"}),
    "sklearn": frozenset({"tasks"}),
    "deap": frozenset({"search.deap_bridge"}),
    "joblib": frozenset({"evaluate"}),
    "click": frozenset(),
    "rich": frozenset(),
    "sqlite3": frozenset({"store"}),
}
ONLY_NUMPY = frozenset({"core"})
ONLY_STDLIB = frozenset({"store"})

FORBIDDEN_CALLS = frozenset({"eval", "exec", "sympify", "parse_expr", "__import__"})
FORBIDDEN_MODULES = frozenset({"pickle", "cloudpickle", "dill", "shelve", "marshal"})
METHODS_THAT_ONLY_SHARE_A_NAME = frozenset({"eval"})  # torch's module.eval()


@dataclass(frozen=True)
class Import:
    """One import statement: where it stands and the dotted name that it asks for."""

    module: str  # importing module, dotted, without the leading "ruleforge."
    target: str  # imported name, dotted and absolute
    where: str  # file:line

    @property
    def part(self) -> str:
        return self.module.split(".")[0]


def source_files(package: Path = PACKAGE) -> list[Path]:
    return sorted(package.rglob("*.py"))


def module_name(path: Path, package: Path = PACKAGE) -> str:
    """The dotted name of a file within the package: `core.text`, `core` for `core/__init__.py`."""
    parts = list(path.relative_to(package).with_suffix("").parts)
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def imports_of(source: str, module: str, where: str, *, is_package: bool) -> Iterator[Import]:
    """All imports in a source text, relative ones resolved, `from a import b` read as `a.b`.

    `a.b` may name a module or an object of `a`; the rules below only need prefixes.
    """
    here = "ruleforge" if module == "__init__" else f"ruleforge.{module}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, f"{where}:{node.lineno}")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = here if is_package else here.rpartition(".")[0]
                for _ in range(node.level - 1):
                    package = package.rpartition(".")[0]
                base = f"{package}.{base}" if base else package
            for alias in node.names:
                yield Import(module, f"{base}.{alias.name}", f"{where}:{node.lineno}")
        elif isinstance(node, ast.Call):
            # importlib.import_module("ruleforge.x") with a literal name is an import too.
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "import_module" and node.args and isinstance(node.args[0], ast.Constant):
                yield Import(module, str(node.args[0].value), f"{where}:{node.lineno}")


def all_imports() -> list[Import]:
    return [
        found
        for path in source_files()
        for found in imports_of(
            path.read_text(encoding="utf-8"),
            module_name(path),
            str(path.relative_to(ROOT)),
            is_package=path.name == "__init__.py",
        )
    ]


def arrow_broken(found: Import) -> str | None:
    """Why this import breaks an arrow, or None."""
    target = found.target.split(".")
    if target[0] != "ruleforge" or found.part in COMPOSERS:
        return None
    inner = ".".join(target[1:])
    head = target[1] if len(target) > 1 else ""
    if found.module in LEAVES:
        return (
            None
            if head in LEAVES
            else f"{found.where}: {found.module} may import no part, yet asks for {inner}"
        )
    if head == found.part or head in SHARED or (found.module, inner) in DOORS:
        return None
    if found.part not in ARROWS:
        return f"{found.where}: {found.part} has no row in ARROWS; add one here and in docs/design.md"
    if not head:
        return f"{found.where}: import the part itself, not the whole of ruleforge"
    for allowed in ARROWS[found.part]:
        if inner == allowed or inner.startswith(allowed + "."):
            return None
    return f"{found.where}: {found.part} may not import {inner} (allowed: {sorted(ARROWS[found.part])})"


def library_broken(found: Import) -> str | None:
    """Why this import of a library is out of place, or None."""
    library = found.target.split(".")[0]
    if library == "ruleforge" or found.part in COMPOSERS:
        return None
    if library in THIRD_PARTY:
        allowed = THIRD_PARTY[library]
        if found.part not in allowed and found.module not in allowed:
            return f"{found.where}: {library} belongs to {sorted(allowed) or ['app']}, not to {found.module}"
    elif library not in sys.stdlib_module_names:
        if found.part in ONLY_STDLIB or found.module in LEAVES - {"records"}:
            return f"{found.where}: {found.module} may import the standard library alone, not {library}"
        if found.part in ONLY_NUMPY and library != "numpy":
            return f"{found.where}: {found.part} may import numpy alone, not {library}"
    return None


def forbidden_in(source: str, where: str) -> Iterator[str]:
    """Calls that run text and modules that unpickle, each with its place."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                yield f"{where}:{node.lineno}: calls {node.func.id}()"
            elif isinstance(node.func, ast.Attribute) and (
                node.func.attr in FORBIDDEN_CALLS - METHODS_THAT_ONLY_SHARE_A_NAME
            ):
                yield f"{where}:{node.lineno}: calls .{node.func.attr}()"
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            if name.split(".")[0] in FORBIDDEN_MODULES:
                yield f"{where}:{node.lineno}: imports {name}"
        if isinstance(node, ast.ImportFrom) and any(alias.name in FORBIDDEN_CALLS for alias in node.names):
            yield f"{where}:{node.lineno}: imports a call that runs text"


def test_parts_follow_the_arrows() -> None:
    broken = [why for found in all_imports() if (why := arrow_broken(found))]
    assert not broken, "\n".join(broken)


def test_libraries_stay_in_their_parts() -> None:
    broken = [why for found in all_imports() if (why := library_broken(found))]
    assert not broken, "\n".join(broken)


def test_no_text_is_executed_and_nothing_is_pickled() -> None:
    broken = [
        why
        for path in source_files()
        for why in forbidden_in(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]
    assert not broken, "\n".join(broken)


def test_every_door_is_still_used() -> None:
    asked = {(found.module, found.target.removeprefix("ruleforge.")) for found in all_imports()}
    assert set(DOORS) <= asked, sorted(set(DOORS) - asked)


def test_every_part_on_disk_has_a_row() -> None:
    parts = {module_name(path).split(".")[0] for path in source_files()}
    known = set(ARROWS) | COMPOSERS | SHARED
    assert parts <= known, sorted(parts - known)


def test_arrows_have_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(ARROWS):
        ready = {
            part
            for part, allowed in ARROWS.items()
            if part not in done and {name.split(".")[0] for name in allowed} <= done
        }
        assert ready, f"parts that import each other: {sorted(set(ARROWS) - done)}"
        done |= ready


def light_modules() -> list[str]:
    """What must load without the heavy libraries: the package, the rule language and the store."""
    return [
        "ruleforge",
        *(f"ruleforge.{part}" for part in ("core", "store") if (PACKAGE / part / "__init__.py").exists()),
        *(
            f"ruleforge.{name}"
            for name in ("core.rule", "core.text")
            if (PACKAGE / f"{name.replace('.', '/')}.py").exists()
        ),
    ]


@pytest.mark.parametrize("name", light_modules())
def test_importing_is_light(name: str) -> None:
    heavy = ("torch", "sympy", "numba", "sklearn", "deap", "scipy", "joblib")
    code = f"import {name}, sys; print(*[each for each in {heavy!r} if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


# The guards themselves, broken on purpose.


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("tasks.base", "from ruleforge.core.rule import Rule"),
        ("core.expr", "def f():\n    from ..render import python"),
        ("search.genome", "import ruleforge.evaluate.train"),
        ("store.store", "from ruleforge.core import rule"),
        ("store.store", "from ruleforge import core"),
        ("records", "from ruleforge.core.rule import Rule"),
        ("errors", "import ruleforge.app"),
        ("export.torch_optim", "import importlib\nimportlib.import_module('ruleforge.evaluate')"),
        ("newpart.x", "import ruleforge.core"),
    ],
)
def test_a_wrong_arrow_is_seen(module: str, line: str) -> None:
    found = list(imports_of(line, module, "x.py", is_package=False))
    assert any(arrow_broken(each) for each in found)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("store.store", "from ruleforge.core.text import parse"),
        ("evaluate.train", "from ..tasks.base import Task"),
        ("core.rule", "from .expr import Expr"),
        ("core.rule", "from ..errors import RuleError"),
        ("app.run", "from ruleforge.search import genome"),
        ("__init__", "from .app.api import search"),
    ],
)
def test_a_right_arrow_passes(module: str, line: str) -> None:
    found = list(imports_of(line, module, "x.py", is_package=False))
    assert found
    assert not any(arrow_broken(each) for each in found)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core.ops", "import torch"),
        ("core.ops", "import scipy.special"),
        ("search.genome", "from deap import gp"),
        ("store.store", "import numpy"),
        ("evaluate.train", "def f():\n    import sympy"),
        ("errors", "import numpy"),
    ],
)
def test_a_library_out_of_place_is_seen(module: str, line: str) -> None:
    found = list(imports_of(line, module, "x.py", is_package=False))
    assert any(library_broken(each) for each in found)


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')",
        "exec('x = 1')",
        "sympy.sympify(text)",
        "from sympy import sympify",
        "builtins.exec('x')",
        "import pickle",
        "from pickle import loads",
    ],
)
def test_a_forbidden_call_is_seen(line: str) -> None:
    assert list(forbidden_in(line, "x.py"))


def test_a_modules_own_eval_method_is_allowed() -> None:
    assert not list(forbidden_in("model.eval()", "x.py"))
