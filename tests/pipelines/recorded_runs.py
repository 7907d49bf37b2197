"""Answers of a real Kubeflow Pipelines 2.17, and what a run's answer was at a moment of its past."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "real_cluster"
NOT_YET, NO_END = "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"
ENDED = ("SUCCEEDED", "FAILED")
# Of run-importer-failed: the pod of its step that failed, and a log of the kind that it would have now.
TRAIN_POD = "oatflow-alignment-gfkzf-retry-system-container-impl-131677377"
# As KFP's launcher writes it: our sentence is not the last line.
LOG_OF_TRAIN = """\
I1130 19:06:00.115411      22 launcher_v2.go:200] input ComponentSpec:{}
{"at": 1796065627.1, "step": "train", "round": 0, "event": "start"}
Traceback (most recent call last):
  File "/app/train.py", line 3, in <module>
oatflow: the training ran out of memory on worker 0 (OOMKilled); raise train_pod_memory, which is 3Gi
I1130 19:07:09.993217      22 launcher_v2.go:151] publish success.
F1130 19:07:09.993519      22 main.go:58] failed to execute component: exit status 1
time=2026-11-30T19:07:10.101Z level=INFO msg="sub-process exited" argo=true
Error: exit status 1
"""


def recorded(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def moment(text):
    return datetime.fromisoformat(text)


def as_of(run, when):
    """Return the answer as it was at a moment: the nodes that KFP knew then, in the state that they had."""
    past = copy.deepcopy(run)
    _rewind(past, when)
    past["finished_at"] = run["finished_at"] if past["state"] in ENDED else NOT_YET
    tasks = [
        task for task in past["run_details"]["task_details"] if moment(task["state_history"][0]["update_time"]) <= when
    ]
    for task in tasks:
        _rewind(task, when)
        if task.get("state") not in (*ENDED, "SKIPPED", None):
            task["end_time"] = NO_END
    past["run_details"]["task_details"] = tasks
    return past


def playing(run, every=10):
    """Yield the answers of a run from its beginning to its end, so many seconds apart."""
    when, end = moment(run["created_at"]), moment(run["state_history"][-1]["update_time"])
    while when < end:
        yield as_of(run, when), when
        when += timedelta(seconds=every)
    yield run, end


def label_at_work():
    """Return a run whose step `label` is at work, and the name of its pod."""
    run = as_of(recorded("run-succeeded"), moment("2026-11-30T19:38:20Z"))
    for task in run["run_details"]["task_details"]:
        if task["display_name"] == "executor(0)" and task["state"] == "PENDING":
            task["state"] = "RUNNING"
    return run, "oatflow-alignment-27zqr-retry-system-container-impl-4185351948"


def _rewind(entry, when):
    """Take an entry back to a moment. KFP notes a change a second or two after it was made."""
    known = [change for change in entry["state_history"] if moment(change["update_time"]) <= when]
    entry["state_history"] = known
    state = known[-1].get("state") if known else "PENDING"
    if state is None:
        entry.pop("state", None)
    else:
        entry["state"] = state
