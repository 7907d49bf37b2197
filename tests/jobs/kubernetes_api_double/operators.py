"""The training operator and Kubeflow Trainer: they turn jobs into pods, and pods into the status of jobs."""

from __future__ import annotations

import math
import secrets
import socket
import threading
import time
from collections.abc import Callable

from .objects import now
from .pod import Pod


class JobRun:
    """One job, from its creation until it has ended or is gone."""

    plural: str

    def __init__(self, cluster, found: dict):
        self._cluster, self._objects = cluster, cluster.objects
        self.name, self.uid, self._spec = found["metadata"]["name"], found["metadata"]["uid"], found["spec"]
        self.pods: list[Pod] = []
        self._port = free_port()
        self._thread = threading.Thread(target=self._run, name=f"operator of {self.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if not self._wait_for_admission():
            return
        self._begin()
        began = time.monotonic()
        self.pods = [self._pod(number) for number in range(self._count)]
        while self._is_wanted():
            if self._is_suspended():
                for pod in self.pods:
                    pod.terminate()
                return self._run()
            if self._has_failed():
                # The pods go first, and their logs with them; only then the job says that it failed.
                self._stop(those=lambda pod: not pod.failed)
                return self._failed_for_its_pods()
            if time.monotonic() - began >= self._deadline:
                self._stop()
                return self._failed_for_time()
            if self._has_succeeded():
                self._stop(those=lambda pod: not pod.succeeded)
                return self._succeeded()
            if any(pod.is_running for pod in self.pods):
                self._running()
            time.sleep(0.02)
        self._stop()

    def end(self) -> None:
        """Stop and delete all pods of a job that is not wanted any more."""
        self._thread.join()
        self._stop()

    def _stop(self, those: Callable[[Pod], bool] = lambda pod: True) -> None:
        for pod in filter(those, self.pods):
            pod.stop()

    def _is_wanted(self) -> bool:
        found = self._objects.get(self.plural, self.name)
        here = found is not None and found["metadata"]["uid"] == self.uid
        return here and "deletionTimestamp" not in found["metadata"] and not self._cluster.closed

    def _wait_for_admission(self) -> bool:
        while self._is_wanted():
            if not self._is_suspended():
                return True
            self._condition("Suspended", f"{self.kind}Suspended", f"{self.kind} {self.name} is suspended.")
            time.sleep(0.02)
        return False

    def _is_suspended(self) -> bool:
        spec = (self._objects.get(self.plural, self.name) or {"spec": {}})["spec"]
        return bool(spec.get("runPolicy", spec).get("suspend"))

    def _condition(self, type_: str, reason: str, message: str, **status: object) -> None:
        """Make a condition true, and those that it excludes false; they stay in the list."""
        new = {"type": type_, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now()}
        excluded = {"Running": "Suspended", "Suspended": "Running", "Failed": "Running", "Succeeded": "Running"}

        def change(found: dict) -> None:
            here = found.setdefault("status", {})
            conditions = here.setdefault("conditions", [])
            if any(one["type"] == type_ and one["status"] == "True" for one in conditions):
                return
            for one in conditions:
                if one["type"] == excluded.get(type_):
                    one["status"] = "False"
            conditions[:] = [one for one in conditions if one["type"] != type_] + [new]
            here.update(status)

        self._cluster.write_status(self.plural, self.name, self.uid, change)

    def _master_environment(self, number: int) -> dict[str, str]:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._port)}
        return {f"PET_{name}": value for name, value in address.items()} | {"PET_NODE_RANK": str(number)}


class PyTorchJobRun(JobRun):
    plural, kind = "pytorchjobs", "PyTorchJob"

    @property
    def _count(self) -> int:
        return sum(replicas.get("replicas", 1) for replicas in self._spec["pytorchReplicaSpecs"].values())

    @property
    def _deadline(self) -> float:
        return self._spec["runPolicy"].get("activeDeadlineSeconds", math.inf)

    def _pod(self, number: int) -> Pod:
        type_, index = ("Worker", number - 1) if number else ("Master", 0)
        template = self._spec["pytorchReplicaSpecs"][type_]["template"]
        each = int(self._spec["nprocPerNode"])
        (container,) = (one for one in template["spec"]["containers"] if one["name"] == "pytorch")
        place = self._master_environment(number)
        environment = place | {
            "PYTHONUNBUFFERED": "0", "PET_NNODES": str(self._count), "PET_NPROC_PER_NODE": str(each),
            "WORLD_SIZE": str(self._count * each), "RANK": str(number),
            "MASTER_ADDR": place["PET_MASTER_ADDR"], "MASTER_PORT": place["PET_MASTER_PORT"],
        }  # fmt: skip
        metadata = template.get("metadata", {})
        prefix = "training.kubeflow.org/"
        labels = metadata.get("labels", {}) | {
            f"{prefix}job-name": self.name, f"{prefix}replica-type": type_.lower(),
            f"{prefix}replica-index": str(index), f"{prefix}operator-name": "pytorchjob-controller",
        }  # fmt: skip
        name = f"{self.name}-{type_.lower()}-{index}"
        policy = self._spec["pytorchReplicaSpecs"][type_]["restartPolicy"]
        metadata = metadata | {"labels": labels, "ownerReferences": [self._owner]}
        init = "init-pytorch" if number else ""
        return Pod(self._objects, name, metadata, container, environment, self._cluster, policy, init)

    @property
    def _owner(self) -> dict:
        owner = {"apiVersion": "kubeflow.org/v1", "kind": self.kind, "name": self.name, "uid": self.uid}
        return owner | {"controller": True, "blockOwnerDeletion": True}

    def _begin(self) -> None:
        replicas = {type_: {"active": 0} for type_ in self._spec["pytorchReplicaSpecs"]}
        said = f"PyTorchJob {self.name} is created."
        self._condition("Created", "PyTorchJobCreated", said, startTime=now(), replicaStatuses=replicas)

    def _running(self) -> None:
        self._condition("Running", "PyTorchJobRunning", f"PyTorchJob {self.name} is running.")

    def _has_succeeded(self) -> bool:
        return self.pods[0].succeeded

    def _succeeded(self) -> None:
        said = f"PyTorchJob {self.name} is successfully completed."
        self._condition("Succeeded", "PyTorchJobSucceeded", said, completionTime=now())

    def _has_failed(self) -> bool:
        return any(pod.failed for pod in self.pods)

    def _failed_for_its_pods(self) -> None:
        self._failed(f"PyTorchJob {self.name} is failed because 1 replica(s) failed.")

    def _failed_for_time(self) -> None:
        self._failed(f"Job {self.name} has failed because it was active longer than specified deadline")

    def _failed(self, said: str) -> None:
        self._condition("Failed", "PyTorchJobFailed", said, completionTime=now())


class TrainJobRun(JobRun):
    plural, kind = "trainjobs", "TrainJob"
    # The runtime's; a TrainJob cannot choose it.
    backoff_limit = 1

    @property
    def _count(self) -> int:
        return self._spec["trainer"]["numNodes"]

    @property
    def _deadline(self) -> float:
        return self._spec.get("activeDeadlineSeconds", math.inf)

    def _pod(self, number: int) -> Pod:
        trainer = self._spec["trainer"]
        (patch,) = self._spec["runtimePatches"]
        (nodes,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        template = nodes["template"]["spec"]["template"]
        (patched,) = template["spec"]["containers"]
        container = {field: trainer[field] for field in ("image", "command", "args", "env")} | patched
        environment = self._master_environment(number) | {
            "PET_NNODES": str(self._count), "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
        }  # fmt: skip
        labels = template["metadata"]["labels"] | {
            "jobset.sigs.k8s.io/jobset-name": self.name, "jobset.sigs.k8s.io/replicatedjob-name": nodes["name"],
            "batch.kubernetes.io/job-completion-index": str(number),
        }  # fmt: skip
        name = f"{self.name}-node-0-{number}-{secrets.token_hex(3)[:5]}"
        return Pod(self._objects, name, {"labels": labels}, container, environment, self._cluster, "OnFailure")

    def _begin(self) -> None:
        self._count_active(0)

    def _running(self) -> None:
        self._count_active(self._count)

    def _count_active(self, active: int) -> None:
        counts = {"ready": 0, "succeeded": 0, "failed": 0, "suspended": 0}

        def change(found: dict) -> None:
            found.setdefault("status", {})["jobsStatus"] = [{"name": "node", "active": active} | counts]

        self._cluster.write_status(self.plural, self.name, self.uid, change)

    def _has_succeeded(self) -> bool:
        return all(pod.succeeded for pod in self.pods)

    def _succeeded(self) -> None:
        self._condition("Complete", "AllJobsCompleted", "jobset completed successfully")

    def _has_failed(self) -> bool:
        return sum(pod.restarts for pod in self.pods) > self.backoff_limit

    def _failed_for_its_pods(self) -> None:
        self._condition("Failed", "FailedJobs", "jobset failed due to one or more job failures")

    def _failed_for_time(self) -> None:
        self._condition("Failed", "DeadlineExceeded", "TrainJob exceeded its active deadline")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
