"""What the parser says to text that is Python and not the rule language.

Knows the words alone; where they are shown is the business of `source`.
"""

from __future__ import annotations

import ast

NOT_NUMBERS: dict[type, str] = {
    bool: "a truth value (write 1 or 0)",
    complex: "a complex number",
    str: "text",
    bytes: "text",
}
"""What stands where a number was expected, by its type."""


def refusal(item: ast.expr) -> tuple[str, str]:
    """Why an expression has no place in a rule, and what to write instead (message, hint)."""
    match item:
        case ast.Compare():
            return "chained or unknown comparison", "compare two values: `a < b`"
        case ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            return "and, or, not are not in the language", "multiply masks, or use where(c, a, b)"
        case ast.IfExp():
            return "if-else is not in the language", "use where(c, a, b)"
        case ast.Attribute() | ast.Subscript():
            return "attributes and subscripts are not in the language", ""
        case ast.BinOp():
            return "unknown operator", "arithmetic is + - * / **"
        case ast.UnaryOp():
            return "unknown operator", "write -x"
        case ast.NamedExpr():
            return "`:=` is not in the language", "give the part a line of its own"
        case ast.JoinedStr():
            return "text is not in the language", "the docstring comes first, other words go into comments"
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp() | ast.Lambda():
            return "comprehensions and lambdas are not in the language", "give parts names of their own"
        case ast.List() | ast.Tuple() | ast.Set() | ast.Dict():
            return "lists and tuples are not in the language", "one expression a line"
    return "this is not in the language", "names, numbers, + - * / **, comparisons and ops"
