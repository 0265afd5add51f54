"""A rule as a short list of statements, each with a name that a reader can follow.

Every target that writes statements (code, algorithm boxes, terminal formulas) takes them from
here: which values get names, in which order the states are overwritten so that each read sees the
value it means, and where a long line is divided. How an expression is spelled is the writer's part.

States are overwritten in place. Where the old value of a state is still needed after its new one,
the new one waits under a name of its own (`m_new`) and is stored at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ruleforge.core import expr as ex
from ruleforge.core.canon import live_states
from ruleforge.core.expr import Expr
from ruleforge.core.laws import lawful
from ruleforge.core.ops import HOST_LEAVES
from ruleforge.core.rule import Hyper, Kind, Rule, State
from ruleforge.core.text import Line, RuleText
from ruleforge.render.base import Writer
from ruleforge.render.names import MAX_NAME, Names, Style, state_names, temporary_name
from ruleforge.render.ranges import Range, host_ranges

MAX_INLINE = 5
"""A shared value of more nodes than this gets a name."""


@dataclass(frozen=True)
class Slot:
    """A live state: its number in the rule, name, kind, first and next value."""

    index: int
    name: str
    kind: Kind
    init: Expr
    next: Expr


@dataclass(frozen=True)
class Statement:
    """One line: `let` defines a name, `write` gives a state its next value.

    A write with a `source` copies what that name holds; others spell their value out.
    """

    role: Literal["let", "write"]
    name: str
    value: Expr
    slot: Slot | None = None
    source: str = ""


@dataclass(frozen=True)
class Script:
    """A rule in statements.

    Attributes:
        text: the rule with its names.
        slots: live states in the order of the rule.
        hypers: name of each hyperparameter that is read, by number.
        statements: in order; the last word on what is computed.
        update: the update, to be written with `names` after the last statement.
        kept: name under which the update was put aside, where it is the old value of a state.
        names: how nodes are written after the last statement.
        kinds: kind of every node.
        ranges: range of every host number.
        reads: terminals that are read.
    """

    text: RuleText
    slots: tuple[Slot, ...]
    hypers: Mapping[int, str]
    statements: tuple[Statement, ...]
    update: Expr
    kept: str
    names: Mapping[Expr, str]
    kinds: Mapping[Expr, Kind]
    ranges: Mapping[Expr, Range]
    reads: frozenset[str]

    @property
    def used_hypers(self) -> dict[str, Hyper]:
        """The hyperparameters that are read, by their names in the target."""
        return {name: self.text.rule.hypers[i] for i, name in self.hypers.items()}


@dataclass
class Plan:
    """What a target asks of its script.

    Attributes:
        style: names of states as in torch's code, or as in formulas.
        reserved: names that the target needs for itself.
        width: longest right-hand side, in characters.
        writer: makes the target's writer from a draft of the script.
        update: what the update is called.
        max_inline: size above which shared values are named.
    """

    style: Style
    reserved: frozenset[str]
    width: int
    writer: Callable[[Script], Writer]
    update: str = "update"
    max_inline: int = MAX_INLINE
    names: Names = field(init=False)

    def __post_init__(self) -> None:
        self.names = Names(self.reserved)


def make_script(text: RuleText, plan: Plan) -> Script:
    """Statements for the live part of a rule: dead states, lines and hypers are left out."""
    return _Maker(_tidied(text), plan).run()


def _tidied(text: RuleText) -> RuleText:
    """The text with exact laws applied and every order of arguments kept: `2 * 3 * x` is `6 * x`."""

    def better(item: Expr, args: tuple[Expr, ...]) -> Expr:
        kept = ex.with_args(item, args)
        found = lawful(item.op, *args) if args else item
        only_reordered = found.op == item.op and Counter(found.args) == Counter(args)
        return kept if only_reordered else found

    rule = text.rule
    mapping = ex.rebuild([*rule.roots, *(line.value for line in text.lines)], better)
    states = tuple(State(mapping[s.init], mapping[s.next]) for s in rule.states)
    return replace(
        text,
        rule=Rule(mapping[rule.update], states, rule.hypers),
        lines=tuple(Line(line.target, mapping[line.value]) for line in text.lines),
    )


class _Maker:
    def __init__(self, text: RuleText, plan: Plan) -> None:
        self.text, self.plan, self.rule = text, plan, text.rule
        live = sorted(live_states(self.rule))
        self.roots = [self.rule.update, *(self.rule.states[i].next for i in live)]
        self.order = ex.walk([*self.roots, *(self.rule.states[i].init for i in live)])
        used = sorted(int(item.value or 0) for item in self.order if item.op == "hyper")
        self.hypers = {i: plan.names.fresh(text.hypers[i]) for i in used}
        self.hyper_nodes = {ex.hyper(i): name for i, name in self.hypers.items()}
        named = state_names(text, live, plan.names, plan.style)
        self.slots = [
            Slot(i, named[i], self.rule.state_kinds[i], self.rule.states[i].init, self.rule.states[i].next)
            for i in live
        ]
        self.old = {ex.state(slot.index): slot for slot in self.slots}
        self.kept = plan.names.fresh(plan.update) if self.rule.update in self.old else ""
        self.locals: dict[Expr, str] = {}
        self.first_write: dict[Expr, Slot] = {}

    def run(self) -> Script:
        self._name_values()
        self._divide()
        split: set[int] = set()
        while True:
            order, blocked = self._ordered(split)
            if blocked is None:
                break
            split.add(blocked)
        return self._script(order, split)

    # which values get names

    def _name_values(self) -> None:
        for slot in self.slots:
            if slot.next.args:
                self.first_write.setdefault(slot.next, slot)
        reached = set(self.order)
        for line in self.text.lines:
            if line.value.args and line.value in reached and line.value is not self.rule.update:
                self._name(line.value, self._local_wish(line.value, line.target))
        if self.rule.update.args:
            self._name(self.rule.update, self.plan.update)
        uses = Counter(arg for item in self.order for arg in _written_args(item))
        size: dict[Expr, int] = {}
        for item in self.order:
            size[item] = 1 + sum(1 if self._is_named(arg) else size[arg] for arg in item.args)
            if item.args and uses[item] > 1 and size[item] > self._limit(item):
                self._name(item, self._wish(item))

    def _limit(self, item: Expr) -> int:
        """Shared host numbers may be longer, since they cost nothing to repeat, as formulas do."""
        free = self.plan.style == "maths" or self.rule.kinds[item] is Kind.HOST
        return self.plan.max_inline if free else 1

    def _wish(self, item: Expr) -> str:
        names = (
            self.hyper_nodes | self.locals | {value: slot.name for value, slot in self.first_write.items()}
        )
        return temporary_name(item, names, {node.args[1] for node in self.order if node.op == "div"})

    def _local_wish(self, value: Expr, target: str) -> str:
        """The text's name, or `m_hat` where a state that the text leaves unnamed is called so itself."""
        taken = target in self.plan.names.taken
        if taken and value.op == "div" and value.args[0] in self.first_write:
            return f"{self.first_write[value.args[0]].name}_hat"
        return target

    def _is_named(self, item: Expr) -> bool:
        return item in self.locals or item in self.first_write

    def _name(self, item: Expr, wish: str) -> None:
        if not self._is_named(item):
            self.locals[item] = self.plan.names.fresh(wish[:MAX_NAME])

    def _divide(self) -> None:
        """Name arguments that a template repeats, then parts of lines that are too long."""
        while True:
            draft = self._script([], set())
            writer = self.plan.writer(draft)
            for item in [*self.locals, *self.first_write, *(r for r in self.roots if r.args)]:
                found = self._repeated(item, writer) or self._too_long(item, writer)
                if found is not None:
                    self._name(found, self._wish(found))
                    break
            else:
                return

    def _inside(self, root: Expr) -> list[Expr]:
        """Nodes that are written out when `root` is defined, the root last."""
        done: dict[Expr, None] = {}
        pending = [root]
        while pending:
            item = pending.pop()
            if item.args and item not in done and (item is root or not self._is_named(item)):
                done[item] = None
                pending += item.args
        return list(done)[::-1]

    def _repeated(self, root: Expr, writer: Writer) -> Expr | None:
        for item in self._inside(root):
            spelling = writer.spelling(item)
            for place in sorted(spelling.repeated):
                arg = item.args[place]
                if arg.args and not self._is_named(arg):
                    return arg
        return None

    def _too_long(self, root: Expr, writer: Writer) -> Expr | None:
        length = len(writer.value(root))
        if length <= self.plan.width:
            return None
        parts = {item: len(writer.write(item)) for item in self._inside(root) if item is not root}
        denominators = {item.args[1] for item in self._inside(root) if item.op == "div"}

        def distance(item: Expr) -> float:
            """From the middle; a denominator may lie further off, because its name says what it is."""
            return abs(parts[item] - length / 2) - (length / 6 if item in denominators else 0)

        best = min(parts, key=distance, default=None)
        return best if best is not None and parts[best] > 12 else None

    def _slot(self, index: int) -> Slot:
        return next(slot for slot in self.slots if slot.index == index)

    # in which order

    def _ordered(self, split: set[int]) -> tuple[list[str], int | None]:
        """Statement ids in order, or the state whose new value must wait under its own name.

        An id is `let:<key>`, `new:<state>` (a value that waits), `write:<state>` or `keep:update`.
        """
        nodes = self._nodes(split)
        providers = {item: f"let:{item.key}" for item in self.locals}
        for item, slot in self.first_write.items():
            providers[item] = f"new:{slot.index}" if slot.index in split else f"write:{slot.index}"
        before: dict[str, set[str]] = {name: set() for name in nodes}
        for name, value in nodes.items():
            role, _, what = name.partition(":")
            if role == "write" and int(what) in split:
                before[name].add(f"new:{what}")
                continue
            reads, used = self._reads(
                value, own=providers.get(value, name) == name or role in ("new", "keep")
            )
            before[name] |= {providers[item] for item in used}
            for index in reads:
                if name != f"write:{index}" and f"write:{index}" in nodes:
                    before[f"write:{index}"].add(name)
        rank = {name: n for n, name in enumerate(self._ranked(nodes, providers))}
        placed: list[str] = []
        while len(placed) < len(nodes):
            done = set(placed)
            ready = [name for name in nodes if name not in done and before[name] <= done]
            if not ready:
                stuck = sorted(
                    (n for n in nodes if n not in done and n.startswith("write:")), key=rank.__getitem__
                )
                return placed, next(int(n.split(":")[1]) for n in stuck if _needs_itself(n, before))
            placed.append(min(ready, key=rank.__getitem__))
        return placed, None

    def _nodes(self, split: set[int]) -> dict[str, Expr]:
        nodes = {f"let:{item.key}": item for item in self.locals}
        if self.kept:
            nodes["keep:update"] = self.rule.update
        for slot in self.slots:
            if slot.next is ex.state(slot.index):
                continue
            nodes[f"write:{slot.index}"] = slot.next
            if slot.index in split:
                nodes[f"new:{slot.index}"] = slot.next
        return nodes

    def _ranked(self, nodes: Mapping[str, Expr], providers: Mapping[Expr, str]) -> list[str]:
        """Ids in the order of the text's lines, each after what it needs; writes of leaves last."""
        ranked: dict[str, None] = {}

        def visit(item: Expr) -> None:
            for found in self._inside(item):
                for arg in found.args:
                    if self._is_named(arg) and providers[arg] not in ranked:
                        visit(arg)
            ranked.setdefault(providers[item])

        for root in (*(line.value for line in self.text.lines), *self.roots):
            if root in providers and providers[root] not in ranked:
                visit(root)
        return [*ranked, *(name for name in nodes if name not in ranked)]

    def _reads(self, value: Expr, *, own: bool) -> tuple[set[int], set[Expr]]:
        """Old states and named values that a statement reads; `own` when it spells its value out."""
        if self._is_named(value) and not own:
            return set(), {value}
        inside = self._inside(value)
        args = [arg for item in inside for arg in item.args] if inside else [value]
        states = {int(arg.value or 0) for arg in args if arg.op == "state"}
        return states, {arg for arg in args if self._is_named(arg)}

    # the result

    def _script(self, order: list[str], split: set[int]) -> Script:
        names: dict[Expr, str] = {**self.hyper_nodes, **self.locals}
        names |= {node: slot.name for node, slot in self.old.items()}
        waiting = {i: self.plan.names.fresh(f"{self._slot(i).name}_new") for i in sorted(split)}
        for value, slot in self.first_write.items():
            names[value] = waiting.get(slot.index, slot.name)
        by_key = {value.key: value for value in self.locals}
        statements = []
        for name in order:
            role, _, what = name.partition(":")
            if role == "let":
                statements.append(Statement("let", names[by_key[what]], by_key[what]))
                continue
            if role == "keep":
                statements.append(Statement("let", self.kept, self.rule.update))
                continue
            slot = self._slot(int(what))
            if role == "new":
                statements.append(Statement("let", waiting[slot.index], slot.next))
                continue
            first = self.first_write.get(slot.next, slot)
            source = waiting.get(slot.index, "") or (names[slot.next] if first is not slot else "")
            statements.append(Statement("write", slot.name, slot.next, slot, source))
        roots = [*self.roots, *(slot.init for slot in self.slots)]
        used = {item.op for item in ex.walk(roots)}
        return Script(
            text=self.text, slots=tuple(self.slots), hypers=self.hypers, statements=tuple(statements),
            update=self.rule.update, kept=self.kept, names=names, kinds=self.rule.kinds,
            ranges=host_ranges(roots, self.rule.hypers),
            reads=frozenset(used & {*HOST_LEAVES, "g", "w", "is_matrix"}),
        )  # fmt: skip


def _needs_itself(name: str, before: Mapping[str, set[str]]) -> bool:
    """Whether a statement has to wait for itself."""
    seen: set[str] = set()
    pending = list(before[name])
    while pending:
        other = pending.pop()
        if other == name:
            return True
        if other not in seen:
            seen.add(other)
            pending += before[other]
    return False


def _written_args(item: Expr) -> tuple[Expr, ...]:
    """Arguments as often as they are written: a square writes its argument once."""
    return item.args[:1] if item.op == "mul" and item.args[0] is item.args[1] else item.args
