"""What `submit --wait` prints: a line when a step begins, and one with what it measured when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from oatflow.components.errors import ClusterError, OatflowError
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.reporting.words import duration
from oatflow.components.store.store import open_store

from ..laptop.display import StepBar, describe_measurements, describe_win_rate
from .kubeflow_client import Cluster, Run
from .run_steps import AT_WORK, STEPS, Step, find_last_move, read_steps
from .status import QUIET, find_run, read_last_line
from .step_events import ASKING, read_end, read_wait

# A pod that has not begun after this is worth a question, and again after each.
LOOK_AFTER = timedelta(minutes=1)
_BEGUN = ("starting", "running", "done", "failed", "stopped")
_ENDED = ("done", "failed", "stopped")
_WIDTH = max(map(len, STEPS))


class RunGone(ClusterError):
    """The workflow of a run no longer exists; KFP shows the run as RUNNING for ever."""


@dataclass
class RunWatch:
    """Prints what happens in a run. `rounds`: how many it does. `clock`: gives the time now.

    `win_rate`: the last one that was measured. `was_skipped`: whether steps were skipped.
    """

    cluster: Cluster
    bar: StepBar
    rounds: int
    clock: Callable[[], datetime]
    win_rate: str = ""
    was_skipped: bool = False
    _before: dict[tuple[int, str], Step] = field(default_factory=dict)
    _looked: datetime | None = None
    _read: datetime | None = None
    _wait: str = ""
    _was_there: bool = False
    _is_blind: bool = False
    _trouble: tuple[str, ...] = ()

    def take(self, run: Run) -> None:
        """Print what is new in the newest answer. Raises `RunGone`."""
        steps = read_steps(replace(run, rounds=max(run.rounds, self.rounds)))
        self.rounds = max(step.round for step in steps)
        self._show_bar(steps)
        for step in steps:
            for line in self._changes(run, step, self._before.get((step.round, step.name))):
                self.bar.print_line(f"{self._prefix(step.round)}{line}")
        for line in self._skipped(steps):
            self.bar.print_line(line)
        self._before = {(step.round, step.name): step for step in steps}
        if not run.has_ended:
            self._print_waits(run, steps)
            self._look_at_cluster(run, steps)

    def _changes(self, run: Run, step: Step, before: Step | None) -> Iterator[str]:
        had_begun = before is not None and before.state in _BEGUN
        if step.state in AT_WORK and not had_begun:
            yield f"{step.name:{_WIDTH}}  begins"
        elif step.state in AT_WORK and before is not None and step.attempt > before.attempt:
            yield f"{step.name:{_WIDTH}}  begins again, attempt {step.attempt}"
        elif step.state == "running" and before is not None and step.note and step.note != before.note:
            yield f"{step.name:{_WIDTH}}  {step.note}"
        if step.state in _ENDED and (before is None or before.state not in _ENDED):
            yield f"{step.name:{_WIDTH}}  {self._ending(run, step)}"

    def _ending(self, run: Run, step: Step) -> str:
        took = duration((step.ended - step.began).total_seconds() if step.began and step.ended else None)
        if step.state == "failed":
            return f"FAILED after {took}: {read_last_line(self.cluster, run, step)}"
        if step.state == "stopped":
            return f"stopped after {took}"
        event = read_end(self.cluster, run, step)
        notes = [describe_measurements(step.name, event)]
        if step.name == "evaluate":
            self.win_rate = describe_win_rate(event.get("facts") or self._facts_in_ledger(run))
            notes.append(self.win_rate)
        if step.name == "open-round" and "round" in event:
            notes.insert(0, f"round {event['round']} of the experiment")
        return ", ".join([f"done in {took}", *filter(None, [step.note, *notes])])

    def _facts_in_ledger(self, run: Run) -> Mapping[str, Any]:
        """Return what the run's evaluation measured, or nothing where its ledger is not read from here."""
        try:
            ledger = Ledger(open_store(run.arguments["ledger"]))
            last = ledger.read_head().round
            done = [ledger.find_done(round_, "evaluation") for round_ in (last + 1, last) if round_ >= 0]
        except (KeyError, OatflowError):
            return {}
        return next((each.facts for each in done if each is not None and each.run == run.id), {})

    def _skipped(self, steps: Sequence[Step]) -> Iterator[str]:
        """Yield one line with the steps of a round that are skipped, when that is known."""
        for round_ in range(1, self.rounds + 1):
            names = [
                step.name for step in steps
                if step.round == round_ and step.state == "skipped" and not self._knew_skipped(step)
            ]  # fmt: skip
            if names:
                self.was_skipped = True
                reason = next((step.note for step in reversed(steps) if step.round == round_ and step.note), "")
                yield f"{self._prefix(round_)}skipped: {', '.join(names)}" + (f" ({reason})" if reason else "")

    def _knew_skipped(self, step: Step) -> bool:
        before = self._before.get((step.round, step.name))
        return before is not None and before.state == "skipped"

    def _prefix(self, round_: int) -> str:
        return f"round {round_} of {self.rounds}  " if self.rounds > 1 else ""

    def _show_bar(self, steps: Sequence[Step]) -> None:
        over = sum(step.state not in (*AT_WORK, "to come") for step in steps)
        self.bar.update(over, len(steps), [(f"{step.name} {step.state}", step.began) for step in steps
                                           if step.state in AT_WORK])  # fmt: skip

    def _print_waits(self, run: Run, steps: Sequence[Step]) -> None:
        """Print what an oracle is waited for, when that changes: people, or a service."""
        now = self.clock()
        for step in steps:
            is_due = self._read is None or now - self._read > LOOK_AFTER
            if step.name in ASKING and step.state == "running" and is_due:
                self._read = now
                why = read_wait(self.cluster, run, step)
                if why and why != self._wait:
                    self.bar.print_line(f"{self._prefix(step.round)}{step.name:{_WIDTH}}  waits: {why}")
                self._wait = why

    def _look_at_cluster(self, run: Run, steps: Sequence[Step]) -> None:
        """Print what a step waits for that does not begin, and raise `RunGone` if the workflow no longer exists.

        Only where this machine reaches the cluster that the run is in: it has found the run there before.
        """
        now, moved = self.clock(), find_last_move(run)
        waits = [step for step in steps if step.state == "starting" and step.began and now - step.began > LOOK_AFTER]
        is_quiet = moved is not None and now - moved > QUIET
        is_due = self._looked is None or now - self._looked > LOOK_AFTER
        if self._is_blind or not run.workflow or not is_due or not (waits or is_quiet or self._looked is None):
            return
        self._looked = now
        try:
            found = find_run(self.cluster.namespace, run.id, run.workflow)
        except ClusterError:
            # Another cluster, or no way to it: KFP alone has to do.
            self._is_blind = True
            return
        if self._was_there and found.workflow is False and not found.pods:
            raise RunGone(
                f"run {run.id} is gone: KFP still says {run.state}, but its workflow no longer exists in namespace "
                f"{found.namespace}; was its schedule deleted? A new run carries the round on"
            )
        self._was_there = self._was_there or found.is_here
        if waits and tuple(found.troubles) != self._trouble:
            self._trouble = tuple(found.troubles)
            for trouble in found.troubles:
                self.bar.print_line(f"{self._prefix(waits[0].round)}{waits[0].name:{_WIDTH}}  waits: {trouble}")
