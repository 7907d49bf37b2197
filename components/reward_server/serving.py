"""One command that starts both, the gateway and the model behind it, and ends both."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from aiohttp import web

from ..errors import OracleError, RefusedInput, SettingsError
from ..oracles.bearer import TOKEN, bearer_secret
from ..oracles.scorer import ScorerOracle
from ..oracles.settings import ScorerSettings
from .batcher import Batcher, start
from .gateway import Gateway
from .settings import ServerSettings

Say = Callable[[str], None]


def read_token(wanted: bool) -> str | None:
    """Return the token that clients must have, from the environment; None where none is wanted."""
    if not wanted:
        return None
    token = bearer_secret(TOKEN)
    if not token:
        raise SettingsError(
            f"{TOKEN}: not set; set it to a long random word, which clients then need, too. With --no_token everybody "
            "may ask who reaches the port"
        )
    return token


def serve(scorer: ScorerSettings, settings: ServerSettings, token: str | None, say: Say) -> None:
    """Serve until a signal to stop comes, then end politely: what is under way is still answered.

    Raises `RefusedInput` where the model or the port cannot be had, and `OracleError` where the model's process ends.
    """
    # All that can be said of the model before it is loaded.
    ScorerOracle(scorer).check()
    asyncio.run(_serve(scorer, settings, token, say))


async def _serve(scorer: ScorerSettings, settings: ServerSettings, token: str | None, say: Say) -> None:
    stopped = _signalled()
    async with start(scorer, settings) as batcher:
        gateway = Gateway(batcher, settings, scorer.scorer_temperature, token)
        runner = gateway.runner()
        try:
            address = await _listen(runner, settings)
            await _until_stopped(stopped, batcher, lambda: say(_readiness(gateway, address)))
        finally:
            await runner.cleanup()


def _signalled() -> asyncio.Event:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


async def _listen(runner: web.AppRunner, settings: ServerSettings) -> str:
    """Open the port before the model is loaded: a long start is alive, and not ready."""
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
    except OSError as error:
        raise RefusedInput(f"port={settings.port}: cannot listen on {settings.host} ({error.strerror})") from None
    host, port = runner.addresses[0][:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _until_stopped(stopped: asyncio.Event, batcher: Batcher, when_ready: Callable[[], None]) -> None:
    """Return when told to stop. Raises `OracleError` if the model's process ends before."""
    stop, end = asyncio.create_task(stopped.wait()), asyncio.create_task(batcher.process.wait())
    ready = asyncio.create_task(batcher.become_ready())
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


def _readiness(gateway: Gateway, address: str) -> str:
    settings = gateway.settings
    return (
        f"{gateway.identity()} answers at {address}: up to {settings.max_batch} requests in a batch, for which they "
        f"wait {settings.max_wait} ms; up to {settings.max_duels} duels and {settings.max_body} bytes in a request; "
        f"{'a token is needed' if gateway.token else 'no token is needed'}"
    )
