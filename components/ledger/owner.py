"""The owner of a claim: a process that can be checked for being alive, or just a host name.

`oatflow align` passes its own process to its steps in OATFLOW_OWNER. If that process ran on this host and is gone, its
claim can be taken over at once. A pod has no such process, and its claim expires.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

OWNER = "OATFLOW_OWNER"


@dataclass(frozen=True, slots=True)
class Owner:
    """A host, and the process on it that runs all steps, if there is one.

    `world` names the kernel's boot and the process namespace, as process numbers are unique only within both.
    `started` is the process's start in clock ticks since boot.
    """

    host: str
    world: str = ""
    pid: int = 0
    started: float = 0.0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else self.host

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to be gone. False where that cannot be known."""
        if not self.pid or (self.host, self.world) != (socket.gethostname(), _read_world()):
            return False
        return read_start_ticks(self.pid) != self.started


def this_process() -> Owner:
    """Return this process as an owner, for `environment_of`."""
    return Owner(socket.gethostname(), _read_world(), os.getpid(), read_start_ticks(os.getpid()))


def environment_of(owner: Owner) -> dict[str, str]:
    """Return the environment variable that names the owner to the steps that it starts."""
    return {OWNER: json.dumps(asdict(owner))}


def current_owner() -> Owner:
    """Return the owner of this step: from the environment, or else this host."""
    given = os.environ.get(OWNER)
    return Owner(**json.loads(given)) if given else Owner(socket.gethostname())


def process_start() -> float:
    """Return when this process began, in seconds since the epoch; where the system does not say, now."""
    ticks = read_start_ticks(os.getpid())
    if not ticks:
        return time.time()
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def _read_world() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def read_start_ticks(pid: int) -> float:
    """Return the clock ticks from boot to the start of a process; 0 if there is none, or it is a zombie.

    Not psutil's `create_time`: that adds the time of the boot, which changes when the clock is set.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return 0.0 if fields[0] in "ZX" else float(fields[19])
