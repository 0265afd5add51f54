"""Tree edit distance between rules: how many nodes must be inserted, deleted or renamed.

A rule is the tree of its update and of its explicit states, with sugar folded; numbers and
hyperparameters have one label, so that tuned constants are no difference. Arguments of commutative ops
are in canonical order, which is as near as an ordered distance comes to ignoring it.
"""

from __future__ import annotations

from collections import Counter

from ruleforge.core.canon import fold
from ruleforge.core.expr import Expr
from ruleforge.core.rule import Rule

MAX_TREE = 160  # nodes; a larger tree is not compared

Tree = tuple[str, tuple["Tree", ...]]


def tree_of(rule: Rule) -> Tree:
    """The rule as one tree."""
    folded = fold(rule.canonical)
    parts = [_tree(folded.update), *(_tree(item) for item in folded.states.values())]
    return ("rule", tuple(parts))


def _tree(item: Expr) -> Tree:
    label = {"const": "#", "hyper": "#"}.get(item.op, item.op)
    return (label, tuple(_tree(arg) for arg in item.args)) if item.args else (label, ())


def numbers_of(rule: Rule) -> list[Expr]:
    """Constants and hyperparameters of the rule, in the order in which they occur in its tree."""
    folded = fold(rule.canonical)
    found: list[Expr] = []
    pending = [folded.update, *folded.states.values()][::-1]
    while pending:
        item = pending.pop()
        if item.op in ("const", "hyper"):
            found.append(item)
        pending += item.args[::-1]
    return found


def size(tree: Tree) -> int:
    """Nodes of a tree."""
    return 1 + sum(size(child) for child in tree[1])


def labels(tree: Tree) -> Counter[str]:
    """How often each label occurs."""
    found = Counter([tree[0]])
    for child in tree[1]:
        found += labels(child)
    return found


def lower_bound(a: Tree, b: Tree) -> int:
    """What the labels alone say: the distance is at least this."""
    one, other = labels(a), labels(b)
    return max(sum((one - other).values()), sum((other - one).values()))


def edit_distance(a: Tree, b: Tree) -> int | None:
    """Smallest number of insertions, deletions and renamings; None for trees that are too large.

    Source:
        Zhang & Shasha 1989, SIAM J. Comput. 18(6).

    Example:
        >>> edit_distance(("neg", (("g", ()),)), ("g", ()))
        1
    """
    if size(a) > MAX_TREE or size(b) > MAX_TREE:
        return None
    first, second = _Order(a), _Order(b)
    n, m = len(first.labels), len(second.labels)
    found = [[0] * m for _ in range(n)]
    for i in first.keyroots:
        for j in second.keyroots:
            _forest(first, second, i, j, found)
    return found[n - 1][m - 1]


class _Order:
    """Nodes in postorder: labels, leftmost leaves, and the roots that the algorithm starts from."""

    def __init__(self, tree: Tree) -> None:
        self.labels: list[str] = []
        self.leftmost: list[int] = []
        self._number(tree)
        last = {left: i for i, left in enumerate(self.leftmost)}
        self.keyroots = sorted(last.values())

    def _number(self, tree: Tree) -> int:
        left = -1
        for child in tree[1]:
            found = self._number(child)
            left = found if left < 0 else left
        here = len(self.labels)
        self.labels.append(tree[0])
        self.leftmost.append(left if left >= 0 else here)
        return self.leftmost[here]


def _forest(a: _Order, b: _Order, i: int, j: int, found: list[list[int]]) -> None:
    """Distances between all prefixes of two subtrees' forests; fills those of whole subtrees."""
    start, begin = a.leftmost[i], b.leftmost[j]
    rows, columns = i - start + 2, j - begin + 2
    table = [[0] * columns for _ in range(rows)]
    for x in range(1, rows):
        table[x][0] = x
    for y in range(1, columns):
        table[0][y] = y
    for x in range(1, rows):
        for y in range(1, columns):
            p, q = start + x - 1, begin + y - 1
            step = min(table[x - 1][y], table[x][y - 1]) + 1
            if a.leftmost[p] == start and b.leftmost[q] == begin:
                rename = table[x - 1][y - 1] + (a.labels[p] != b.labels[q])
                table[x][y] = found[p][q] = min(step, rename)
            else:
                jump = table[a.leftmost[p] - start][b.leftmost[q] - begin] + found[p][q]
                table[x][y] = min(step, jump)
