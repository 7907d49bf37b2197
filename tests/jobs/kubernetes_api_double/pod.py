"""A pod: one container, which is a process of this machine, and its status as a kubelet writes it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from .objects import Objects, now


class Log:
    """What one run of a container has written so far."""

    def __init__(self):
        self.lines: list[tuple[str, str]] = []
        self.ended = False
        self.more = threading.Condition()

    def write(self, line: str) -> None:
        nanoseconds = time.time_ns()
        second = datetime.fromtimestamp(nanoseconds // 10**9, UTC)
        with self.more:
            self.lines.append((f"{second:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09d}Z", line))
            self.more.notify_all()

    def end(self) -> None:
        with self.more:
            self.ended = True
            self.more.notify_all()


class Pod:
    """Runs a container until it ends well; after a failure again, if its policy is so.

    `init`: the name of an init container that waits for the master, for as long as the test wants.
    """

    def __init__(
        self, objects: Objects, name: str, metadata: dict, container: dict, environment: dict, cluster, policy: str,
        init: str = "",
    ):  # fmt: skip
        assert policy in ("Never", "OnFailure")
        self._is_restarted = policy == "OnFailure"
        self._objects, self._cluster, self.name = objects, cluster, name
        self._container, self._environment = container, environment
        self._init = init
        self.init_log = Log()
        self.logs: list[Log] = []
        self.restarts = 0
        self.succeeded = self.failed = False
        self._last: dict = {}
        self._process: subprocess.Popen | None = None
        self._stopped = threading.Event()
        made = objects.add("pods", {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata},
            "spec": {"containers": [container], "initContainers": [{"name": init}] if init else []},
            "status": {"phase": "Pending"},
        })  # fmt: skip
        assert made is not None, f"pod {name} is still there"
        self._uid = made["metadata"]["uid"]
        self._thread = threading.Thread(target=self._run, name=f"pod {name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Kill the process and delete the pod, as an operator does."""
        self._stopped.set()
        if self._process is not None:
            kill(self._process)
        self._thread.join()
        self._objects.remove("pods", self.name, self._uid)

    def terminate(self) -> None:
        """End the container as the kubelet does that of a pod to be deleted, and delete the pod."""
        self._stopped.set()
        if self._process is not None:
            kill(self._process)
        self._thread.join()
        self._status("Failed", {"terminated": self._terminated(-signal.SIGTERM)})
        self._objects.remove("pods", self.name, self._uid)

    def kill(self) -> None:
        """End the container as the kernel does for want of memory."""
        kill(self._process)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _run(self) -> None:
        if not self._may_start() or not self._initialise():
            return
        while not self._stopped.is_set():
            code = self._run_once()
            if self._stopped.is_set():
                return
            if code == 0:
                self._status("Succeeded", {"terminated": self._terminated(0)})
                self.succeeded = True
                return
            ended = {"terminated": self._terminated(code)}
            if not self._is_restarted:
                self._status("Failed", ended)
                self.failed = True
                return
            self._status("Running", ended)
            self._stopped.wait(self._cluster.restart_seconds)
            self.restarts += 1
            self._last = ended

    def _may_start(self) -> bool:
        """Wait for a node, the image and the secrets, for as long as the test wants."""
        while not self._stopped.is_set():
            self._cluster.news.clear()
            secret = next((s for s in _secrets(self._container) if not self._cluster.has_secret(s)), None)
            if self._cluster.unschedulable:
                condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                self._set({"phase": "Pending", "conditions": [condition | {"message": self._cluster.unschedulable}]})
            elif self._cluster.image_problem:
                waiting = {"reason": "ImagePullBackOff", "message": self._cluster.image_problem}
                self._status("Pending", {"waiting": waiting})
            elif secret is not None:
                message = f'secret "{secret["name"]}" not found'
                self._status("Pending", {"waiting": {"reason": "CreateContainerConfigError", "message": message}})
            else:
                return True
            self._cluster.news.wait(0.1)
        return False

    def _initialise(self) -> bool:
        """Run the init container, which looks for the master's name and says so."""
        if self._init:
            self._status("Pending", {"waiting": {"reason": "PodInitializing"}}, {"running": {"startedAt": now()}})
            self.init_log.write("waiting for master")
            while self._cluster.master_unreachable and not self._stopped.is_set():
                self._stopped.wait(0.05)
            self.init_log.end()
        return not self._stopped.is_set()

    def _run_once(self) -> int:
        log = Log()
        # The pod's own scratch space, which outlives its containers.
        scratch = self._cluster.folder / self.name
        scratch.mkdir(exist_ok=True)
        environment = self._cluster.pod_environment | self._environment | self._cluster.resolve(self._container)
        self._message = scratch / f"termination-log-{len(self.logs)}"
        self._message.touch()
        environment |= {"TMPDIR": str(scratch), "HOME": str(scratch), "OATFLOW_TERMINATION_LOG": str(self._message)}
        self._process = subprocess.Popen(
            [*self._container["command"], *self._container.get("args", ())], env=environment, text=True,
            errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            cwd=self._cluster.folder,
        )  # fmt: skip
        self.logs.append(log)
        self._status("Running", {"running": {"startedAt": now()}})
        if self._stopped.is_set():
            kill(self._process)
        for line in self._process.stdout:
            log.write(line.rstrip("\n"))
        code = self._process.wait()
        kill(self._process)
        log.end()
        return code

    def _terminated(self, code: int) -> dict:
        reason = "Completed" if code == 0 else "OOMKilled" if code == -signal.SIGKILL else "Error"
        ended = {
            "exitCode": 128 - code if code < 0 else code,
            "reason": reason,
            "startedAt": now(),
            "finishedAt": now(),
        }
        message = self._message.read_text()
        return ended | ({"message": message} if message else {})

    def _status(self, phase: str, state: dict, init: dict | None = None) -> None:
        container = {"name": self._container["name"], "image": self._container["image"], "state": state}
        ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now(), "finishedAt": now()}}
        inits = [{"name": self._init, "state": init or ended, "restartCount": 0, "lastState": {}}] if self._init else []
        self._set({
            "phase": phase, "conditions": [{"type": "PodScheduled", "status": "True"}],
            **({"initContainerStatuses": inits} if inits else {}),
            "containerStatuses": [container | {"restartCount": self.restarts, "lastState": self._last}],
        })  # fmt: skip

    def _set(self, status: dict) -> None:
        self._objects.update("pods", self.name, lambda pod: pod.update(status=status))


def kill(process: subprocess.Popen) -> None:
    """Kill a process with all that it started; what is gone is gone."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _secrets(container: dict) -> list[dict]:
    references = [v["valueFrom"]["secretKeyRef"] for v in container["env"] if "secretKeyRef" in v.get("valueFrom", {})]
    return [reference for reference in references if not reference.get("optional")]


def light_torchrun(folder: Path, python: str) -> None:
    """Put a torchrun into a folder that starts workers as the real one does, without loading torch."""
    script = folder / "torchrun"
    script.write_text(f"#!{python}\n" + (Path(__file__).parent / "light_torchrun.py").read_text())
    script.chmod(0o755)
