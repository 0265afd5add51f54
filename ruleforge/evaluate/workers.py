"""Jobs in, results out: in any number of workers, and whatever becomes of them.

A job's result depends on the job alone, so the number of workers, their kind and their deaths cannot
matter. A job that is lost is tried again; lost twice, it runs alone, so that blame is certain; a job
that is to blame is divided until one rule is left, and that rule is set aside. What a journal holds is
not run again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from ruleforge.errors import RuleforgeError, RunError
from ruleforge.evaluate import blame
from ruleforge.evaluate.blame import SetAside
from ruleforge.evaluate.lanes import ChunkJob, ChunkResult, sample_steps
from ruleforge.evaluate.transports import Lost, Transport, make_transport, split_kind
from ruleforge.evaluate.wire import Failure, WireError, from_text, job_key, request, to_text

Job = TypeVar("Job")
Result = TypeVar("Result")

TRIES: Final = 2  # with others about; the next one is alone
MAX_DROPS: Final = 20
DEFAULT_LIMIT_S: Final = 600.0


class Journal(Protocol):
    """Results that outlive the process. Both are durable once `flush` has returned."""

    def get(self, key: str) -> str | None:
        """The kept result of a job, or None."""

    def put(self, key: str, text: str) -> None:
        """Keep a result."""

    def set_aside(self, key: str, rule: SetAside) -> None:
        """Keep which rule was given up, and why."""

    def flush(self) -> None:
        """Make it all durable."""


class NoJournal:
    """Keeps nothing."""

    def get(self, key: str) -> str | None:
        return None

    def put(self, key: str, text: str) -> None:
        pass

    def set_aside(self, key: str, rule: SetAside) -> None:
        pass

    def flush(self) -> None:
        pass


@dataclass
class _Task:
    """A job under way, or a part of one."""

    number: int
    job: Any
    parent: _Task | None = None
    parts: list[Any] = field(default_factory=list)
    at: int = 0  # which half of the parent it is
    losses: int = 0
    losses_alone: int = 0
    drops: int = 0
    is_alone: bool = False
    started: float | None = None
    accused: _Accused | None = None  # a trial of another rule, which decides about this one


@dataclass(frozen=True)
class _Accused:
    """A job with one rule that failed: why, and the error if it turns out that the rule is innocent."""

    task: _Task
    reason: str
    traceback: str
    error: RuleforgeError


class Workers:
    """Workers that live as long as the run. One local worker is this process itself.

    Args:
        n_workers: processes or threads, where this process starts them.
        parallel: "loky", "threads", "dask", "dask:ADDRESS", "ray" or "ray:ADDRESS".
        limit_s: after how long a job counts as hanging, where its worker can be stopped.
        journal: results that need not be computed again.
        say: told in one line when something went wrong that was dealt with.
    """

    def __init__(
        self,
        n_workers: int = 1,
        parallel: str = "loky",
        *,
        limit_s: float = DEFAULT_LIMIT_S,
        journal: Journal | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        split_kind(parallel)
        self.n_workers = max(1, n_workers)
        self.parallel = parallel
        self.limit_s = limit_s
        self.journal: Journal = journal if journal is not None else NoJournal()
        self.say = say
        self.set_aside: list[SetAside] = []
        self._transport: Transport | None = None
        self._strict = False

    @property
    def stamps(self) -> set[str]:
        """What other processes said of their versions and processors."""
        return self._transport.stamps if self._transport is not None else set()

    def close(self) -> None:
        """Give the workers back; the next job starts new ones."""
        if self._transport is not None:
            self._transport.close()
        self._transport = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def strict(self) -> Iterator[None]:
        """Within, no rule is set aside: what cannot be trained is an error. For baselines."""
        before, self._strict = self._strict, True
        try:
            yield
        finally:
            self._strict = before

    def map(
        self,
        function: Callable[[Job], Result],
        jobs: Sequence[Job],
        done: Callable[[int, int], None] = lambda finished, total: None,
    ) -> list[Result]:
        """`[function(job) for job in jobs]`, in the order of the jobs; all of it durable in the journal.

        Args:
            function: a module-level function.
            jobs: what travels: text and numbers.
            done: told how many of how many are finished.

        Raises:
            RuleforgeError: a job failed, and not because of one candidate.
        """
        if self._transport is None:
            self._transport = make_transport(self.parallel, self.n_workers)
        return _Mapping(self, self._transport, function, jobs, done).run()

    def _give_up(self, key: str, rule: SetAside) -> None:
        self.set_aside.append(rule)
        self.journal.set_aside(key, rule)
        first = next((line for line in rule.text.splitlines() if line.startswith("update")), rule.text)
        where = f" on {rule.workload}" if rule.workload else ""
        self.say(f"a rule is set aside{where}: {rule.reason}: {first}")


class _Mapping:
    """One call of `map`."""

    def __init__(
        self,
        workers: Workers,
        transport: Transport,
        function: Callable[[Any], Any],
        jobs: Sequence[Any],
        done: Callable[[int, int], None],
    ) -> None:
        self.workers, self.transport, self.function, self.jobs = workers, transport, function, jobs
        self.done = done
        self.results: dict[int, Any] = {}
        self.keys: dict[int, str] = {}
        self.waiting: deque[_Task] = deque()
        self.suspects: deque[_Task] = deque()
        self.out: dict[int, _Task] = {}
        self.n_tickets = 0
        self.is_waiting_told = False

    def run(self) -> list[Any]:
        clean = False
        try:
            for number, job in enumerate(self.jobs):
                if (kept := self._kept(number, job)) is not None:
                    self._finish(number, kept)
                else:
                    self.waiting.append(_Task(number, job))
            while self.waiting or self.suspects or self.out:
                self._submit()
                self._collect()
            clean = True
        finally:
            if not clean:  # an error or Ctrl-C: what is under way is of no use to the next map
                self.workers.close()
            self.workers.journal.flush()
        return [self.results[number] for number in range(len(self.jobs))]

    # sending

    def _submit(self) -> None:
        if any(task.is_alone for task in self.out.values()):
            return
        size = self.transport.size()
        if size == 0 and not self.is_waiting_told:
            self.is_waiting_told = True
            self.workers.say("no worker is connected: waiting for one")
        while self.waiting and len(self.out) < 2 * size:
            self._send(self.waiting.popleft())
        if not self.out and self.suspects and size:
            self._send(self.suspects.popleft())
        self._start(size)

    def _send(self, task: _Task) -> None:
        self.n_tickets += 1
        task.started = None
        self.out[self.n_tickets] = task
        self.transport.submit(self.n_tickets, self.function, task.job)

    def _start(self, size: int) -> None:
        """Jobs start in the order in which they were sent; the clock of the first `size` runs."""
        now = time.monotonic()
        for task in list(self.out.values())[:size]:
            if task.started is None:
                task.started = now

    # receiving

    def _collect(self) -> None:
        replies = self.transport.wait(self._patience())
        for ticket, reply in replies:
            task = self.out.pop(ticket, None)
            if task is not None:
                self._take(task, reply)
        self._start(self.transport.size())
        self._stop_overdue()

    def _patience(self) -> float | None:
        if not self.transport.can_stop:
            return None
        starts = [task.started for task in self.out.values() if task.started is not None]
        if not starts:
            return 1.0
        left = min(starts) + self.workers.limit_s - time.monotonic()
        return max(0.0, left) + 0.01

    def _stop_overdue(self) -> None:
        if not self.transport.can_stop:
            return
        now = time.monotonic()
        late = [
            ticket
            for ticket, task in self.out.items()
            if task.started is not None and now - task.started >= self.workers.limit_s
        ]
        if late:
            limit = f"{self.workers.limit_s:g} s"
            self.workers.say(f"{len(late)} of {len(self.out)} jobs took longer than {limit} and are stopped")
            for ticket in late:  # it may take a while until one is gone; if it never is, it is stopped again
                self.out[ticket].started = now
            self.transport.stop(late)

    def _take(self, task: _Task, reply: Any) -> None:
        if task.accused is not None and not (isinstance(reply, Lost) and not reply.blame):
            self._judge(task.accused, reply)
        elif isinstance(reply, Lost):
            self._lost(task, reply)
        elif isinstance(reply, Failure):
            self._failed(task, reply)
        else:
            self._result(task, reply)

    def _lost(self, task: _Task, lost: Lost) -> None:
        if not lost.blame or (task.started is None and not task.is_alone):
            task.drops += 1
            if task.drops > MAX_DROPS:
                raise RunError(f"a job was dropped {task.drops} times: {lost.reason}", hint=_RESUME)
            (self.suspects if task.is_alone else self.waiting).appendleft(task)
            return
        reason = lost.reason
        if reason == "stopped":
            reason = f"it took longer than {self.workers.limit_s:g} s"
        task.losses += 1
        if not task.is_alone:
            self.workers.say(f"a job was lost: {reason}; it is tried again")
            if task.losses < TRIES:
                self.waiting.append(task)
            else:
                task.is_alone = True
                self.suspects.append(task)
            return
        if self.workers._strict or not blame.can_give_up(task.job):
            raise RunError(f"a job is lost every time: {reason}", hint=_RESUME)
        if self._divide(task):
            return
        task.losses_alone += 1
        if task.losses_alone < TRIES:  # once may be somebody else's doing
            self.suspects.append(task)
        else:
            self._accuse(_Accused(task, reason, "", RunError(f"every job is lost: {reason}", hint=_RESUME)))

    def _failed(self, task: _Task, failure: Failure) -> None:
        if self.workers._strict or not blame.can_give_up(task.job):
            raise failure.error
        if not self._divide(task):
            self._accuse(_Accused(task, failure.error.message, failure.traceback, failure.error))

    def _accuse(self, accused: _Accused) -> None:
        """One rule is left. Before it is set aside, another rule must do well in its place."""
        if (other := blame.control(accused.task.job)) is None:
            self._settle(accused)
        else:
            self.suspects.append(_Task(accused.task.number, other, is_alone=True, accused=accused))

    def _judge(self, accused: _Accused, reply: Any) -> None:
        if isinstance(reply, Lost | Failure):  # the task itself fails, or the machine: no rule is to blame
            raise accused.error
        self._settle(accused)

    def _divide(self, task: _Task) -> bool:
        """Send the halves in place of the whole; false for a job with one rule."""
        if (parts := blame.halves(task.job)) is None:
            return False
        task.parts = [None, None]
        for at, job in enumerate(parts):
            self.suspects.append(_Task(task.number, job, task, at=at, is_alone=True, losses=task.losses))
        return True

    def _settle(self, accused: _Accused) -> None:
        task = accused.task
        result, rule = blame.given_up(task.job, accused.reason, accused.traceback)
        self.workers._give_up(job_key(request(self.function, task.job)), rule)
        self._result(task, result)

    def _result(self, task: _Task, result: Any) -> None:
        while task.parent is not None:
            task.parent.parts[task.at] = result
            if any(part is None for part in task.parent.parts):
                return
            result, task = blame.joined(*task.parent.parts), task.parent
        if task.number in self.keys:
            self.workers.journal.put(self.keys[task.number], to_text(result))
        self._finish(task.number, result)

    def _finish(self, number: int, result: Any) -> None:
        self.results[number] = result
        self.done(len(self.results), len(self.jobs))

    # the journal

    def _kept(self, number: int, job: Any) -> Any | None:
        """A chunk's result from the journal; what is damaged there is computed again."""
        if not isinstance(job, ChunkJob) or isinstance(self.workers.journal, NoJournal):
            return None
        self.keys[number] = job_key(request(self.function, job))
        text = self.workers.journal.get(self.keys[number])
        if text is None:
            return None
        try:
            result = from_text(text)
        except WireError:
            return None
        return result if _is_result_of(job, result) else None


_RESUME = "what was finished is kept: resume the run, with more memory or fewer workers"


def _is_result_of(job: ChunkJob, result: Any) -> bool:
    if not isinstance(result, ChunkResult):
        return False
    curves, *vectors = (getattr(getattr(result, each.name), "shape", None) for each in fields(result))
    return curves == (job.n_lanes, len(sample_steps(job.n_steps))) and set(vectors) == {(job.n_lanes,)}
