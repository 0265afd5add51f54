"""Reading rule text: Python syntax, read with `ast` and never executed.

Sizes and depths are bounded before anything is built, and every error names line and column, shows
the place, and says what would be accepted. The parser knows lines and names; what a term builds is
the business of `build`, what is wrong with the characters that of `source`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable
from dataclasses import replace

from ruleforge.core import expr as ex
from ruleforge.core.build import BINARY, COMPARE, RuleBuilder
from ruleforge.core.canon import fold, live_states, reached, renumbered
from ruleforge.core.expr import Expr
from ruleforge.core.ops import OPS, RESERVED, TERMINALS
from ruleforge.core.refusals import NOT_NUMBERS, refusal
from ruleforge.core.rule import (
    INIT_LEAVES,
    MAX_BYTES,
    MAX_HYPERS,
    MAX_NODES,
    MAX_STATES,
    Hyper,
    Kind,
    Rule,
    State,
    infer_kinds,
)
from ruleforge.core.source import Source
from ruleforge.core.text import Line, RuleText
from ruleforge.errors import RuleError
from ruleforge.words import counted, did_you_mean, shortened

MAX_DOC = 8192
MAX_TERMS = 4 * MAX_NODES
MAX_NAME = 40
MAX_LISTED = 24
SCALES = ("linear", "log", "one_minus_log")


class Parser:
    """One reading of one text; `run` gives the result.

    Args:
        text: what is read.
        file: named in errors.
        ours: the text was written by `format` from a rule within the limits, so that nothing needs to be
            written out to be checked, nor has a reader to be warned.
    """

    def __init__(self, text: str, file: str, *, ours: bool = False) -> None:
        self.ours = ours
        self.source = Source(text, file)
        self.fail = self.source.fail
        self.builder = RuleBuilder()
        self.hypers: dict[str, Hyper] = {}
        self.states: dict[str, int] = {}
        self.assigned: set[str] = set()
        self.names: dict[str, Expr] = {}
        self.lines: list[Line] = []
        self.checks: list[tuple[ast.expr, str, tuple[Expr, ...]]] = []

    def run(self) -> RuleText:
        """The rule text.

        Raises:
            RuleTextError: it cannot be read.
        """
        body = self.source.statements()
        doc = ""
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            doc = self._docstring(body[0].value)
            del body[0]
        for statement in body:
            self._declare(statement)
        for statement in body:
            self._statement(statement)
        if "update" not in self.names:
            raise self.fail(None, "the rule never assigns `update`", "add a line such as `update = g`")
        self._check_kinds()
        try:
            rule = self.builder.build(self.names["update"], tuple(self.hypers.values()))
        except RuleError as error:
            raise self.fail(None, error.message) from None
        rule, lines = _order_hidden(rule, tuple(self.lines), len(self.states))
        made = RuleText(rule, lines, tuple(self.hypers), tuple(self.states), doc)
        if self.ours:
            return made
        self._check_size(made)
        return replace(made, warnings=tuple(_warnings(made)))

    def _docstring(self, value: ast.Constant) -> str:
        if not isinstance(value.value, str):
            raise self.fail(value, "a rule starts with a docstring or an assignment")
        if len(value.value) > MAX_DOC:
            raise self.fail(None, f"the docstring is longer than {MAX_DOC} characters")
        return value.value

    # declarations

    def _declare(self, statement: ast.stmt) -> None:
        if not isinstance(statement, ast.AnnAssign):
            return
        target = statement.target
        if not isinstance(target, ast.Name):
            raise self.fail(target, "only names can be declared")
        self._claim(target)
        if statement.value is None:
            raise self.fail(
                statement, f"{target.id!r} has no value", "hypers need `= default`, states `= init`"
            )
        match statement.annotation:
            case ast.Name(id="state"):
                if len(self.states) >= MAX_STATES:
                    raise self.fail(target, f"more than {MAX_STATES} states")
                self.states[target.id] = self.builder.declare()
            case ast.Call(func=ast.Name(id="hyper"), args=args, keywords=[]):
                if len(self.hypers) >= MAX_HYPERS:
                    raise self.fail(target, f"more than {MAX_HYPERS} hyperparameters")
                self.hypers[target.id] = self._hyper(statement, target.id, args)
            case other:
                raise self.fail(
                    other, "unknown declaration", "write `hyper(low, high) = default` or `state = 0`"
                )

    def _hyper(self, statement: ast.AnnAssign, name: str, args: list[ast.expr]) -> Hyper:
        scale = "linear"
        if len(args) == 3:
            if not isinstance(args[2], ast.Name) or args[2].id not in SCALES:
                raise self.fail(args[2], "unknown scale", f"one of {', '.join(SCALES)}")
            scale = args[2].id
            args = args[:2]
        if len(args) != 2:
            raise self.fail(statement.annotation, "hyper takes low, high and an optional scale")
        low, high = (self._literal(arg) for arg in args)
        default = self._literal(statement.value)  # type: ignore[arg-type]
        if not low < high:
            raise self.fail(statement.annotation, f"the range ({low:g}, {high:g}) is empty")
        if not low < default < high:
            raise self.fail(
                statement.value, f"{name} = {default:g} lies outside its open range ({low:g}, {high:g})"
            )
        if (scale == "log" and low < 0) or (scale == "one_minus_log" and high > 1):
            raise self.fail(statement.annotation, f"the range ({low:g}, {high:g}) does not fit scale {scale}")
        return Hyper(low, high, default, scale)  # type: ignore[arg-type]

    def _literal(self, item: ast.expr) -> float:
        match item:
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
                return -self._number(item.operand)  # type: ignore[arg-type]
            case ast.Constant():
                return self._number(item)
        raise self.fail(item, "expected a number")

    def _number(self, item: ast.Constant) -> float:
        if isinstance(item.value, bool) or not isinstance(item.value, int | float):
            raise self.fail(item, f"expected a number, found {NOT_NUMBERS.get(type(item.value), 'a word')}")
        try:
            value = float(item.value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise self.fail(item, "numbers must be finite")
        return value

    def _claim(self, target: ast.Name) -> None:
        name = target.id
        if name == "update":
            raise self.fail(target, "`update` cannot be declared", "assign it: `update = …`")
        if name in RESERVED:
            raise self.fail(target, f"{name!r} is reserved", "choose another name")
        if name in self.hypers or name in self.states:
            raise self.fail(target, f"{_quoted(name)} is declared twice")
        if name.startswith("__") or len(name) > MAX_NAME:
            raise self.fail(target, f"names have at most {MAX_NAME} characters and no leading `__`")

    # body

    def _statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)):
                if name in self.states:
                    self._start(name, statement.value)  # type: ignore[arg-type]
                else:
                    self.names[name] = ex.hyper(list(self.hypers).index(name))
            case ast.Assign(targets=[ast.Name() as target], value=value):
                self._assign(target, value)
            case ast.Assign(targets=targets):
                raise self.fail(targets[-1], "one name on the left of each `=`")
            case ast.AugAssign():
                raise self.fail(statement, "each name is assigned once", "write `name = name + …`")
            case _:
                raise self.fail(statement, "only assignments and declarations are allowed")

    def _start(self, name: str, value: ast.expr) -> None:
        init = self._expr(value)
        index = self.states[name]
        for item in ex.walk([init]):
            allowed = OPS[item.op].kind == "elementwise" if item.args else item.op in INIT_LEAVES
            if not allowed:
                raise self.fail(
                    value, f"state {name!r} starts from {item.op}", "an init is a host number: 0, 1e-6, lr0"
                )
        self.builder.start(index, init)
        self.names[name] = ex.state(index)

    def _assign(self, target: ast.Name, value: ast.expr) -> None:
        name = target.id
        if name in self.assigned:
            raise self.fail(target, f"{_quoted(name)} is assigned twice", "each name is assigned once")
        if name in self.hypers:
            raise self.fail(target, f"{name!r} is a hyperparameter and keeps its value")
        if name not in self.states and name != "update":
            self._claim(target)
        if name in self.states and name not in self.names:
            raise self.fail(target, f"state {name!r} is assigned before its declaration")
        built = self._expr(value)
        self.assigned.add(name)
        self.lines.append(Line(name, built))
        if name in self.states:
            self.builder.assign(self.states[name], built)
        self.names[name] = built

    # expressions

    def _expr(self, item: ast.expr) -> Expr:
        match item:
            case ast.Constant():
                return ex.const(self._number(item))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
                return ex.const(self._literal(item))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return ex.node("neg", self._expr(operand))
            case ast.Name():
                return self._name(item)
            case ast.BinOp(op=op) if type(op) in BINARY:
                return self._apply(item, BINARY[type(op)], [item.left, item.right])
            case ast.Compare(ops=[op], comparators=[right]) if type(op) in COMPARE:
                return self._apply(item, COMPARE[type(op)], [item.left, right])
            case ast.Call():
                return self._call(item)
        raise self.fail(item, *refusal(item))

    def _name(self, item: ast.Name) -> Expr:
        name = item.id
        if name in self.names:
            return self.names[name]
        if name in TERMINALS:
            return ex.leaf(name)
        if name in OPS:
            raise self.fail(item, f"{name!r} is an op and needs arguments: {OPS[name].signature}")
        if name in self.states or name in self.hypers:
            raise self.fail(item, f"{name!r} is read before its declaration")
        if name == "update":
            raise self.fail(item, "`update` is read before its line")
        known = [*TERMINALS, *self.names]
        listed = "known here: " + ", ".join(known[:MAX_LISTED]) + ", …" * (len(known) > MAX_LISTED)
        raise self.fail(item, f"undefined name {_quoted(name)}", _nearest(name, known, listed))

    def _call(self, item: ast.Call) -> Expr:
        if not isinstance(item.func, ast.Name):
            raise self.fail(item.func, "only ops of the language can be called")
        if item.keywords or any(isinstance(arg, ast.Starred) for arg in item.args):
            raise self.fail(item, "arguments are given by position, without keywords and stars")
        name = item.func.id
        if name not in OPS:
            raise self.fail(item.func, f"unknown op {_quoted(name)}", _suggest(name, len(item.args)))
        if len(item.args) != OPS[name].arity:
            raise self.fail(
                item,
                f"{name} takes {counted(OPS[name].arity, 'argument')}, got {len(item.args)}",
                f"write {OPS[name].signature}",
            )
        if name == "prev" and isinstance(item.args[0], ast.Name) and item.args[0].id in self.states:
            raise self.fail(item, "prev of an explicit state", "read the state before its assignment")
        return self._apply(item, name, item.args)

    def _apply(self, item: ast.expr, op: str, arguments: list[ast.expr]) -> Expr:
        args = tuple(self._expr(arg) for arg in arguments)
        built = self.builder.apply(op, *args)
        if self.builder.n_slots > MAX_STATES:
            hint = "each ema, trace, total, running_max and prev is a state"
            raise self.fail(item, f"more than {MAX_STATES} states", hint)
        self.checks.append((item, op, args))
        if len(self.checks) > MAX_TERMS:
            raise self.fail(item, f"more than {MAX_TERMS} terms", f"at most {MAX_NODES} nodes are allowed")
        return built

    # checks on the whole

    def _check_kinds(self) -> None:
        arguments = [arg for _, _, args in self.checks for arg in args]
        known = infer_kinds((*arguments, *(value for _, value in self.builder.slots)), self.builder.slots)
        for item, op, args in self.checks:
            for param, arg in zip(OPS[op].params, args, strict=True):
                kind, name = known[arg], param.rstrip("#!")
                if param.endswith("#") and kind is Kind.TENSOR:
                    raise self.fail(item, f"type mismatch: {op} takes a number as {name!r}, got a tensor")
                if param.endswith("!") and kind is not Kind.TENSOR:
                    raise self.fail(
                        item, f"type mismatch: {op} takes a tensor as {name!r}, got a {kind.label}"
                    )

    def _check_size(self, made: RuleText) -> None:
        """Refuse what could not be written out again, or is larger than a rule may be."""
        seen = fold(made.rule, frozenset(range(len(made.states)))).see(*(line.value for line in made.lines))
        count = len(ex.walk(seen))
        if count > MAX_NODES:
            raise self.fail(None, f"{count} nodes, at most {MAX_NODES} are allowed")
        hint = "give shared parts names of their own"
        try:
            written = str(made)
        except RuleError as error:
            raise self.fail(None, error.message, hint) from None
        if len(written.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise self.fail(None, f"written out, the rule is longer than {MAX_BYTES // 1024} KiB", hint)


def _order_hidden(rule: Rule, lines: tuple[Line, ...], n_explicit: int) -> tuple[Rule, tuple[Line, ...]]:
    """Number hidden slots by first occurrence in the lines, so that spelling cannot matter."""
    values = [line.value for line in lines]
    order = reached(values, rule.states, range(n_explicit))
    kept = [rule.states[i] for i in order]
    mapping = renumbered(
        [rule.update, *(p for s in kept for p in (s.init, s.next)), *values],
        {old: new for new, old in enumerate(order)},
    )
    states = tuple(State(mapping[s.init], mapping[s.next]) for s in kept)
    return (
        Rule(mapping[rule.update], states, rule.hypers),
        tuple(Line(line.target, mapping[line.value]) for line in lines),
    )


def _warnings(made: RuleText) -> Iterable[str]:
    live = live_states(made.rule)
    for index, name in enumerate(made.states):
        if index not in live:
            yield f"state {name!r} does not reach the update"
        elif made.rule.states[index].next is ex.state(index):
            yield f"state {name!r} is never assigned and keeps its first value"
    used = set(ex.walk([line.value for line in made.lines]))
    for index, name in enumerate(made.hypers):
        if ex.hyper(index) not in used and ex.hyper(index) not in ex.walk([s.init for s in made.rule.states]):
            yield f"hyperparameter {name!r} is never read"
    reached = set(ex.walk([made.rule.update, *(made.rule.states[i].next for i in live)]))
    for line in made.lines:
        if line.target not in made.states and line.target != "update" and line.value not in reached:
            yield f"local {line.target!r} does not reach the update"
    if ex.leaf("g") not in reached:
        yield "the update does not depend on the gradient `g`"


def _suggest(name: str, arity: int) -> str:
    alike = [op.name for op in OPS.values() if op.arity == arity and op.name not in COMPARE.values()]
    listed = f"ops with {counted(arity, 'argument')}: {', '.join(alike)}" if alike else ""
    return _nearest(name, OPS, listed)


def _nearest(name: str, known: Iterable[str], rest: str) -> str:
    """A hint; a word longer than a name can be is compared with none."""
    return did_you_mean(name, known, rest) if len(name) <= MAX_NAME else rest


def _quoted(name: str) -> str:
    return repr(shortened(name, MAX_NAME))
