"""Starts the gateway and the model behind it, and stops both."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from aiohttp import web

from ..errors import OracleError, RefusedInput, SettingsError
from ..oracles.bearer import TOKEN, read_bearer_secret
from ..oracles.scorer import ScorerOracle
from ..oracles.settings import ScorerSettings
from .gateway import Gateway
from .mosec_process import MosecProcess, start_mosec
from .settings import ServerSettings

Say = Callable[[str], None]


def read_token(wanted: bool) -> str | None:
    """Return the token that clients must send, from the environment; None if none is wanted."""
    if not wanted:
        return None
    token = read_bearer_secret(TOKEN)
    if not token:
        raise SettingsError(
            f"{TOKEN}: not set; set it to a long random word, which clients then need, too. With --no_token everybody "
            "may ask who reaches the port"
        )
    return token


def serve_model(scorer: ScorerSettings, settings: ServerSettings, token: str | None, say: Say) -> None:
    """Serve until a signal to stop, then answer the requests in progress and end.

    Raises `RefusedInput` if the model or the port is not available, and `OracleError` if the model's process ends.
    """
    # All that can be checked before the model is loaded.
    ScorerOracle(scorer).check_ready()
    asyncio.run(_serve(scorer, settings, token, say))


async def _serve(scorer: ScorerSettings, settings: ServerSettings, token: str | None, say: Say) -> None:
    stopped = _stop_on_signals()
    async with start_mosec(scorer, settings) as mosec:
        gateway = Gateway(mosec, settings, scorer.scorer_temperature, token)
        runner = gateway.make_runner()
        try:
            address = await _open_port(runner, settings)
            await _wait_until_stopped(stopped, mosec, lambda: say(_describe_readiness(gateway, address)))
        finally:
            await runner.cleanup()


def _stop_on_signals() -> asyncio.Event:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


async def _open_port(runner: web.AppRunner, settings: ServerSettings) -> str:
    """Open the port before the model is loaded: a server that loads for long is alive, but not ready."""
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
    except OSError as error:
        raise RefusedInput(f"port={settings.port}: cannot listen on {settings.host} ({error.strerror})") from None
    host, port = runner.addresses[0][:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _wait_until_stopped(stopped: asyncio.Event, mosec: MosecProcess, when_ready: Callable[[], None]) -> None:
    """Wait for the signal to stop. Raises `OracleError` if the model's process ends before it."""
    stop, end = asyncio.create_task(stopped.wait()), asyncio.create_task(mosec.process.wait())
    ready = asyncio.create_task(mosec.become_ready())
    try:
        await asyncio.wait({stop, end, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done() and not end.done():
            ready.result()
            when_ready()
            await asyncio.wait({stop, end}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            raise OracleError("the model's process ended; the lines above say why")
    finally:
        for task in (stop, end, ready):
            task.cancel()


def _describe_readiness(gateway: Gateway, address: str) -> str:
    settings = gateway.settings
    return (
        f"{gateway.require_identity()} answers at {address}: up to {settings.max_batch} requests in a batch, for which "
        f"they wait {settings.max_wait} ms; up to {settings.max_duels} duels and {settings.max_body} bytes in a "
        "request; "
        f"{'a token is needed' if gateway.token else 'no token is needed'}"
    )
