"""Variation: mutation and crossover of genomes.

Each variation is a function of a generator, a vocabulary and two parents, the second of which most
ignore; it returns a new genome, or None where it does not apply. It keeps types and the order of
lines. Limits are the business of `children`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ruleforge.search import deap_bridge as bridge
from ruleforge.search.deap_bridge import Node
from ruleforge.search.forms import CONSTANT_TYPES, Scale, Tensor, Type
from ruleforge.search.lines import Genome, Line, remapped
from ruleforge.search.vocabulary import Pool, Rng, Vocabulary, draw_index

INNER = 0.9  # chance that crossover takes an op rather than a leaf
OUTER = 0.4  # chance that a new op goes around a whole line
LATE = 0.2  # chance that a new state stands below the update


# helpers


def readable(lines: Sequence[Line], here: int) -> list[Node]:
    """References that the line at index `here` may hold."""
    old = [bridge.ref(i, False, line.kind) for i, line in enumerate(lines) if line.role == "state"]
    return old + [bridge.ref(i, True, line.kind) for i, line in enumerate(lines[:here])]


def _with_tree(genome: Genome, index: int, nodes: Sequence[Node]) -> Genome:
    line = replace(genome.lines[index], tree=bridge.tree(nodes))
    return Genome((*genome.lines[:index], line, *genome.lines[index + 1 :]))


def _positions(genome: Genome, wanted: Callable[[Node, Type], bool]) -> list[tuple[int, int, Type]]:
    """Line, index and expected type of the nodes that are wanted."""
    return [
        (i, j, kind)
        for i, line in enumerate(genome.lines)
        for j, (node, kind) in enumerate(
            zip(line.tree, bridge.expected_types(line.tree, line.kind), strict=True)
        )
        if wanted(node, kind)
    ]


def _pick(rng: Rng, genome: Genome, wanted: Callable[[Node, Type], bool]) -> tuple[int, int, Type] | None:
    found = _positions(genome, wanted)
    return found[draw_index(rng, len(found))] if found else None


def _is_call(node: Node, kind: Type) -> bool:
    return bool(node.arity)


def _any(node: Node, kind: Type) -> bool:
    return True


def reads_line(node: Node, line: int) -> bool:
    return isinstance(node, bridge.Ref) and node.line == line


# variations: (rng, vocabulary, first parent, second parent) -> genome or None

Variation = Callable[[Rng, Vocabulary, Genome, Genome], Genome | None]


def crossover(rng: Rng, vocabulary: Vocabulary, first: Genome, second: Genome) -> Genome | None:
    """A subtree of the first parent gives way to one of the second's that fits its type."""
    place = _pick(rng, first, _is_call if rng.random() < INNER else _any)
    if place is None:
        place = _pick(rng, first, _any)
    i, j, wanted = place  # type: ignore[misc]
    inner = rng.random() < INNER
    donors = _positions(
        second, lambda node, _: issubclass(node.ret, wanted) and (bool(node.arity) or not inner)
    )
    if not donors:
        donors = _positions(second, lambda node, _: issubclass(node.ret, wanted))
    if not donors:
        return None
    line, start, _ = donors[draw_index(rng, len(donors))]
    tree = second.lines[line].tree
    nodes = _at_home(rng, vocabulary, tree[start : bridge.subtree_end(tree, start)], second, first, i)
    return None if nodes is None else _with_tree(first, i, bridge.replaced(first.lines[i].tree, j, nodes))


def _at_home(
    rng: Rng, vocabulary: Vocabulary, nodes: Sequence[Node], source: Genome, target: Genome, here: int
) -> list[Node] | None:
    """Nodes of one genome with their references pointing into another: the like-numbered state if it can be
    read there, else anything of the same type. Terms that have a line of their own are written out."""
    allowed = readable(target.lines, here)
    out = []
    for node in _written_out(nodes, source):
        if isinstance(node, bridge.Ref):
            twin = _twin(node, source, target)
            found = twin if twin in allowed else vocabulary.leaf(rng, node.ret, allowed)
            if found is None:
                return None
            node = found
        out.append(node)
    return out


def _written_out(nodes: Sequence[Node], source: Genome) -> Iterator[Node]:
    for node in nodes:
        if isinstance(node, bridge.Ref) and source.lines[node.line].role == "local":
            yield from _written_out(source.lines[node.line].tree, source)
        else:
            yield node


def _twin(node: Node, source: Genome, target: Genome) -> Node | None:
    role = source.lines[node.line].role
    rank = sum(line.role == role for line in source.lines[: node.line])
    alike = [i for i, line in enumerate(target.lines) if line.role == role and line.kind is node.ret]
    return bridge.ref(alike[rank], node.new, node.ret) if rank < len(alike) else None


def subtree(rng: Rng, vocabulary: Vocabulary, first: Genome, second: Genome) -> Genome | None:
    """A fresh random subtree, up to three levels deep."""
    i, j, wanted = _pick(rng, first, _any)  # type: ignore[misc]
    if wanted in CONSTANT_TYPES.values() or wanted not in vocabulary.closing:
        return None
    tree = first.lines[i].tree
    room = min(1 + draw_index(rng, 3), vocabulary.limits.depth - bridge.depth_of(tree, j))
    fresh = vocabulary.tree(rng, wanted, room, full=rng.random() < 0.5, refs=readable(first.lines, i))
    return _with_tree(first, i, bridge.replaced(tree, j, fresh))


def node(rng: Rng, vocabulary: Vocabulary, first: Genome, second: Genome) -> Genome | None:
    """Another op over the same arguments."""
    place = _pick(rng, first, _is_call)
    if place is None:
        return None
    i, j, wanted = place
    tree = first.lines[i].tree
    kinds = [tree[k].ret for k in bridge.children(tree, j)]
    pool = vocabulary.calls.get(wanted)
    fitting = [
        item
        for item in (pool.items if pool else ())
        if item.arity == len(kinds)
        and item != tree[j]
        and all(issubclass(kind, arg) for kind, arg in zip(kinds, item.args, strict=True))
    ]
    if not fitting:
        return None
    return _with_tree(first, i, [*tree[:j], fitting[draw_index(rng, len(fitting))], *tree[j + 1 :]])


def constant(rng: Rng, vocabulary: Vocabulary, first: Genome, second: Genome) -> Genome | None:
    """One constant moves on its own scale."""
    places = constants(first)
    if not places:
        return None
    i, j, _ = places[draw_index(rng, len(places))]
    moved = vocabulary.step(rng, first.lines[i].tree[j])
    return None if moved is None else _with_tree(first, i, bridge.replaced(first.lines[i].tree, j, [moved]))


def constants(genome: Genome) -> list[tuple[int, int, Type]]:
    """Line, index and type of the constants that can be moved."""
    return _positions(genome, lambda item, _: isinstance(item, bridge.Const) and item.value != 0)


def hoist(rng: Rng, vocabulary: Vocabulary, first: Genome, second: Genome) -> Genome | None:
    """A line becomes one of its own subtrees."""
    i = draw_index(rng, len(first.lines))
    line = first.lines[i]
    inside = [j for j in range(1, len(line.tree)) if issubclass(line.tree[j].ret, line.kind)]
    if not inside:
        return None
    j = inside[draw_index(rng, len(inside))]
    return _with_tree(first, i, line.tree[j : bridge.subtree_end(line.tree, j)])


def shrink(rng: Rng, vocabulary: Vocabulary, first: Genome, second: Genome) -> Genome | None:
    """An op gives way to one of its arguments."""
    place = _pick(rng, first, _is_call)
    if place is None:
        return None
    i, j, wanted = place
    tree = first.lines[i].tree
    fitting = [k for k in bridge.children(tree, j) if issubclass(tree[k].ret, wanted)]
    if not fitting:
        return None
    k = fitting[draw_index(rng, len(fitting))]
    return _with_tree(first, i, bridge.replaced(tree, j, tree[k : bridge.subtree_end(tree, k)]))


def insert(rng: Rng, vocabulary: Vocabulary, first: Genome, second: Genome) -> Genome | None:
    """A new op around a whole line or a subtree; its other arguments are leaves.

    What stands around a whole update, a mask or a bend, makes more of a difference than what stands around
    one of its many leaves.
    """
    if rng.random() < OUTER:
        i = draw_index(rng, len(first.lines))
        j, wanted = 0, first.lines[i].kind
    else:
        i, j, wanted = _pick(rng, first, _any)  # type: ignore[misc]
    tree = first.lines[i].tree
    whole = tree[j : bridge.subtree_end(tree, j)]
    nodes = _wrapped(rng, vocabulary, whole, wanted, readable(first.lines, i))
    return None if nodes is None else _with_tree(first, i, bridge.replaced(tree, j, nodes))


def _wrapped(
    rng: Rng,
    vocabulary: Vocabulary,
    whole: Sequence[Node],
    wanted: Type,
    refs: Sequence[Node],
    partner: Sequence[Node] = (),
) -> list[Node] | None:
    """A new op around a subtree, with the tree `partner` as another argument if one is given."""
    pool = vocabulary.calls.get(wanted)
    kind = whole[0].ret
    places = []
    for item in pool.items if pool else ():
        fits = [k for k, arg in enumerate(item.args) if issubclass(kind, arg)]
        if partner:
            others = [k for k, arg in enumerate(item.args) if issubclass(partner[0].ret, arg)]
            places += [(item, k, m) for k in fits for m in others if k != m]
        else:
            places += [(item, k, -1) for k in fits]
    if not places:
        return None
    weights = [vocabulary.grammar.weights.get(item.form.op, 1.0) for item, _, _ in places]
    item, at, other = Pool(places, weights).draw(rng)
    out = [item]
    for k, arg in enumerate(item.args):
        if k == at:
            out += whole
        elif k == other:
            out += partner
        else:
            out += vocabulary.tree(rng, arg, 0, full=True, refs=refs)
    return out


def blend(rng: Rng, vocabulary: Vocabulary, first: Genome, second: Genome) -> Genome | None:
    """The updates of both parents as two arguments of one new op."""
    i = first.update
    brought = _at_home(rng, vocabulary, second.lines[second.update].tree, second, first, i)
    if brought is None:
        return None
    mine = first.lines[i]
    nodes = _wrapped(rng, vocabulary, mine.tree, mine.kind, readable(first.lines, i), brought)
    return None if nodes is None else _with_tree(first, i, nodes)


def terminal(rng: Rng, vocabulary: Vocabulary, first: Genome, second: Genome) -> Genome | None:
    """Another leaf of the same type."""
    place = _pick(rng, first, lambda item, kind: not item.arity and kind not in CONSTANT_TYPES.values())
    if place is None:
        return None
    i, j, wanted = place
    tree = first.lines[i].tree
    fresh = vocabulary.leaf(rng, wanted, readable(first.lines, i))
    return None if fresh is None else _with_tree(first, i, bridge.replaced(tree, j, [fresh]))


def add_state(rng: Rng, vocabulary: Vocabulary, first: Genome, second: Genome) -> Genome | None:
    """A new state with a recurrence of its own, and one place that reads it."""
    if len(first.states) >= vocabulary.limits.explicit_states:
        return None
    at = len(first.lines) if rng.random() < LATE else first.update
    position = {old: old + (old >= at) for old in range(len(first.lines))}
    lines = [replace(line, tree=remapped(line.tree, position)) for line in first.lines]
    lines.insert(at, Line("state", Tensor, bridge.tree([]), bridge.tree([bridge.const(0.0, Scale)])))
    lines[at] = replace(lines[at], tree=bridge.tree(recurrence(rng, vocabulary, lines, at)))
    genome = Genome(tuple(lines))
    update = genome.update
    reading = bridge.ref(at, at < update and rng.random() < 0.5, Tensor)
    nodes = injected(rng, lines[update].tree, lines[update].kind, reading)
    return None if nodes is None else _with_tree(genome, update, nodes)


def recurrence(rng: Rng, vocabulary: Vocabulary, lines: Sequence[Line], here: int) -> list[Node]:
    """A random next value that reads the state itself."""
    own = bridge.ref(here, False, Tensor)
    refs = readable(lines, here)
    room = min(draw_index(rng, 3), vocabulary.limits.depth - 1)
    nodes = vocabulary.tree(rng, Tensor, room, full=False, refs=refs)
    if any(item is own for item in nodes):
        return nodes
    return _wrapped(rng, vocabulary, nodes, Tensor, refs, [own]) or injected(rng, nodes, Tensor, own) or nodes


def injected(rng: Rng, nodes: Sequence[Node], root: Type, item: Node) -> list[Node] | None:
    """The tree with one of its leaves replaced by `item`, where the types allow it."""
    places = [
        j
        for j, kind in enumerate(bridge.expected_types(nodes, root))
        if not nodes[j].arity and issubclass(item.ret, kind)
    ]
    if not places:
        return None
    return list(bridge.replaced(nodes, places[draw_index(rng, len(places))], [item]))


def drop_state(rng: Rng, vocabulary: Vocabulary, first: Genome, second: Genome) -> Genome | None:
    """One state goes; leaves of its type stand where it was read."""
    if not first.states:
        return None
    gone = first.states[draw_index(rng, len(first.states))]
    position = {old: old - (old > gone) for old in range(len(first.lines)) if old != gone}
    lines = []
    for i, line in enumerate(first.lines):
        if i == gone:
            continue
        allowed = [item for item in readable(first.lines, i) if item.line != gone]
        nodes = [
            vocabulary.leaf(rng, item.ret, allowed)
            if isinstance(item, bridge.Ref) and item.line == gone
            else item
            for item in line.tree
        ]
        if any(item is None for item in nodes):
            return None
        lines.append(replace(line, tree=remapped(nodes, position)))
    return Genome(tuple(lines))


VARIATIONS: dict[str, Variation] = {
    "crossover": crossover,
    "blend": blend,
    "subtree": subtree,
    "node": node,
    "constant": constant,
    "hoist": hoist,
    "shrink": shrink,
    "insert": insert,
    "terminal": terminal,
    "add_state": add_state,
    "drop_state": drop_state,
}
OF_TWO = frozenset({"crossover", "blend"})
DEFAULT_WEIGHTS: dict[str, float] = {
    "crossover": 0.24,
    "blend": 0.06,
    "subtree": 0.12,
    "node": 0.10,
    "constant": 0.10,
    "hoist": 0.03,
    "shrink": 0.07,
    "insert": 0.16,
    "terminal": 0.06,
    "add_state": 0.04,
    "drop_state": 0.02,
}
