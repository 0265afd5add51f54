"""The training part of a search config: workloads, learning rates, seeds, and the ladder of rungs.

See `schema` for the rest of it and for what it does not know.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from ruleforge.app.values import HELD_OUT, KEPT_APART, Duration, Listed, Table, WorkloadName, choices, fail
from ruleforge.tasks import SUITES, WORKLOADS, shares_data


class LrGrid(Table):
    """A logarithmic grid of learning rates, relative to 1 / (RMS of the rule's update on the probes)."""

    low: float = Field(default=1e-4, gt=0, le=1e6)
    """Smallest."""
    high: float = Field(default=1.0, gt=0, le=1e6)
    """Largest."""
    points: int = Field(default=9, ge=1, le=100)
    """How many, both ends included."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high or (self.low == self.high) != (self.points == 1):
            fail(
                f"low = {self.low!r}, high = {self.high!r}, points = {self.points} is no grid",
                "low < high with at least 2 points, or low = high with 1",
            )
        return self


class Rung(Table):
    """A level of the budget ladder below the full budget."""

    steps: int = Field(ge=1)
    """Optimizer steps of each lane; at most the shortest budget of the rung's workloads is used."""
    lrs: int = Field(default=3, ge=1, le=100)
    """Points of the learning-rate grid, spread over its whole width."""
    refine: bool = False
    """Train every second of these learning rates, then the neighbours of the best."""
    schedule: Literal["constant", "cosine", "warmup_cosine"] = "cosine"
    """The schedule of all lanes. One that ends at 0 shows in few steps what the full budget shows."""
    seeds: int = Field(default=0, ge=0, le=1000)
    """Seeds on which the learning rate that was found is scored; 0 reads the score off the best lane."""
    workloads: int = Field(default=1, ge=1)
    """How many workloads of the suite, the first ones first; at most all."""
    promote: float = Field(default=0.25, gt=0, le=1)
    """Share of the rules that goes on to the next rung."""


DEFAULT_RUNGS: Final = (
    Rung(steps=24, lrs=3, workloads=8, promote=0.2),
    Rung(steps=60, lrs=9, refine=True, seeds=3, workloads=14, promote=0.2),
)


class Training(Table):
    """What candidates and baselines are trained on, all alike."""

    suite: str | None = Field(default=None, json_schema_extra={"enum": ["search", "validation"]})
    """Suite that the search trains on; "search" when neither suite nor workloads is given."""
    workloads: Listed[WorkloadName] | None = Field(default=None, min_length=1)
    """Workloads instead of a suite: names of `ruleforge tasks`, "path/to/file.py:factory" or
    "package.module:factory"; paths count from the config's folder."""
    validation_suite: str = Field(default="validation", json_schema_extra={"enum": ["search", "validation"]})
    """Suite that judges the finalists; it must share no data with what is searched on."""
    lrs: LrGrid = LrGrid()
    """Learning rates to tune over."""
    schedules: Listed[Literal["constant", "cosine", "warmup_cosine"]] = Field(
        default=("constant", "cosine"), min_length=1
    )
    """Learning-rate schedules to tune over."""
    tuning: Literal["refined", "grid"] = "refined"
    """How the full rung of a search tunes, candidates and baselines alike: every second learning rate
    under the first schedule and then all schedules around the best of them, or the whole grid. The final
    and `compare` always tune over the whole grid."""
    stop_hopeless: bool = True
    """Stop lanes that diverge or fall far behind the same rule's others, where a rung or a second look tunes.
    Baselines, the final and `compare` train every lane to its end."""
    tune_seeds: int = Field(default=1, ge=1, le=1000)
    """Seeds on which learning rate and schedule are chosen at full budget, in the second look and in the
    final, by the mean loss over the second half; the same for all rules, and none on which one is scored."""
    seeds: int = Field(default=2, ge=1, le=1000)
    """Seeds on which a candidate at full budget is scored."""
    score_seeds: int = Field(default=2, ge=1, le=1000)
    """Fresh seeds on which finalists and baselines are scored at the end."""
    steps: int | None = Field(default=None, ge=1)
    """Full budget in optimizer steps, in place of each workload's own."""
    batch_size: int | None = Field(default=None, ge=1)
    """Rows of a batch, in place of each workload's own."""
    gradient_clip: float | None = Field(default=None, gt=0)
    """Clip gradients to this global norm."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of all rules, baselines included."""
    chunk_lanes: int = Field(default=24, ge=1, le=4096)
    """Lanes trained together; part of the execution plan, since other chunks give other bits."""
    gradient_plane: Literal["eager", "compiled", "auto"] = "auto"
    """How gradients are computed: op by op, or compiled, which costs seconds a workload once a machine
    and makes them about four times as fast. "auto" compiles the workloads on which it repays."""
    update_plane: Literal["auto", "numba", "torch", "reference", "triton", "triton_straight"] = "auto"
    """Backend that runs the rules; the triton ones need a GPU, and train there."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Of the gradients' matrix products on a GPU: the lower ones are faster, and part of the plan."""
    job_limit_s: Duration = Field(default=600.0, alias="job_limit")
    """Time after which a worker that trains one chunk of lanes counts as hanging; "10m" by default."""
    rungs: Listed[Rung] = DEFAULT_RUNGS
    """Levels of the budget ladder below the full budget."""
    full_rung: bool = True
    """Whether the full budget follows as the last level. Without it rules are trained in full when the best
    are looked at a second time (`search.confirm`) and in the final, and a search sees more of them."""

    @model_validator(mode="before")
    @classmethod
    def _default_suite(cls, data: Any) -> Any:
        if isinstance(data, dict) and not {"suite", "workloads"} & data.keys():
            return {**data, "suite": "search"}
        return data

    @field_validator("suite", "validation_suite")
    @classmethod
    def _known_suite(cls, value: str | None) -> str | None:
        if value is None:
            return value
        if value in KEPT_APART:
            fail(
                f"the {value.replace('_', '-')} suite is never used by a search",
                f"compare with it afterwards: ruleforge compare RUN --suite {value}",
            )
        if value not in SUITES:
            fail(
                f"there is no suite {value!r}", choices(value, [each for each in SUITES if each != HELD_OUT])
            )
        return value

    @field_validator("workloads")
    @classmethod
    def _workloads_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value and len(set(value)) < len(value):
            fail("a workload is named twice", "each workload once")
        return value

    @field_validator("schedules")
    @classmethod
    def _schedules_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            fail("a schedule is named twice", "each schedule once")
        return value

    @model_validator(mode="after")
    def _suites_apart(self) -> Self:
        if self.suite is not None and self.workloads is not None:
            fail("suite and workloads exclude each other", "keep one of them", "workloads")
        for ours, theirs in product(self.workload_names, SUITES[self.validation_suite]):
            if ours not in WORKLOADS:
                continue
            if shares_data(WORKLOADS[ours].data_id, WORKLOADS[theirs].data_id):
                fail(
                    f"the search would train on {ours!r}, which shares data with {theirs!r} of the "
                    f"validation suite {self.validation_suite!r}",
                    "search on other workloads, or validate with another suite",
                    "workloads" if self.workloads else "suite",
                )
        return self

    @property
    def workload_names(self) -> tuple[str, ...]:
        """What the search trains on, in order."""
        return self.workloads if self.workloads is not None else SUITES[self.suite or "search"]
