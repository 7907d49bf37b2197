"""Who holds a claim: a process that can be seen to be dead, or just a name.

`oatflow align` tells its steps who stands behind them through OATFLOW_OWNER. Where that process ran on this very
host and is gone, its claim can be taken over at once; a pod has no such process, and its claim runs out.
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
    """A host, and on it a process where one stands behind the whole run.

    `world` names kernel boot and process namespace: only within one world do process numbers mean the same.
    """

    host: str
    world: str = ""
    pid: int = 0
    started: float = 0.0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else self.host

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to be gone. What cannot be known is not dead."""
        if not self.pid or (self.host, self.world) != (socket.gethostname(), _world()):
            return False
        return _start_ticks(self.pid) != self.started


def this_process() -> Owner:
    """Return this process as an owner, for `environment_of`."""
    return Owner(socket.gethostname(), _world(), os.getpid(), _start_ticks(os.getpid()))


def environment_of(owner: Owner) -> dict[str, str]:
    """Return the environment variable that makes an owner known to the steps it starts."""
    return {OWNER: json.dumps(asdict(owner))}


def current_owner() -> Owner:
    """Return the owner that stands behind this step."""
    told = os.environ.get(OWNER)
    return Owner(**json.loads(told)) if told else Owner(socket.gethostname())


def process_start() -> float:
    """When this process began, in seconds since the epoch; where the system does not tell, now."""
    ticks = _start_ticks(os.getpid())
    if not ticks:
        return time.time()
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def _world() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start_ticks(pid: int) -> float:
    """Clock ticks from boot to the start of a process; 0 if there is none (or it is a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return 0.0 if fields[0] in "ZX" else float(fields[19])
