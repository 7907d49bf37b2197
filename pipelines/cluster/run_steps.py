"""Our steps of a run, read from the nodes that Argo made for them.

KFP's answer lists every node in no order, drivers and retries too. A step NAME has the nodes `NAME-driver`, `NAME` and,
below `NAME`, `executor`, each also with `(0)` for its first attempt, `(1)` for the second. From the second round of a
run on, names end with the number of the round: `sample-2`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from .kubeflow_client import Run, Task

STEPS = ("open-round", "sample", "label", "train", "fit-reward-model", "evaluate", "close-round")
State = Literal["to come", "starting", "running", "done", "failed", "stopped", "skipped", "not reached"]
AT_WORK = ("starting", "running")
# Argo's and KFP's own nodes. What is neither one of these nor a step of ours is named when it fails.
_OUTER = re.compile(r"root|round(-\d+)?|condition(-\d+)+|executor")
_STEP = re.compile(rf"(?P<name>{'|'.join(STEPS)})(-(?P<round>\d+))?(?P<driver>-driver)?")
_CONDITION = re.compile(r"condition-\d+(-(?P<round>\d+))?")
_ATTEMPT = re.compile(r"\(\d+\)$")
_MOST_ATTEMPTS = 10
_FAILED = ("FAILED", "ERROR")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run. `round`: which round of the run it is in, from 1. `pod`: the pod of its last attempt."""

    round: int
    name: str
    state: State
    began: datetime | None = None
    ended: datetime | None = None
    attempt: int = 1
    note: str = ""
    error: str = ""
    pod: str = ""


def read_steps(run: Run) -> list[Step]:
    """Return the steps of all rounds of a run, in order, those that it has not reached as well."""
    found = _Nodes(run)
    steps = []
    for round_ in range(1, found.rounds + 1):
        steps += _with_reason(run, [_read_step(run, found, round_, name) for name in STEPS])
    return steps


def find_failed_steps(steps: Iterable[Step]) -> list[Step]:
    """Return the steps that failed, the first to fail first."""
    return sorted((step for step in steps if step.state == "failed"), key=lambda step: (step.ended is None, step.ended))


def find_failed_nodes(run: Run) -> list[str]:
    """Return the nodes that failed and are no step of ours: an importer, or the driver of a group of steps."""
    if run.terminated is not None:
        return []
    names = {_ATTEMPT.sub("", task.name) for task in run.tasks if task.state in _FAILED} - {run.workflow}
    return sorted(name for name in names if not _OUTER.fullmatch(name) and not _STEP.fullmatch(name))


def find_last_move(run: Run) -> datetime | None:
    """Return when KFP last noted a change in the run."""
    return max((task.moved for task in run.tasks if task.moved), default=run.began)


class _Nodes:
    """A run's nodes, by the step that they belong to."""

    def __init__(self, run: Run):
        self.steps: dict[tuple[int, str], Task] = {}
        self.drivers: dict[tuple[int, str], Task] = {}
        self.skipped_rounds: set[int] = set()
        seen: dict[str, int] = {}
        for task in sorted(run.tasks, key=lambda task: (task.began is None, task.began)):
            # Pipelines of former versions use the names of the first round in all rounds; these run one by one.
            seen[task.name] = seen.get(task.name, 0) + 1
            step, condition = _STEP.fullmatch(task.name), _CONDITION.fullmatch(task.name)
            if step is not None:
                table = self.drivers if step["driver"] else self.steps
                table[int(step["round"] or seen[task.name]), step["name"]] = task
            elif condition is not None and task.state == "SKIPPED":
                self.skipped_rounds.add(int(condition["round"] or seen[task.name]))
        self.pods = _pods_of_steps(run)
        self._executors = [task for task in run.tasks if task.name == "executor"]
        self._attempts = [task for task in run.tasks if re.fullmatch(r"executor\(\d+\)", task.name)]
        self.rounds = max(run.rounds, 1, *(round_ for round_, _ in [*self.drivers, *self.steps, *self.pods]))

    def error(self, key: tuple[int, str]) -> str:
        """Return what KFP noted as the error of a step, at its own node or at the one below."""
        pods = set(self.pods.get(key, ()))
        below = [task.error for task in self._executors if pods & {_pod_name(child) for child in task.children}]
        own = self.steps[key].error if key in self.steps else self.drivers[key].error
        return own or next(filter(None, below), "")

    def attempt(self, key: tuple[int, str]) -> Task | None:
        """Return the node of the last attempt of a step that is at work; None where it may be another step's.

        Nothing in KFP's answer says to which step an attempt belongs. When two steps work at the same time, attempts
        that have ended well are not theirs, and the first attempt begins with its step.
        """
        number = max(len(self.pods.get(key, ())) - 1, 0)
        fitting = [
            task for task in self._attempts if task.name == f"executor({number})" and task.state != "SUCCEEDED"
            and not _is_before(task.began, self.steps[key].began)
        ]  # fmt: skip
        exact = [task for task in fitting if task.began == self.steps[key].began] if not number else []
        fitting = exact or fitting
        return fitting[0] if len({task.state for task in fitting}) == 1 else None


def _read_step(run: Run, found: _Nodes, round_: int, name: str) -> Step:
    key = round_, name
    task, driver = found.steps.get(key), found.drivers.get(key)
    node = task or driver
    if node is None or not node.state:
        return Step(round_, name, _list_unreached(run, found, round_))
    began = driver.began if driver is not None else node.began
    pods = found.pods.get(key, ())
    state, note = _read_state(run, node, driver is not None and task is None, found.attempt(key) if task else None)
    ended = None if state in AT_WORK else node.ended or run.ended
    return Step(
        round_, name, state, began, ended, max(len(pods), 1), note, found.error(key), pods[-1] if pods else ""
    )  # fmt: skip


def _with_reason(run: Run, steps: list[Step]) -> list[Step]:
    """Note at the last step that ran why the others of its round were skipped."""
    place = next((place for place, step in enumerate(steps) if step.state == "skipped"), 0)
    if place == 0 or steps[place - 1].state != "done":
        return steps
    asks_people = run.arguments.get("preference_oracle") == "human"
    reason = "no round to do: the budget is spent" + (", or people still have to answer" if asks_people else "")
    if steps[place - 1].name != "open-round":
        reason = "people still have to answer" if asks_people else "nothing to learn from"
    return [*steps[: place - 1], replace(steps[place - 1], note=reason), *steps[place:]]


def _read_state(run: Run, node: Task, only_driver: bool, attempt: Task | None) -> tuple[State, str]:
    """Return the state of a step and what to add to it, from its node."""
    if node.state in _FAILED:
        if run.terminated is not None and not _is_before(node.ended, run.terminated):
            return "stopped", ""
        return "failed", "in Kubeflow's driver, before the step itself began" if only_driver else ""
    if node.state == "SKIPPED":
        return "skipped", ""
    if node.state == "SUCCEEDED" and not only_driver:
        return "done", ""
    if run.has_ended:
        return "stopped", ""
    if only_driver:
        return "starting", "its pod comes next" if node.state == "SUCCEEDED" else "Kubeflow prepares its pod"
    if attempt is not None and attempt.state == "PENDING":
        return "starting", "its pod waits to run"
    if attempt is not None and attempt.state in _FAILED and run.terminated is None:
        return "running", "its pod failed; Kubeflow decides whether to start another"
    return "running", ""


def _list_unreached(run: Run, found: _Nodes, round_: int) -> State:
    if round_ in found.skipped_rounds:
        return "skipped"
    return "not reached" if run.has_ended else "to come"


def _is_before(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and other is not None and one < other


def _pods_of_steps(run: Run) -> Mapping[tuple[int, str], Sequence[str]]:
    """Return the names of the pods of each step's attempts, in order."""
    names = _node_names(run)
    found: dict[tuple[int, str], dict[int, str]] = {}
    for id_, name in names.items():
        path = name.split(".")
        attempt = re.fullmatch(r"executor(?:\((\d+)\))?", path[-1])
        step = _STEP.fullmatch(_ATTEMPT.sub("", path[-2])) if len(path) > 1 else None
        if attempt is None or step is None:
            continue
        group = next((part for part in path if part.startswith("round-")), "round-1")
        round_ = int(step["round"] or group.removeprefix("round-").partition("(")[0])
        pods = found.setdefault((round_, step["name"]), {})
        if attempt[1] is not None:
            pods[int(attempt[1])] = _pod_name(id_)
    return {key: [pods[number] for number in sorted(pods)] for key, pods in found.items()}


def _pod_name(node: str) -> str:
    """Return the name of the pod of a step's attempt, from the id of its node."""
    workflow, _, number = node.rpartition("-")
    return f"{workflow}-retry-system-container-impl-{number}"


def _node_names(run: Run) -> Mapping[str, str]:
    """Return the full name of each node, such as `WORKFLOW(0).root(0).sample(0).executor(0)`, by the node's id.

    An id is the workflow's name and the FNV-1a hash of the node's full name.
    """
    ids = {child for task in run.tasks for child in task.children}
    parts = {_ATTEMPT.sub("", task.name) for task in run.tasks} - {run.workflow}
    names, open_ = {}, [(run.workflow, _hash_name(run.workflow))]
    while open_:
        name, so_far = open_.pop()
        is_leaf = name.rpartition(".")[2].startswith("executor(") or "-driver" in name
        suffixes = [] if name.endswith(")") else [f"({attempt})" for attempt in range(_MOST_ATTEMPTS)]
        suffixes += [] if is_leaf else [f".{part}" for part in parts]
        for suffix in suffixes:
            number = _hash_name(suffix, so_far)
            id_ = f"{run.workflow}-{number}"
            if id_ in ids and id_ not in names:
                names[id_] = name + suffix
                open_.append((name + suffix, number))
    return names


def _hash_name(text: str, so_far: int = 0x811C9DC5) -> int:
    """Continue the 32-bit FNV-1a hash of a text."""
    for byte in text.encode():
        so_far = (so_far ^ byte) * 0x01000193 & 0xFFFFFFFF
    return so_far
