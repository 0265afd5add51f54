"""What is compiled before a training: which workloads' gradients can be, and in which process.

Compiling costs seconds a workload once a machine; torch keeps the result on disk, and other processes
load it in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ruleforge.errors import RunError
from ruleforge.evaluate import graphs
from ruleforge.evaluate.gradients import example, is_on_disk, refusal
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.threads import training_thread
from ruleforge.evaluate.train import gradient_plane, graph_identity
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import Workload
from ruleforge.tasks.workload import USER_SUITE
from ruleforge.words import said_if_slow


@dataclass(frozen=True)
class Compilation:
    """Compile the gradients and the scores of a workload for a number of lanes."""

    workload: Workload
    n_lanes: int


def tell_one_by_one(workloads: Sequence[Workload], say: Callable[[str], None]) -> None:
    """Say of each task that cannot run in lanes why, and what that costs."""
    for workload in workloads:
        if workload.one_by_one:
            say(
                f"{workload.one_by_one}; its lanes are trained one after another, "
                "ten times slower or more than side by side"
            )


def compilable(workloads: Sequence[Workload], say: Callable[[str], None]) -> tuple[str, ...]:
    """Names of the workloads whose gradients can be compiled here; why others cannot is said in one line.

    Only users' tasks are tried, which takes a second each; for the others tests do that.
    """
    workloads = [workload for workload in workloads if not workload.one_by_one]
    if not workloads:
        return ()
    if problem := graphs.why_not():
        say(f"{problem}: gradients are computed op by op, about four times slower")
        return ()
    found = []
    for workload in workloads:
        own = workload.suite == USER_SUITE
        if problem := refusal(workload.task, *example(workload, 2)) if own else "":
            say(f"the gradients of {workload.name} are computed op by op: {problem}")
        else:
            found.append(workload.name)
    return tuple(found)


def compile_gradients(
    workloads: Sequence[Workload],
    plan: Plan,
    workers: Workers,
    say: Callable[[str], None],
    done: Callable[[int, int], None] = lambda finished, total: None,
) -> None:
    """Compile what the plan wants compiled, side by side in the workers, and say so if it takes long.

    What is on disk already is left alone, and loaded by whoever trains with it first.

    Args:
        workloads: of them those that the plan names.
        plan: says which, and for how many lanes.
        workers: where.
        say: told once, after two seconds.
        done: told how many of how many are finished.

    Raises:
        RunError: the compiler fails.
    """
    sizes = sorted({plan.chunk_lanes, plan.score_lanes}, reverse=True)
    jobs = [
        Compilation(w, size)
        for w in workloads
        if w.name in plan.compiled
        for size in sizes
        if not is_on_disk(graph_identity(w, size))
    ]
    if not jobs:
        return
    names = ", ".join(dict.fromkeys(job.workload.name for job in jobs))
    with said_if_slow(
        say,
        f"compiling gradients, 10 to 30 s a workload, once a machine and outside any budget of time: {names}",
    ):
        problems = workers.map(compile_one, jobs, done)
    for job, problem in zip(jobs, problems, strict=True):
        if problem:
            raise RunError(
                f"compiling the gradients of {job.workload.name} failed: {problem}",
                hint='set gradient_plane = "eager" under [training], or mend the C++ compiler',
            )


def compile_one(job: Compilation) -> str:
    """Compile in this process; returns what went wrong, or ""."""
    try:
        with training_thread():
            gradient_plane(job.workload, job.n_lanes, True)
    except Exception as error:  # a compiler fails in any way it likes; the words are what is told
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    return ""
