"""An engine that outlives the steps: loaded once, it serves one step after the other over a Unix socket.

The socket lies in a private folder; whoever speaks must know a key as well. Messages are lines of JSON. The process
ends with its parent, whatever happens to that.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from ..errors import EngineError, OatflowError
from .engine import Answered, Decoding, Draw, Engine, ModelFolder, OnProgress, Request, ScriptedEngine, path_of, quietly
from .settings import SamplingSettings

WARM_ENGINE = "OATFLOW_WARM_ENGINE"
READY_SECONDS = 180.0
SILENCE_SECONDS = 600.0
# What makes an engine another one: with any of these changed, answers differ.
IDENTITY = ("engine", "dtype", "max_model_len", "tensor_parallel_size")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a warm engine is, the key to it, and where its log is."""

    socket: str
    key: str
    log: str

    def environment(self) -> dict[str, str]:
        """Return what tells a step of this engine."""
        return {WARM_ENGINE: json.dumps(asdict(self))}

    def last_words(self) -> str:
        """Return the end of the log in one line."""
        log = Path(self.log)
        lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
        return " / ".join([line.strip() for line in lines if line.strip()][-3:]) or "nothing"


def connect(settings: SamplingSettings, patience: float = READY_SECONDS) -> WarmEngine | None:
    """Return the warm engine that the environment names, as soon as it has loaded, or None.

    None, with a printed reason, also where it died or serves other settings. Raises `EngineError` if it lives but is
    not ready in time.
    """
    told = os.environ.get(WARM_ENGINE)
    if told is None:
        return None
    address = Address(**json.loads(told))
    try:
        line = _Line.call(address, patience)
        greeting = line.ask({"key": address.key})
    except TimeoutError:
        raise EngineError(
            f"the warm engine was not ready after {patience:.0f} s; its log ({address.log}) ends: "
            f"{address.last_words()}"
        ) from None
    except (ConnectionError, FileNotFoundError):
        print(f"sampling: the warm engine is gone ({address.last_words()}); starting one", flush=True)
        return None
    served = SamplingSettings.parse(greeting)
    if any(getattr(served, name) != getattr(settings, name) for name in IDENTITY):
        print("sampling: the warm engine serves other settings; starting one for these", flush=True)
        line.close()
        return None
    line.wait_at_most(SILENCE_SECONDS)
    return WarmEngine(line, address)


class WarmEngine:
    """The engine of another process. Whoever opened it has it alone until it is closed."""

    def __init__(self, line: _Line, address: Address):
        self._line, self._address = line, address

    def load_policy(self, folder: ModelFolder, digest: str) -> None:
        """Generate with these weights from now on."""
        if self.loaded() != digest:
            self._ask({"call": "load_policy", "folder": str(path_of(folder)), "digest": digest})

    def loaded(self) -> str | None:
        """Return the digest of the loaded policy."""
        digest: str | None = self._ask({"call": "loaded"})
        return digest

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, on_progress: OnProgress = quietly
    ) -> list[list[Draw]]:
        """Return for each request one draw a seed."""
        asked = {"call": "generate", "requests": [astuple(r) for r in requests], "decoding": asdict(decoding)}
        drawn = self._ask(asked, on_progress)
        return [[Draw(tuple(tokens), text, reason) for tokens, text, reason in group] for group in drawn]

    def logprobs(self, answers: Sequence[Answered], on_progress: OnProgress = quietly) -> list[float]:
        """Return the log-probability of each answer."""
        logprobs: list[float] = self._ask({"call": "logprobs", "answers": answers}, on_progress)
        return logprobs

    def close(self) -> None:
        """Leave the engine to the next step."""
        self._line.close()

    def _ask(self, message: dict[str, Any], on_progress: OnProgress = quietly) -> Any:
        try:
            return self._line.ask(message, on_progress)
        except OSError as error:
            raise EngineError(
                f"the warm engine does not answer any more ({error or type(error).__name__}); its log "
                f"({self._address.log}) ends: {self._address.last_words()}"
            ) from error


@dataclass(frozen=True)
class WarmEngineProcess:
    """A warm engine as seen by who started it."""

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
    """Start an engine in the background, its log in `directory`. It loads while others work; `connect` waits for it."""
    directory.mkdir(parents=True, exist_ok=True)
    # Not in `directory`: the path of a Unix socket may have 107 characters only.
    private = tempfile.mkdtemp(prefix="oatflow-")
    address = Address(f"{private}/engine", secrets.token_hex(16), str(directory / "warm-engine.log"))
    command = [sys.executable, "-m", __name__, "--settings", settings.model_dump_json(), "--pretrain", str(folder)]
    command += ["--digest", digest, "--parent", str(os.getpid())]
    command += ["--trust_remote_code"] * trust_remote_code
    with open(address.log, "wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **address.environment()}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    started = WarmEngineProcess(process, address)
    deadline = time.monotonic() + READY_SECONDS
    while not Path(address.socket).exists():
        if process.poll() is not None or time.monotonic() > deadline:
            started.stop()
            raise EngineError(f"the warm engine did not start; its log ({address.log}) ends: {address.last_words()}")
        time.sleep(0.02)
    return started


class _Line:
    """Lines of JSON over a socket; hanging up is a ConnectionError, silence a TimeoutError."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._heard = connection.makefile("r", encoding="utf-8", newline="\n")

    @classmethod
    def call(cls, address: Address, patience: float) -> _Line:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(patience)
        connection.connect(address.socket)
        return cls(connection)

    def wait_at_most(self, seconds: float) -> None:
        self._connection.settimeout(seconds)

    def say(self, message: Any) -> None:
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def hear(self) -> Any:
        line = self._heard.readline()
        if not line.endswith("\n"):
            raise ConnectionError("it hung up")
        return json.loads(line)

    def ask(self, message: Any, on_progress: OnProgress = quietly) -> Any:
        self.say(message)
        while "progress" in (answer := self.hear()):
            on_progress(*answer["progress"])
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        self._heard.close()
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
    listener = _listen(address.socket)
    threading.Thread(target=_end_with, args=(given.parent, address), daemon=True).start()
    settings = SamplingSettings.parse(json.loads(given.settings))
    engine = _load(settings, given.pretrain, given.digest, given.trust_remote_code)
    while True:
        connection, _ = listener.accept()
        _converse(_Line(connection), address.key, settings, engine)


def _listen(path: str) -> socket.socket:
    """Let callers queue from now on; they hear the greeting when the engine has loaded."""
    listener = socket.socket(socket.AF_UNIX)
    former = os.umask(0o177)
    listener.bind(path)
    os.umask(former)
    listener.listen()
    return listener


def _load(settings: SamplingSettings, folder: Path, digest: str, trust_remote_code: bool) -> Engine:
    if settings.engine == "scripted":
        return ScriptedEngine(digest)
    from .vllm_engine import VllmEngine

    return VllmEngine(settings, folder, digest, trust_remote_code)


def _end_with(parent: int, address: Address) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    shutil.rmtree(Path(address.socket).parent, ignore_errors=True)
    os._exit(0)


def _converse(line: _Line, key: str, settings: SamplingSettings, engine: Engine) -> None:
    """Serve one caller until it hangs up, which it may do at any time."""
    try:
        if not hmac.compare_digest(str(line.hear().get("key")), key):
            return
        line.say({"result": settings.model_dump(mode="json")})
        while True:
            _serve(line, line.hear(), engine)
    except ConnectionError:
        pass
    finally:
        line.close()


def _serve(line: _Line, message: dict[str, Any], engine: Engine) -> None:
    try:
        result = _do(line, message, engine)
    except ConnectionError:
        raise
    except Exception as error:
        traceback.print_exc()
        line.say({"error": str(error) if isinstance(error, OatflowError) else f"{type(error).__name__}: {error}"})
        if not isinstance(error, OatflowError):
            # An engine in an unknown state must not serve on.
            raise
    else:
        line.say({"result": result})


def _do(line: _Line, message: dict[str, Any], engine: Engine) -> Any:
    if message["call"] == "load_policy":
        return engine.load_policy(Path(message["folder"]), message["digest"])
    if message["call"] == "loaded":
        return engine.loaded()

    def tell(*facts: int) -> None:
        line.say({"progress": facts})

    if message["call"] == "logprobs":
        return engine.logprobs([(tuple(prompt), tuple(tokens)) for prompt, tokens in message["answers"]], tell)
    requests = [Request(tuple(tokens), tuple(seeds)) for tokens, seeds in message["requests"]]
    drawn = engine.generate(requests, Decoding(**message["decoding"]), tell)
    return [[astuple(draw) for draw in group] for group in drawn]


if __name__ == "__main__":
    _main()
