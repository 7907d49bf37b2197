"""Jobs as a real cluster was seen to run them: recorded states are sent one after the other, in place of operators."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from pathlib import Path

from .pod import Log

FOLDER = Path(__file__).parents[2] / "real_cluster"
PYTORCHJOB, TRAINJOB = (
    json.loads((FOLDER / f"{name}.json").read_text()) for name in ("states-seen", "states-seen-trainjob")
)
# How long each state lasts here.
STATE_SECONDS = 0.1


class RecordedPod:
    """A pod of a recording, with what its containers are said to have written."""

    def __init__(self, name: str, lines: list[str], init_lines: list[str] = ()):
        self.name, self.init_log = name, Log()
        self.logs = [Log()]
        for log, written in ((self.logs[0], lines), (self.init_log, init_lines)):
            for line in written:
                log.write(line)
            log.end()

    def stop(self) -> None:
        """Nothing runs."""


class RecordedRun:
    """Plays one job. `play` sends its states; `deleted` what follows when the job is deleted."""

    def __init__(self, double, found: dict, plural: str, container: str, play: Callable, deleted: Callable):
        self.double, self.plural, self.container = double, plural, container
        self.name, self.uid = found["metadata"]["name"], found["metadata"]["uid"]
        self.pods: list[RecordedPod] = []
        self._deleted, self._ended = deleted, threading.Event()
        self._thread = threading.Thread(target=play, args=(self,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self._ended.clear()
        self._deleted(self)
        for pod in self.pods:
            self.remove(pod.name)

    def send(self, role: str, state: dict, owned: bool = True) -> None:
        """Make a recorded state the present one of a pod, or of the job."""
        if self._ended.wait(STATE_SECONDS):
            return None
        if role in ("pytorchjob", "trainjob"):
            change = lambda found: found.update(status=copy.deepcopy(state["status"]))  # noqa: E731
            return self.double.write_status(self.plural, self.name, self.uid, change)
        pod = copy.deepcopy(state)
        name = pod["metadata"]["name"]
        # As old as the job, unless the pod is one of a job before it.
        pod["metadata"].pop("creationTimestamp")
        if not owned:
            pod["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
        pod["metadata"]["ownerReferences"][0]["uid"] = self.uid if owned else "of-the-job-before"
        inits = [{"name": one["name"]} for one in state["status"].get("initContainerStatuses", ())]
        pod["spec"] = {"containers": [{"name": self.container}], "initContainers": inits}

        def change(found: dict) -> None:
            found["status"] = pod["status"]
            found["metadata"] |= {k: v for k, v in pod["metadata"].items() if k == "deletionTimestamp"}

        if self.double.objects.add("pods", pod) is None:
            self.double.objects.update("pods", name, change)

    def remove(self, pod: str) -> None:
        found = self.double.objects.get("pods", pod)
        if found is not None:
            self.double.objects.remove("pods", pod, found["metadata"]["uid"])


def running(state: dict) -> dict:
    """Return the state of a pod before its container ended: it runs."""
    found = copy.deepcopy(state)
    found["metadata"].pop("deletionTimestamp", None)
    container = found["status"]["containerStatuses"][0]
    began = container["state"].get("terminated", container["state"].get("running"))["startedAt"]
    container |= {"state": {"running": {"startedAt": began}}, "ready": True}
    found["status"]["phase"] = "Running"
    return found


def lost(state: dict) -> dict:
    """Return how the kubelet reports a pod that is deleted before its container is created."""
    found = copy.deepcopy(state)
    ended = {
        "reason": "ContainerStatusUnknown", "exitCode": 137, "startedAt": None, "finishedAt": None,
        "message": "The container could not be located when the pod was terminated",
    }  # fmt: skip
    found["status"]["containerStatuses"][0]["state"] = {"terminated": ended}
    found["status"]["phase"] = "Failed"
    return found
