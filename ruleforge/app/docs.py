"""`python -m ruleforge.app.docs`: writes the generated parts of docs/language.md, and docs/rules.md.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything else on the page is
written by hand and left alone. `--check` writes nothing and fails where a part is out of date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from ruleforge.app import rules_page
from ruleforge.app.config import json_schema
from ruleforge.app.objectives import objectives_page
from ruleforge.core import parser, rule
from ruleforge.core.ops import OPS, RESERVED, TERMINALS, Kind, Op
from ruleforge.errors import InputError, RuleforgeError
from ruleforge.search.grammar import grammar_schema

_FOLDER = Path(__file__).resolve().parents[2] / "docs"
PAGE = _FOLDER / "language.md"
_BEGIN, _END = "<!-- generated: {} -->", "<!-- end -->"
_TITLES: dict[Kind, str] = {
    "elementwise": "Elementwise",
    "reduce": "Per tensor: from a tensor, one number for each parameter tensor",
    "matrix": "Matrix: from a tensor, a tensor",
    "derived": "Derived: they expand where they are read",
    "sugar": "Sugar: a state that starts at 0",
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; `|` in cells is escaped."""
    lines = [list(head)]
    lines += [[cell.replace("|", r"\|") for cell in row] for row in rows]
    shown = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([shown[0], "|" + "---|" * len(lines[0]), *shown[1:]])


def _spelling(op: Op) -> str:
    """As it is written in rule text: infix where there is a symbol."""
    if not op.symbol:
        return f"`{op.signature}`"
    infix = f"-{op.params[0]}" if op.arity == 1 else f"{op.params[0]} {op.symbol} {op.params[1]}"
    return f"`{infix}`, `{op.signature}`"


def _facts(op: Op) -> str:
    """What the table knows of an op besides its meaning."""
    facts = ["commutative"] if op.commutative else []
    facts += [op.parity] if op.parity else []
    facts += [{1: "increasing", -1: "decreasing"}[op.monotone]] if op.monotone else []
    if op.bounds:
        low, high = (_bound(value) for value in op.bounds)
        facts.append(f"from {low} to {high}" if high != "∞" else f"≥ {low}")
    facts += [f"finite for {op.domain}"] if op.domain else []
    return ", ".join(facts)


def _bound(value: float) -> str:
    names = {float("inf"): "∞", 3.141592653589793: "π", 1.5707963267948966: "π/2"}
    sign = "−" if value < 0 else ""
    return sign + names.get(abs(value), f"{abs(value):g}")


def _arguments(op: Op) -> str:
    """Which arguments must be numbers or tensors."""
    kinds = {"#": "a number", "!": "a tensor"}
    found = [f"{p.rstrip('#!')} {kinds[p[-1]]}" for p in op.params if p[-1] in kinds]
    return "; ".join(found)


def ops_part() -> str:
    """The op tables, one for each kind."""
    out = []
    for kind, title in _TITLES.items():
        rows = [op for op in OPS.values() if op.kind == kind]
        out.append(f"### {title}\n")
        if kind == "derived":
            derived = [
                (_spelling(op), op.doc, f"`{op.expansion}`", "itself" if op.folds else "", _arguments(op))
                for op in rows
            ]
            out.append(table(("write", "meaning", "expands to", "shown as", "arguments"), derived))
        elif kind == "sugar":
            steps = [
                (_spelling(op), op.doc, f"`s = {op.recurrence}`", op.yields, _arguments(op)) for op in rows
            ]
            out.append(table(("write", "meaning", "each step", "yields", "arguments"), steps))
        else:
            plain = [(_spelling(op), op.doc, _facts(op), f"{op.flops:g}") for op in rows]
            out.append(table(("write", "meaning", "facts", "cost"), plain))
        out.append("")
    return "\n".join(out).rstrip()


def names_part() -> str:
    """The terminals, and the other reserved words."""
    others = sorted(RESERVED - set(TERMINALS) - set(OPS))
    words = ", ".join(f"`{name}`" for name in others)
    terminals = table(("name", "is"), ((f"`{name}`", meaning) for name, meaning in TERMINALS.items()))
    return f"{terminals}\n\nReserved besides: {words}, and the names of all ops."


def limits_part() -> str:
    """What a rule text may be at most."""
    rows = (
        ("size of the text, also when it is written out again", f"{rule.MAX_BYTES // 1024} KiB"),
        ("nodes, counted as described above", str(rule.MAX_NODES)),
        ("levels that brackets or terms nest", str(rule.MAX_DEPTH)),
        ("states, sugar included", str(rule.MAX_STATES)),
        ("hyperparameters", str(rule.MAX_HYPERS)),
        ("characters in a name", str(parser.MAX_NAME)),
        ("characters in the docstring", str(parser.MAX_DOC)),
    )
    return table(("limit", "at most"), rows)


PARTS: dict[str, Callable[[], str]] = {"names": names_part, "ops": ops_part, "limits": limits_part}


def regenerated(page: str) -> str:
    """The page with its generated parts up to date.

    Raises:
        InputError: a marker is missing, or a part has no such name.
    """
    for name, part in PARTS.items():
        begin = _BEGIN.format(name)
        head, found, rest = page.partition(begin)
        _, closed, tail = rest.partition(_END)
        if not found or not closed:
            raise InputError(f"the page has no part {begin} … {_END}", hint="put both lines where it belongs")
        page = f"{head}{begin}\n{part()}\n{_END}{tail}"
    return page


def main(arguments: list[str]) -> int:
    """Exit code: 0 done or current, 1 out of date under `--check`, 2 the page cannot be used."""
    try:
        page = PAGE.read_text(encoding="utf-8")
        made = regenerated(page)
    except (OSError, RuleforgeError) as error:
        print(f"{PAGE}: {error}", file=sys.stderr)
        return 2
    if arguments == ["--check"]:
        old = [*([PAGE] if made != page else []), *([] if rules_page.is_current() else [rules_page.PAGE])]
        old += [path for path, text in files().items() if path.read_text(encoding="utf-8") != text]
        for each in old:
            print(f"{each} is out of date; run `make docs`", file=sys.stderr)
        return int(bool(old))
    PAGE.write_text(made, encoding="utf-8")
    rules_page.write()
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
    print(f"wrote {', '.join(map(str, (PAGE, rules_page.PAGE, *files())))}")
    return 0


def files() -> dict[Path, str]:
    """Files that are generated as a whole: the JSON Schemas that editors read, and the page of objectives."""
    parts = {"search_config.schema.json": json_schema(), "grammar.schema.json": grammar_schema()}
    texts = {name: json.dumps(part, indent=2, ensure_ascii=False) + "\n" for name, part in parts.items()}
    return {_FOLDER / name: text for name, text in {**texts, "objectives.md": objectives_page()}.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
