"""An engine that outlives the steps: loaded once, it serves one step after the other over a Unix socket.

The socket lies in a private folder, and a caller must prove that it has the key. Messages are JSON, never pickles. The
process ends when its parent does.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

from ..errors import EngineError, OatflowError
from .engine import (
    Answered,
    Decoding,
    Draw,
    Engine,
    ModelFolder,
    OnProgress,
    Request,
    ScriptedEngine,
    ignore_progress,
    path_of,
)
from .settings import SamplingSettings

WARM_ENGINE = "OATFLOW_WARM_ENGINE"
READY_SECONDS = 180.0
SILENCE_SECONDS = 600.0
# With any of these settings changed, answers differ.
IDENTITY = ("engine", "dtype", "max_model_len", "tensor_parallel_size")


@dataclass(frozen=True, slots=True)
class Address:
    """A warm engine's socket, its key, and its log."""

    socket: str
    key: str
    log: str

    def environment(self) -> dict[str, str]:
        """Return the variable that names this engine to a step."""
        return {WARM_ENGINE: json.dumps(asdict(self))}

    def read_log_end(self) -> str:
        """Return the end of the log in one line."""
        log = Path(self.log)
        lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
        return " / ".join([line.strip() for line in lines if line.strip()][-3:]) or "nothing"


def connect_engine(settings: SamplingSettings, patience: float = READY_SECONDS) -> WarmEngine | None:
    """Return the warm engine that the environment names, as soon as it has loaded, or None.

    Prints why and returns None if it died or serves other settings. Raises `EngineError` if it is alive but not ready
    in time.
    """
    given = os.environ.get(WARM_ENGINE)
    if given is None:
        return None
    address = Address(**json.loads(given))
    try:
        channel = _Channel.call(address, patience)
        served = SamplingSettings.parse(channel.receive_message())
    except TimeoutError:
        raise EngineError(
            f"the warm engine was not ready after {patience:.0f} s; its log ({address.log}) ends: "
            f"{address.read_log_end()}"
        ) from None
    except (ConnectionError, FileNotFoundError, EOFError):
        print(f"sampling: the warm engine is gone ({address.read_log_end()}); starting one", flush=True)
        return None
    if any(getattr(served, name) != getattr(settings, name) for name in IDENTITY):
        print("sampling: the warm engine serves other settings; starting one for these", flush=True)
        channel.close()
        return None
    channel.patience = SILENCE_SECONDS
    return WarmEngine(channel, address)


class WarmEngine:
    """The engine of another process, which serves this caller alone until it is closed."""

    def __init__(self, channel: _Channel, address: Address):
        self._channel, self._address = channel, address

    def load_policy(self, folder: ModelFolder, digest: str) -> None:
        """Generate with these weights from now on."""
        if self.loaded() != digest:
            self._request({"call": "load_policy", "folder": str(path_of(folder)), "digest": digest})

    def loaded(self) -> str | None:
        """Return the digest of the loaded policy."""
        digest: str | None = self._request({"call": "loaded"})
        return digest

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, on_progress: OnProgress = ignore_progress
    ) -> list[list[Draw]]:
        """Return for each request one draw a seed."""
        asked = {"call": "generate", "requests": [astuple(r) for r in requests], "decoding": asdict(decoding)}
        drawn = self._request(asked, on_progress)
        return [[Draw(tuple(tokens), text, reason) for tokens, text, reason in group] for group in drawn]

    def logprobs(self, answers: Sequence[Answered], on_progress: OnProgress = ignore_progress) -> list[float]:
        """Return the log-probability of each answer."""
        logprobs: list[float] = self._request({"call": "logprobs", "answers": answers}, on_progress)
        return logprobs

    def close(self) -> None:
        """Leave the engine to the next step."""
        self._channel.close()

    def _request(self, message: dict[str, Any], on_progress: OnProgress = ignore_progress) -> Any:
        try:
            return self._channel.request_result(message, on_progress)
        except OSError as error:
            raise EngineError(
                f"the warm engine does not answer any more ({error or type(error).__name__}); its log "
                f"({self._address.log}) ends: {self._address.read_log_end()}"
            ) from error


@dataclass(frozen=True)
class WarmEngineProcess:
    """A warm engine, for the process that started it."""

    process: subprocess.Popen[bytes]
    address: Address

    def environment(self) -> dict[str, str]:
        """Return the variables that make steps use this engine."""
        return self.address.environment()

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(Path(self.address.socket).parent, ignore_errors=True)


def start_warm_engine(
    settings: SamplingSettings, folder: Path, digest: str, directory: Path, trust_remote_code: bool = False
) -> WarmEngineProcess:
    """Start an engine in the background, with its log in `directory`; `connect` waits until it has loaded."""
    directory.mkdir(parents=True, exist_ok=True)
    # Not in `directory`, as the path of a Unix socket has at most 107 characters.
    private = tempfile.mkdtemp(prefix="oatflow-")
    address = Address(f"{private}/engine", secrets.token_hex(16), str(directory / "warm-engine.log"))
    command = [sys.executable, "-m", __name__, "--settings", settings.model_dump_json(), "--pretrain", str(folder)]
    command += ["--digest", digest, "--parent", str(os.getpid())]
    command += ["--trust_remote_code"] * trust_remote_code
    with open(address.log, "wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **address.environment()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    started = WarmEngineProcess(process, address)
    deadline = time.monotonic() + READY_SECONDS
    while not Path(address.socket).exists():
        if process.poll() is not None or time.monotonic() > deadline:
            started.stop()
            raise EngineError(f"the warm engine did not start; its log ({address.log}) ends: {address.read_log_end()}")
        time.sleep(0.02)
    return started


class _Channel:
    """JSON messages over a connection. Hanging up is a ConnectionError, silence a TimeoutError."""

    def __init__(self, connection: Connection[bytes, bytes], patience: float | None = None):
        self._connection, self.patience = connection, patience

    @classmethod
    def call(cls, address: Address, patience: float) -> _Channel:
        """Connect, and prove the key as soon as the engine accepts: `Client` would wait for that without a limit."""
        channel = cls(Client(address.socket), patience)
        channel.await_message()
        answer_challenge(channel._connection, address.key.encode())
        deliver_challenge(channel._connection, address.key.encode())
        return channel

    def await_message(self) -> None:
        if not self._connection.poll(self.patience):
            raise TimeoutError(f"no message in {self.patience:.0f} s")

    def send_message(self, message: Any) -> None:
        self._connection.send_bytes(json.dumps(message).encode())

    def receive_message(self) -> Any:
        self.await_message()
        try:
            return json.loads(self._connection.recv_bytes())
        except EOFError:
            raise ConnectionError("it hung up") from None

    def request_result(self, message: Any, on_progress: OnProgress = ignore_progress) -> Any:
        self.send_message(message)
        while "progress" in (answer := self.receive_message()):
            on_progress(*answer["progress"])
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        self._connection.close()


def _main() -> None:
    parser = argparse.ArgumentParser(description="Serve an engine; started by `start_warm_engine` alone.")
    parser.add_argument("--settings", required=True, help="sampling settings as JSON")
    parser.add_argument("--pretrain", required=True, type=Path, help="model folder to begin with")
    parser.add_argument("--digest", required=True, help="digest of that model")
    parser.add_argument("--parent", required=True, type=int, help="process to end with")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that the model brings along")
    given = parser.parse_args()
    address = Address(**json.loads(os.environ[WARM_ENGINE]))
    listener = _open_listener(address)
    threading.Thread(target=_exit_with_parent, args=(given.parent, address), daemon=True).start()
    settings = SamplingSettings.parse(json.loads(given.settings))
    engine = _load_engine(settings, given.pretrain, given.digest, given.trust_remote_code)
    while True:
        try:
            connection = listener.accept()
        except (AuthenticationError, EOFError, OSError):
            continue  # It did not prove that it has the key.
        _serve_caller(_Channel(connection), settings, engine)


def _open_listener(address: Address) -> Listener:
    """Let callers queue from now on; the engine accepts the first of them when it has loaded."""
    former = os.umask(0o177)
    listener = Listener(address.socket, backlog=16, authkey=address.key.encode())
    os.umask(former)
    return listener


def _load_engine(settings: SamplingSettings, folder: Path, digest: str, trust_remote_code: bool) -> Engine:
    if settings.engine == "scripted":
        return ScriptedEngine(digest)
    from .vllm_engine import VllmEngine

    return VllmEngine(settings, folder, digest, trust_remote_code)


def _exit_with_parent(parent: int, address: Address) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    shutil.rmtree(Path(address.socket).parent, ignore_errors=True)
    os._exit(0)


def _serve_caller(channel: _Channel, settings: SamplingSettings, engine: Engine) -> None:
    """Serve one caller until it hangs up, which it may do at any time."""
    try:
        channel.send_message(settings.model_dump(mode="json"))
        while True:
            _answer_message(channel, channel.receive_message(), engine)
    except ConnectionError:
        pass
    finally:
        channel.close()


def _answer_message(channel: _Channel, message: dict[str, Any], engine: Engine) -> None:
    try:
        result = _call_engine(channel, message, engine)
    except ConnectionError:
        raise
    except Exception as error:
        traceback.print_exc()
        is_ours = isinstance(error, OatflowError)
        channel.send_message({"error": str(error) if is_ours else f"{type(error).__name__}: {error}"})
        if not is_ours:
            # An engine in an unknown state must not go on serving.
            raise
    else:
        channel.send_message({"result": result})


def _call_engine(channel: _Channel, message: dict[str, Any], engine: Engine) -> Any:
    if message["call"] == "load_policy":
        return engine.load_policy(Path(message["folder"]), message["digest"])
    if message["call"] == "loaded":
        return engine.loaded()

    def send_progress(*facts: int) -> None:
        channel.send_message({"progress": facts})

    if message["call"] == "logprobs":
        return engine.logprobs([(tuple(prompt), tuple(tokens)) for prompt, tokens in message["answers"]], send_progress)
    requests = [Request(tuple(tokens), tuple(seeds)) for tokens, seeds in message["requests"]]
    drawn = engine.generate(requests, Decoding(**message["decoding"]), send_progress)
    return [[astuple(draw) for draw in group] for group in drawn]


if __name__ == "__main__":
    _main()
