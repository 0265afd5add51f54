"""The schema of a search config: every key, its type, range, default and meaning, in one place.

Knows keys and the names they may hold. Does not know files, lines or overrides (`config`), and runs
nothing. The docstring under each field is what `docs/search_config.schema.json` says about it.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import Field, ValidationInfo, create_model, field_validator, model_validator

from ruleforge.app.contradictions import contradictions
from ruleforge.app.objectives import OBJECTIVES, Direction
from ruleforge.app.training_schema import Training
from ruleforge.app.values import (
    Duration,
    Listed,
    PriorEntry,
    RuleEntry,
    RuleRef,
    Table,
    choices,
    fail,
    folder_of,
    place_of,
)
from ruleforge.core.known import KNOWN
from ruleforge.errors import GrammarError
from ruleforge.evaluate.limits import Limits as StaticLimits
from ruleforge.words import did_you_mean

# What people call a measured time; the one that is measured is `latency`.
TIME_OBJECTIVES: Final = ("time", "wall_time", "wall_s", "step_time", "throughput")
CLOCKED: Final = tuple(name for name, row in OBJECTIVES.items() if row.needs == "clock")
TRAINED: Final = tuple(name for name, row in OBJECTIVES.items() if row.needs == "training")

STRATEGIES: Final = ("nsga2", "aging", "islands", "hyper_only", "random")
DEFAULT_GENERATIONS: Final = 40


class Search(Table):
    """How the space of rules is searched, and when it ends."""

    strategy: str = Field(default="nsga2", json_schema_extra={"enum": [*STRATEGIES]})
    """nsga2: Pareto selection with variation; aging: the oldest die, the best of a few breed; islands:
    several populations of nsga2 that exchange their best; hyper_only: constants of the seed rules alone;
    random: fresh draws alone, the control."""
    population: int = Field(default=200, ge=2, le=100_000)
    """Individuals alive at a time, and rules proposed per generation."""
    generations: int | None = Field(default=None, ge=1)
    """Generations after which the search ends. The first of generations, budget, evaluations and lane_steps
    counts; 40 generations when none of them is given."""
    budget_s: Duration | None = Field(default=None, alias="budget")
    """Wall time of the search and its end, such as "90s", "10m" or "2h". What is compiled once a machine
    comes on top."""
    evaluations: int | None = Field(default=None, ge=1)
    """Rules trained after which no new generation starts."""
    lane_steps: int | None = Field(default=None, ge=1)
    """Training steps of all lanes together after which no new generation starts: a price that two searches
    can be held to, whatever the machine and however they spend it."""
    seed_rules: Listed[RuleEntry] = ()
    """Rules in the first population: known rules, .rule files or run folders; [] is a cold start."""
    finalists: int = Field(default=8, ge=1, le=1000)
    """Rules that are judged on both suites at the end, beside the baselines."""
    rescore: int = Field(default=0, ge=0, le=10_000)
    """Rules of the highest rung that seem to be among so many of the best get more scoring seeds at once,
    with the setting they were tuned to, so that luck does not lead the search; 0 gives none."""
    rescore_seeds: int = Field(default=3, ge=1, le=1000)
    """How many seeds more."""
    confirm: int = Field(default=32, ge=0, le=10_000)
    """Rules of the highest rung that are scored again, in full and on both suites, before the finalists are
    chosen among them: the best of many noisy scores is partly luck. 0 chooses the finalists by the
    search's own scores."""
    confirm_seeds: int = Field(default=3, ge=1, le=1000)
    """Seeds of that second look, on which nothing else was chosen."""
    validate_every: int = Field(default=0, ge=0)
    """Generations after which the best rules are tried on the validation suite; 0 waits for the end."""
    validate_top: int = Field(default=4, ge=1, le=1000)
    """How many of the best rules such a look takes, one of each form."""
    on_degradation: Literal["restart", "reparameterize", "stop", "ignore"] = "restart"
    """What to do when two looks in a row found the search's own fitness risen and validation fallen. restart:
    go on from the best validated rules; reparameterize: try other constants in the best validated rule;
    stop: end the search; ignore: only record it."""
    immigrants: float = Field(default=0.1, ge=0, le=1)
    """Share of each generation that is drawn afresh from the grammar."""
    crossover: float = Field(default=0.5, ge=0, le=1)
    """Share of the children that have two parents."""
    dedupe: bool = True
    """Train a behaviour once: rules that act alike on the probes share one evaluation."""
    selection: Literal["nsga2", "epsilon_lexicase"] = "nsga2"
    """How parents are chosen: by Pareto front and crowding, or by how good they are on workloads in a random
    order, which favours specialists. Who survives is decided by the fronts either way."""
    tournament: int = Field(default=0, ge=0, le=1000)
    """How many are drawn for each parent, of which the best becomes it: more is more pressure. 0 takes the
    strategy's usual number, two, or eight in aging."""
    tune_top: int = Field(default=0, ge=0, le=1000)
    """How many of the best rules get siblings with other constants in each generation."""
    tune_moves: int = Field(default=4, ge=1, le=1000)
    """How many such siblings each of them gets."""
    restarts: int = Field(default=0, ge=0)
    """Generations without a better rule after which the population starts anew; 0 never. What was found
    stays in the run."""
    novelty: bool = False
    """Keep rules that behave unlike the others, as one more Pareto axis, among the better half."""
    alike: int = Field(default=0, ge=0, le=1000)
    """How many rules of one niche survive a generation, and climb a rung in one; 0 for any number. Rules
    share a niche when they answer nearly alike, however they are written. Without it the siblings of one
    good rule fill the population."""
    islands: int = Field(default=4, ge=2, le=1000)
    """How many populations the strategy islands has."""
    migrate_every: int = Field(default=5, ge=1)
    """Generations between two migrations."""
    migrants: int = Field(default=2, ge=1)
    """How many of the best of each island are copied to the next one."""
    prior: PriorEntry | None = None
    """An earlier run: what its survivors were made of is drawn more often."""

    @model_validator(mode="before")
    @classmethod
    def _ends(cls, data: Any) -> Any:
        ends = {"generations", "budget", "budget_s", "evaluations", "lane_steps"}
        if isinstance(data, dict) and not ends & data.keys():
            return {**data, "generations": DEFAULT_GENERATIONS}
        return data

    @model_validator(mode="after")
    def _room_for_islands(self) -> Self:
        if self.strategy == "islands" and 2 * self.islands > self.population:
            fail(
                f"{self.islands} islands have no room in a population of {self.population}",
                "at least two individuals an island",
                "islands",
            )
        return self

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, value: str) -> str:
        if value not in STRATEGIES:
            fail(f"there is no strategy {value!r}", choices(value, STRATEGIES))
        return value

    @field_validator("seed_rules")
    @classmethod
    def _once(cls, value: tuple[RuleRef, ...]) -> tuple[RuleRef, ...]:
        experts = {known.rule.rule.key for known in KNOWN.values() if known.family == "by_hand"}
        if by_hand := [entry.name for entry in value if entry.rule().rule.key in experts]:
            fail(
                f"{by_hand[0]} is a reference that searches are judged by, and no search may start from it",
                "leave it out; compare with it afterwards: ruleforge compare RUN --against NAME",
            )
        return _distinct(value)


def _distinct(entries: tuple[RuleRef, ...]) -> tuple[RuleRef, ...]:
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        fail(f"named twice: {', '.join(twice)}", "each rule once")
    return entries


if TYPE_CHECKING:

    class Objectives(Table):
        """Pareto axes."""

    class Weights(Table):
        """Weights of one sum."""

    class _TrainedLimits(Table):
        """Limits on what training shows."""

else:
    Objectives = create_model(
        "Objectives",
        __base__=Table,
        __doc__="Pareto axes: which are used. Each has one direction, stated so that it can be read alone.",
        **{
            name: (Literal[row.direction] | None, Field(default=None, description=row.described))
            for name, row in OBJECTIVES.items()
        },
    )
    Weights = create_model(
        "Weights",
        __base__=Table,
        __doc__="Weights of one weighted sum, in place of Pareto axes. The sum is maximised; what is better "
        "when smaller enters it with a minus sign, so weights are positive.",
        **{
            name: (
                float | None,
                Field(default=None, gt=0, description=f"Weight of one unit ({row.unit}) of {name}."),
            )
            for name, row in OBJECTIVES.items()
        },
    )
    _TrainedLimits = create_model(
        "_TrainedLimits",
        __base__=Table,
        **{
            name: (
                float | None,
                Field(
                    default=None,
                    description=f"Of a rule of the highest rung, {row.word} this. {row.described}",
                ),
            )
            for name, row in OBJECTIVES.items()
            if row.needs == "training"
        },
    )


def refuse_objective(name: str, *, deterministic: bool) -> tuple[str, str]:
    """Why this name cannot be an objective (message, hint)."""
    available = f"available: {', '.join(OBJECTIVES)}"
    if name in TIME_OBJECTIVES and deterministic:
        return (
            f"objective {name!r} is measured by a clock, which deterministic = true rules out",
            f"use cost, which counts operations; {available}",
        )
    if name in TIME_OBJECTIVES:
        return f"there is no objective {name!r}", f"measured time is called latency; {available}"
    return f"there is no objective {name!r}", did_you_mean(name, OBJECTIVES, available)


class Limits(_TrainedLimits):
    """What a candidate may not pass: its size and cost before it is trained, the rest once it was trained in
    full. A rule that passes one is no parent and no finalist."""

    nodes: int = Field(default=30, ge=2, le=512)
    """Distinct nodes of the canonical rule."""
    states: int = Field(default=2, ge=0, le=16)
    """State slots of the size of the weights."""
    flops_per_weight: float = Field(default=40.0, gt=0)
    """Floating-point operations per weight and step."""
    bytes_per_weight: float | None = Field(default=None, gt=0)
    """Bytes moved per weight and step, in float32."""
    energy_per_weight: float | None = Field(default=None, gt=0)
    """Estimated picojoules per weight and step; see the objective energy."""
    scale_free: bool = False
    """Refuse rules whose direction depends on how large gradients are: with them the scale of the loss is one
    more hyperparameter. SGD, Adam and Lion pass."""
    latency_ns: float | None = Field(default=None, gt=0)
    """Measured nanoseconds per weight and step on this machine; needs deterministic = false."""

    @property
    def static(self) -> StaticLimits:
        """Those that need no training."""
        return StaticLimits(**{each.name: getattr(self, each.name) for each in fields(StaticLimits)})

    @property
    def trained(self) -> dict[str, float]:
        """Limits on what training shows, by objective."""
        return {name: value for name in TRAINED if (value := getattr(self, name)) is not None}


DEFAULT_BASELINES: Final = (
    "sgd",
    "momentum",
    "nesterov",
    "rmsprop",
    "adam",
    "nadam",
    "lion",
    "signum",
    "adabelief",
    "adan",
    "ademamix",
    "lamb",
    "cautious_adamw",
    "cautious_lion",
    "grams",
    "muon_adamw",
)


class Baselines(Table):
    """Known rules that are tuned with the same budget and compared with."""

    rules: Listed[RuleEntry] = Field(
        default=tuple(RuleRef.model_construct(name=name, text="") for name in DEFAULT_BASELINES), min_length=1
    )
    """Known rules, .rule files or run folders; adam is always among them."""

    @field_validator("rules")
    @classmethod
    def _with_adam(cls, value: tuple[RuleRef, ...]) -> tuple[RuleRef, ...]:
        if "adam" not in [entry.name for entry in value]:
            fail("adam is missing from the baselines", "add 'adam': speed-ups against it are always reported")
        return _distinct(value)


def _grammar_ref(grammar: str, folder: Path) -> str:
    is_path = grammar.endswith(".toml") or "/" in grammar
    return str(place_of(grammar, folder)) if is_path else grammar


class Config(Table):
    """A search: what is searched, on what, for what, and for how long."""

    grammar: str = "full"
    """A name in grammars/, or the path of a grammar file."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides every random choice of the search."""
    deterministic: bool = True
    """Refuse what cannot repeat bit for bit, such as objectives measured by a clock."""
    folder: str = ""
    """Folder from which the paths in this file count; its own folder when left out."""
    search: Search = Search(generations=DEFAULT_GENERATIONS)
    training: Training = Training(suite="search")
    objectives: Objectives | None = None
    """Pareto axes; speedup and complexity when neither objectives nor weights are given."""
    weights: Weights | None = None
    """A weighted sum in place of Pareto axes."""
    limits: Limits = Limits()
    baselines: Baselines = Baselines()

    @model_validator(mode="before")
    @classmethod
    def _default_objectives(cls, data: Any) -> Any:
        if isinstance(data, dict) and not {"objectives", "weights"} & data.keys():
            return {**data, "objectives": {"speedup": "max", "complexity": "min"}}
        return data

    @field_validator("grammar")
    @classmethod
    def _known_grammar(cls, value: str, info: ValidationInfo) -> str:
        from ruleforge.search.grammar import load_grammar

        try:
            load_grammar(_grammar_ref(value, folder_of(info)))
        except GrammarError as error:
            place = f" ({error.file}, line {error.line})" if error.file and error.line else ""
            fail(f"grammar {value!r}{place}: {error.message}", error.hint)
        return value

    @model_validator(mode="after")
    def _one_kind_of_fitness(self) -> Self:
        if self.objectives is not None and self.weights is not None:
            fail("[objectives] and [weights] exclude each other", "keep one of them", "weights")
        if not self.axes:
            fail(
                "no objective is named",
                'name at least one, such as speedup = "max"',
                "weights" if self.weights else "objectives",
            )
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for at, message, hint in contradictions(self):
            fail(message, hint, at)
        return self

    @property
    def grammar_ref(self) -> str:
        """What `load_grammar` takes: the grammar's name, or its path from wherever the process stands."""
        return _grammar_ref(self.grammar, Path(self.folder))

    @property
    def axes(self) -> dict[str, Direction]:
        """Objectives in use and their directions, in the order of the table."""
        chosen = self.weights if self.weights is not None else self.objectives
        return {name: row.direction for name, row in OBJECTIVES.items() if getattr(chosen, name) is not None}

    @property
    def fitness_names(self) -> tuple[str, ...]:
        """What a strategy is told of a candidate, in order: the Pareto axes, or the weighted sum."""
        return ("weighted_sum",) if self.weights is not None else tuple(self.axes)

    @property
    def signed_weights(self) -> dict[str, float] | None:
        """Factors of a sum to maximise, or None where the axes are Pareto axes."""
        if self.weights is None:
            return None
        signs = {"max": 1.0, "min": -1.0}
        return {name: signs[way] * getattr(self.weights, name) for name, way in self.axes.items()}
