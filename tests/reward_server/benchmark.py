"""How much more a second the server answers when many ask at once, and whether its memory stays as it is.

Run by ``python -m tests.reward_server.benchmark MODEL``: a reward model, or any other of transformers,
which gets a head at random. The server is the command itself, with its own processes; clients are in this one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
from oatflow.components.oracles import wire
from oatflow.components.records.records import Duel

# Nothing but the texts, so that they are as short as they look.
_TEMPLATE = "{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}\n{% endfor %}"
_WORDS = "the a cook soup was is warm cold good bad we they like ate bread and but never again today very one".split()
_WARM_UP = 3.0
_LOOK = 5.0


@dataclass
class Load:
    """What clients saw: the seconds of each answer; and what it took."""

    concurrency: int
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    batch: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def __str__(self) -> str:
        ordered = sorted(self.latencies)
        p50, p95 = (1000 * ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.95))
        return f"{self.concurrency:>11}{self.rate:>12.1f}{p50:>12.0f}{p95:>12.0f}{self.batch:>18.1f}"


def main() -> None:
    """Measure and print."""
    given = _parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        model = ensure_head(given.model, Path(folder) / given.model.name)
        flags = ["--scorer_dtype", given.dtype, "--max_wait", str(given.max_wait)]
        with run_server(model, flags) as (url, process):
            print(f"{given.model.name}, {given.dtype}, {os.cpu_count()} cores; {given.words} words in each text")
            _compare_loads(url, given.concurrency, given.seconds, given.words)
            if given.minutes:
                soak_server(url, process, given.concurrency[-1], given.minutes * 60, given.words)


def _compare_loads(url: str, concurrency: Sequence[int], seconds: float, words: int) -> None:
    print("concurrency  requests/s      p50 ms      p95 ms  requests a batch", flush=True)
    rates = []
    for clients in concurrency:
        done = asyncio.run(measure_load(url, clients, seconds, words))
        rates.append(done.rate)
        print(done, flush=True)
    print(f"{concurrency[-1]} / {concurrency[0]}: {rates[-1] / rates[0]:.2f} times", flush=True)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A load test of the reward model's server.")
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16], help="clients at once (default: 1 16)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each is measured (default: 30)")
    parser.add_argument("--words", type=int, default=4, help="words in a prompt, and in a response (default: 4)")
    parser.add_argument("--dtype", default="float32", help="number format of the weights (default: float32)")
    parser.add_argument("--max_wait", type=int, default=10, help="as the server's (default: 10)")
    parser.add_argument("--minutes", type=float, default=0.0, help="then watch its memory for so long (default: 0)")
    return parser.parse_args()


def ensure_head(model: Path, folder: Path) -> Path:
    """Return the folder of a reward model: the one given, or a copy of it with a head at random."""
    config = json.loads((model / "config.json").read_text())
    if config["architectures"][0].endswith("ForSequenceClassification"):
        return model
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32)
    network.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def run_server(model: Path, flags: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Run the server; yields its address and its process number."""
    command = [sys.executable, "-m", "oatflow.pipelines.cli", "serve-reward-model", "--scorer_model", str(model)]
    fixed = ["--host", "127.0.0.1", "--port", "0", "--timeout", "120", "--no_token"]
    process = subprocess.Popen([*command, *fixed, *flags], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if " answers at " not in line:
            raise SystemExit(f"the server did not start: {line}")
        yield line.partition(" answers at ")[2].partition(": up to ")[0], process.pid
    finally:
        process.terminate()
        process.wait()


async def measure_load(url: str, concurrency: int, seconds: float, words: int) -> Load:
    """Ask for so long with so many clients, each of which asks again as soon as it is answered."""
    done = Load(concurrency)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
        warm = Load(concurrency)
        await _ask_all(session, url, warm, _WARM_UP, words)
        before = await _count_batches(session, url)
        await _ask_all(session, url, done, seconds, words)
        after = await _count_batches(session, url)
    done.batch = (after[0] - before[0]) / max(1.0, after[1] - before[1])
    return done


async def _ask_all(session: aiohttp.ClientSession, url: str, done: Load, seconds: float, words: int) -> None:
    async def client() -> None:
        while time.monotonic() < began + seconds:
            asked = time.monotonic()
            async with session.post(url + wire.COMPARE, data=_make_request(words)) as answer:
                answer.raise_for_status()
                await answer.read()
            done.latencies.append(time.monotonic() - asked)

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(done.concurrency)))
    done.seconds = time.monotonic() - began


def _random_text(words: int) -> str:
    return " ".join(random.choices(_WORDS, k=words))


def _make_request(words: int) -> bytes:
    return wire.write_json_request(
        [Duel("d", "p", _random_text(words), _random_text(words), _random_text(words), 0, 1, False)]
    )


async def _count_batches(session: aiohttp.ClientSession, url: str) -> tuple[float, float]:
    """Return how many requests were in how many batches so far."""
    async with session.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    totals = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    return totals["mosec_service_batch_size_sum"], totals["mosec_service_batch_size_count"]


def soak_server(url: str, process: int, concurrency: int, seconds: float, words: int) -> None:
    """Ask for a long time, and print what the memory of the server's processes did.

    What a pass takes comes and goes, so that the least of each minute tells whether something stays.
    """
    samples = asyncio.run(_sample_memory(url, process, concurrency, seconds, words))
    minutes: dict[int, float] = {}
    for at, size in samples:
        minutes[int(at // 60)] = min(size, minutes.get(int(at // 60), size))
    # The first minute is still warming up; the last may be a short one.
    settled = list(minutes.values())[1:-1]
    slope = statistics.linear_regression(range(len(settled)), settled).slope
    print(f"MiB, least of each minute: {' '.join(f'{size:.0f}' for size in settled)}: {slope:+.2f} a minute")


async def _sample_memory(
    url: str, process: int, concurrency: int, seconds: float, words: int
) -> list[tuple[float, float]]:
    asking = asyncio.create_task(measure_load(url, concurrency, seconds, words))
    began, samples = time.monotonic(), []
    while not asking.done():
        samples.append((time.monotonic() - began, measure_memory(process)))
        await asyncio.wait({asking}, timeout=_LOOK)
    print((await asking), flush=True)
    return samples


def measure_memory(process: int) -> float:
    """Return the memory of a process and its descendants in MiB, each page counted once (PSS)."""
    server = psutil.Process(process)
    processes = [server, *server.children(recursive=True)]
    return float(sum(each.memory_full_info().pss for each in processes)) / 2**20


if __name__ == "__main__":
    main()
