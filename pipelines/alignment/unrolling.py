"""From two compiled rounds to as many as a run does, with names that no other task of the run has.

KFP's UI finds tasks by name within the whole run: where two rounds have tasks of the same names, it shows the metrics
and the report of the last one for both. So the names of all tasks in the second round end in -2, and so on, and each of
its DAGs is a component of its own. The components of steps are the same in all rounds, and are shared.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

Spec = dict[str, Any]
ROUND = "round"
# A round after the first of its run is opened by another component; for users it is the same step.
_SAME_STEP = {"open-next-round": "open-round"}


def unroll_rounds(spec: Spec, rounds: int) -> Spec:
    """Return a pipeline of `rounds` rounds, made from one whose root has the tasks `round` and `round-2`.

    Every round after the first is a copy of the second. A pipeline whose round is in the root is returned as it is.
    """
    if ROUND not in spec["root"]["dag"]["tasks"]:
        return spec
    unrolled = copy.deepcopy(spec)
    tasks: Spec = unrolled["root"]["dag"]["tasks"]
    second = tasks.pop(f"{ROUND}-2")
    copies: Spec = {}
    before = ROUND
    for number in range(2, rounds + 1):
        task = copy.deepcopy(second)
        name = f"{ROUND}-{number}"
        task["taskInfo"]["name"] = name
        task["dependentTasks"] = [before]
        task["componentRef"]["name"] = _copy_dag(spec, second["componentRef"]["name"], name, {}, f"-{number}", copies)
        tasks[name] = task
        before = name
    unrolled["components"] = _list_used(unrolled["root"], spec["components"] | copies)
    return unrolled


def _copy_dag(spec: Spec, component: str, task: str, outer: Mapping[str, str], suffix: str, copies: Spec) -> str:
    """Add a copy of a DAG, and of the DAGs in it, for the task of this name; returns the name of the copy.

    `outer`: new names of tasks, by their old ones, in the DAGs around this one.
    """
    own = {name: _SAME_STEP.get(name, name) + suffix for name in spec["components"][component]["dag"]["tasks"]}
    renamed = {**outer, **own}
    copied = _rename_channels(spec["components"][component], renamed)
    tasks = {}
    for name, inner in copied["dag"]["tasks"].items():
        reference = inner["componentRef"]
        if "dag" in spec["components"][reference["name"]]:
            reference["name"] = _copy_dag(spec, reference["name"], own[name], renamed, suffix, copies)
        _rename_task(inner, name, own)
        tasks[own[name]] = inner
    copied["dag"]["tasks"] = tasks
    copies[f"comp-{task}"] = copied
    return f"comp-{task}"


def _rename_channels(component: Spec, renamed: Mapping[str, str]) -> Spec:
    """Return a copy of a component whose inputs are named after the new names of the tasks that they come from.

    KFP's local runner reads the name of the task that a condition depends on from the name of the input.
    """
    names = "|".join(sorted(map(re.escape, renamed), key=len, reverse=True))
    channel = re.compile(rf"pipelinechannel--({names})-(?=[A-Za-z])")
    text = channel.sub(lambda found: f"pipelinechannel--{renamed[found[1]]}-", json.dumps(component))
    result: Spec = json.loads(text)
    return result


def _rename_task(task: Spec, name: str, own: Mapping[str, str]) -> None:
    """Give a task its new name, and name those that it waits for and takes inputs from by theirs."""
    # A condition is shown under a name of its own.
    shown = task["taskInfo"]["name"]
    task["taskInfo"]["name"] = own[name] if shown == name else shown + own[name].removeprefix(name)
    if "dependentTasks" in task:
        task["dependentTasks"] = [own[other] for other in task["dependentTasks"]]
    for sources in task.get("inputs", {}).values():
        for source in sources.values():
            for kind in ("taskOutputParameter", "taskOutputArtifact"):
                if kind in source:
                    source[kind]["producerTask"] = own[source[kind]["producerTask"]]


def _list_used(component: Spec, components: Spec) -> Spec:
    """Return the components that a DAG uses, itself or in the DAGs in it."""
    used: Spec = {}
    for task in component["dag"]["tasks"].values():
        name = task["componentRef"]["name"]
        used[name] = components[name]
        if "dag" in components[name]:
            used |= _list_used(components[name], components)
    return used
