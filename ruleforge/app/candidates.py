"""What a search remembers of its candidates between generations, and who is best among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ruleforge.app.confirming import Confirmed
from ruleforge.app.objectives import front_of
from ruleforge.app.schema import Config
from ruleforge.evaluate.funnel import at_most

ALIKE = 3  # contenders of one niche: which constants are best is a question of noise too


@dataclass
class Known:
    """A candidate as the search remembers it.

    Attributes:
        text: its rule.
        nodes: of it.
        value: the speed-up that it stands at, less for each rung missed.
        rung: the highest that it was trained on; -1 for none.
        objectives: as the strategy sees them.
        is_allowed: whether it keeps the limits that training shows.
    """

    text: str
    nodes: int
    value: float = 0.0
    rung: int = -1
    objectives: tuple[float, ...] = ()
    is_allowed: bool = True


class Candidates(dict[int, Known]):
    """Candidates by number."""

    def __init__(self, config: Config, top: int, niche_of: Callable[[int], str]) -> None:
        """Args: config of the search; number of its highest rung; niche of a candidate."""
        super().__init__()
        self.config, self.top, self.niche_of = config, top, niche_of

    def n_trained(self) -> int:
        return sum(known.rung >= 0 for known in self.values())

    def best(self) -> int | None:
        """By value, of whatever rung."""
        trained = [n for n, known in self.items() if known.rung >= 0 and known.is_allowed]
        return min(trained, key=lambda n: (-self[n].value, n), default=None)

    def front(self) -> list[int]:
        """Candidates of the highest rung that no other beats on all axes, best on the first one first.

        Where there is a weighted sum in place of axes, they are speed-up and nodes.
        """
        full = self._full(self)
        if self.config.weights is not None:
            pairs = ((n, (self[n].value, float(self[n].nodes))) for n in full)
            return front_of(pairs, ("max", "min"))
        return front_of(((n, self[n].objectives) for n in full), tuple(self.config.axes.values()))

    def _full(self, numbers: Iterable[int]) -> list[int]:
        """Those of the highest rung that keep the limits, best search fitness first."""
        full = [n for n in numbers if self[n].rung == self.top and self[n].is_allowed]
        return sorted(full, key=lambda n: (-self[n].value, self[n].nodes, n))

    def best_of_niches(
        self, among: Iterable[int] | None = None, count: int | None = None, alike: int = 1
    ) -> list[int]:
        """The best of the highest rung by the search's own fitness, at most `alike` of a niche."""
        return at_most(alike, self._full(self if among is None else among), self.niche_of)[:count]

    def finalists(self) -> dict[int, str]:
        """Half by speed-up alone, then the front's, then the rest; one a niche."""
        by_value = self.best_of_niches()
        count = self.config.search.finalists
        front = [n for n in self.front() if n in by_value]
        chosen = dict.fromkeys([*by_value[: (count + 1) // 2], *front, *by_value])
        return self._texts(list(chosen)[:count])

    def confirmed_finalists(self, confirmed: Sequence[Confirmed]) -> dict[int, str]:
        """The best of a second look, one a niche."""
        best = at_most(1, [each.id for each in confirmed], self.niche_of)
        return self._texts(best[: self.config.search.finalists])

    def contenders(self, count: int) -> dict[int, str]:
        """Who is looked at again before the finalists are chosen: the best by value, a few of a niche."""
        return self._texts(self.best_of_niches(count=count, alike=ALIKE))

    def _texts(self, numbers: Iterable[int]) -> dict[int, str]:
        return {n: self[n].text for n in numbers}
