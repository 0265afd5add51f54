"""A genome as plain text, one line for each of its lines, nodes in prefix order:

    state tensor scale:0.0 | lerp.0 g old0 beta:0.99
    update tensor | sign.0 lerp.0 g old0 beta:0.9

Reading it checks everything and executes nothing, so that a run's database can be read by anyone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ruleforge.core.ops import TERMINALS
from ruleforge.errors import RuleError
from ruleforge.search import deap_bridge as bridge
from ruleforge.search.deap_bridge import Node, Tree
from ruleforge.search.forms import (
    CONSTANT_TYPES,
    FORMS,
    LINE_TYPES,
    TYPE_LABELS,
    Number,
    Tensor,
    Type,
    constant_fits,
)
from ruleforge.search.lines import Genome, Line

MAX_TEXT = 256 * 1024
MAX_LINES = 256
MAX_TOKENS = 16384


def to_text(genome: Genome) -> str:
    """Plain text that `from_text` reads back to the same genome."""
    out = []
    for line in genome.lines:
        kind = "tensor" if line.kind is Tensor else "number"
        init = " ".join(map(_token, line.init))
        head = f"{line.role} {kind} {init}".rstrip()
        out.append(f"{head} | {' '.join(map(_token, line.tree))}")
    return "\n".join(out) + "\n"


def _token(node: Node) -> str:
    return f"{TYPE_LABELS[node.ret]}:{float(node.value)!r}" if isinstance(node, bridge.Const) else node.name


_REF = re.compile(r"(old|new)(\d{1,3})", re.ASCII)


def from_text(text: str) -> Genome:
    """Read a genome; nothing is executed, and sizes are bounded.

    Raises:
        RuleError: with the line and what was expected.
    """
    if len(text) > MAX_TEXT:
        raise RuleError(f"genome text has {len(text)} characters, at most {MAX_TEXT} are allowed")
    rows = [row for row in text.splitlines() if row.strip()]
    if not 1 <= len(rows) <= MAX_LINES:
        raise RuleError(f"genome text has {len(rows)} lines, expected 1 to {MAX_LINES}")
    heads: list[tuple[str, Type, list[str], list[str]]] = []
    for number, row in enumerate(rows, 1):
        head, bar, rest = row.partition("|")
        role, label, *init = (*head.split(), "", "")
        if not bar or role not in ("state", "local", "update") or label not in LINE_TYPES:
            raise RuleError(
                f"expected `state|local|update tensor|number [init] | nodes`, got {row[:80]!r}",
                file="genome text",
                line=number,
            )
        heads.append((role, LINE_TYPES[label], [part for part in init if part], rest.split()))
    lines: list[Line] = []
    for number, (role, kind, init, body) in enumerate(heads, 1):
        try:
            nodes = _read(body, kind, [(r, k) for r, k, _, _ in heads], number - 1)
            start: Tree = _read(init, Number, [], 0) if role == "state" else ()
            if role != "state" and init:
                raise RuleError(f"a {role} has no init, got {init[0]!r}")
        except RuleError as error:
            raise RuleError(error.message, file="genome text", line=number) from None
        lines.append(Line(role, kind, nodes, start))  # type: ignore[arg-type]
    if sum(line.role == "update" for line in lines) != 1:
        raise RuleError("a genome has exactly one update", file="genome text")
    return Genome(tuple(lines))


def _read(tokens: list[str], kind: Type, heads: Sequence[tuple[str, Type]], here: int) -> Tree:
    if len(tokens) > MAX_TOKENS:
        raise RuleError(f"{len(tokens)} nodes, at most {MAX_TOKENS} are allowed")
    nodes: list[Node] = []
    pending = [kind]
    for token in tokens:
        if not pending:
            raise RuleError(f"the tree ends before {token[:40]!r}")
        expected = pending.pop()
        node = _node(token, heads, here)
        if not issubclass(node.ret, expected):
            raise RuleError(f"{token[:40]!r} gives a {node.ret.__name__}, expected a {expected.__name__}")
        if node.arity:
            pending.extend(reversed(node.args))
        nodes.append(node)
    if pending:
        raise RuleError(f"the tree misses {len(pending)} nodes at its end")
    return bridge.tree(nodes)


def _node(token: str, heads: Sequence[tuple[str, Type]], here: int) -> Node:
    if token in FORMS:
        return bridge.call(token)
    if token in TERMINALS:
        return bridge.leaf(token)
    label, colon, number = token.partition(":")
    if colon and label in CONSTANT_TYPES:
        try:
            value = float(number)
        except ValueError:
            raise RuleError(f"{token[:40]!r} holds no number") from None
        if not constant_fits(value, CONSTANT_TYPES[label]):
            raise RuleError(f"{value!r} is no constant of type {label}")
        return bridge.const(value, CONSTANT_TYPES[label])
    match = _REF.fullmatch(token)
    if match:
        line, new = int(match[2]), match[1] == "new"
        if line >= len(heads) or (new and line >= here) or (not new and heads[line][0] != "state"):
            raise RuleError(f"{token!r} cannot be read here")
        return bridge.ref(line, new, heads[line][1])
    raise RuleError(f"unknown node {token[:40]!r}")
