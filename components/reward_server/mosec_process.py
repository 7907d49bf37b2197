"""The Mosec process: start it, send it conversations, stop it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from ..errors import OracleError
from ..oracles.settings import ScorerSettings
from .envelope import LARGEST_GROWTH, ROUTE, Conversation, Scores, Served, pack_conversations, unpack_scores
from .settings import ServerSettings

_LOOPBACK = "127.0.0.1"
_POLL = 0.25
_GRACE = 5.0
# Variables that the model's process does not need.
_NOT_HANDED_ON = ("MOSEC_", "OATFLOW_ORACLE_")


class Overloaded(OracleError):
    """The model accepts no request now: its queue is full, or it is starting or stopping."""


class TooSlow(OracleError):
    """The model took longer than a request may take."""


@dataclass
class MosecProcess:
    """The running process. `identity` is the name of its model, None until that is loaded."""

    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    address: str
    key: str
    identity: str | None = None

    async def score_conversations(self, conversations: Sequence[Conversation]) -> list[float]:
        """Return the score of each conversation; Mosec scores those of concurrent requests in one batch."""
        return (await self._post_conversations(conversations)).scores

    async def become_ready(self) -> str:
        """Wait until the model answers, and return its name. Never returns if the process exits first."""
        while self.identity is None:
            try:
                self.identity = (await self._post_conversations([])).identity
            except OracleError:
                await asyncio.sleep(_POLL)
        return self.identity

    async def is_ready(self) -> bool:
        """Whether requests are accepted. This asks outside of the queue, so a busy server is ready, too."""
        return self.identity is not None and await self._get_text("/") is not None

    async def read_metrics(self) -> str:
        """Return Mosec's own metrics, or an empty text while it does not answer."""
        return await self._get_text("/metrics") or ""

    async def _post_conversations(self, conversations: Sequence[Conversation]) -> Scores:
        try:
            body = pack_conversations(conversations, self.key)
            async with self.session.post(self.address + ROUTE, data=body) as answer:
                said = await answer.read()
        except aiohttp.ClientError as error:
            raise Overloaded(f"the model does not answer ({type(error).__name__})") from error
        except TimeoutError:
            raise TooSlow("the model did not answer in time") from None
        if answer.status == 200:
            return unpack_scores(said)
        raise _error_for_status(answer.status)

    async def _get_text(self, path: str) -> str | None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self.session.get(self.address + path) as answer:
                return await answer.text() if answer.status == 200 else None
        return None


def _error_for_status(status: int) -> OracleError:
    if status == 408:
        return TooSlow("the model did not answer in time")
    if status in (429, 503):
        return Overloaded("the model has too much to do, or is about to end")
    return OracleError("the model failed; the log of the server says how")


@contextlib.asynccontextmanager
async def start_mosec(scorer: ScorerSettings, settings: ServerSettings) -> AsyncIterator[MosecProcess]:
    """Start Mosec; on leaving, terminate it, then kill it with all of its child processes."""
    with tempfile.TemporaryDirectory(prefix="oatflow-", ignore_cleanup_errors=True) as folder:
        port, key = _free_port(), secrets.token_hex(16)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"{__package__}.score_worker",
            env=_mosec_environment(scorer, settings, port, key, Path(folder)),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            timeout = aiohttp.ClientTimeout(total=settings.timeout + _GRACE)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
                yield MosecProcess(process, session, f"http://{_LOOPBACK}:{port}", key)
        finally:
            await _stop_process(process, settings.timeout + _GRACE)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _mosec_environment(
    scorer: ScorerSettings, settings: ServerSettings, port: int, key: str, folder: Path
) -> Mapping[str, str]:
    served = Served(
        scorer=scorer,
        max_batch=settings.max_batch,
        max_wait=settings.max_wait,
        timeout=settings.timeout,
        key=key,
        parent=os.getpid(),
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_HANDED_ON)}
    return {
        **kept,
        **served.to_environment(),
        "MOSEC_ADDRESS": _LOOPBACK,
        "MOSEC_PORT": str(port),
        "MOSEC_PATH": str(folder / "mosec"),
        "MOSEC_TIMEOUT": str(round(settings.timeout * 1000)),
        # Requests of clients that have disconnected stay in its queue.
        "MOSEC_CAPACITY": str(2 * settings.max_waiting),
        "MOSEC_MAX_REQUEST_SIZE": str(LARGEST_GROWTH * settings.max_body + 65536),
        "MOSEC_LOG_LEVEL": "warning",
    }


async def _stop_process(process: asyncio.subprocess.Process, patience: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), patience)
    # What it has started would outlive it if it was killed.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
