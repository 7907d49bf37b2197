"""One training step of ours beside a plain transformers loop: tokens a second, and peak memory.

Run by ``make speed``, or ``python -m oatflow.components.policy.benchmark MODEL``. Both take the same optimisation steps
on the same pairs in one process: the same model, loss, AdamW and number format. The plain loop does what most do: a row
for each completion with the prompt before it, logits of all positions, and their log-softmax in float32.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..number_format import number_format
from ..records.records import ReferenceScore
from .checkpoint import load_model
from .learner import Learner, init_workers
from .optimising import Optimiser
from .reference import index_scores
from .scoring import fits_one_row
from .settings import PolicySettings
from .stopwatch import Stopwatch
from .tokens import Pair

RATE = 1e-6
_M_MMAP_THRESHOLD = -3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A training step beside a plain transformers loop.")
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("--pairs", type=int, default=8, help="pairs in a step (default: 8)")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of a prompt (default: 256)")
    parser.add_argument("--answer", type=int, default=64, help="longest answer in tokens (default: 64)")
    parser.add_argument("--steps", type=int, default=3, help="steps that count, after one that does not (default: 3)")
    given = parser.parse_args()
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": "29511"}.items():  # fmt: skip
        os.environ.setdefault(name, value)
    init_workers()
    torch.manual_seed(0)
    settings = PolicySettings(train_batch_size_per_device=given.pairs, zero_stage=0)
    model = load_model(given.model, settings)
    pairs = draw_pairs(given.pairs, given.prompt, given.answer, model.config.vocab_size)
    precision = number_format("auto", gpu=torch.cuda.is_available())
    tokens = sum(2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs)
    print(f"{given.pairs} pairs, {tokens} tokens, vocabulary of {model.config.vocab_size}, {precision}")
    ours = measure_steps(lambda: build_our_step(copy.deepcopy(model), pairs, settings, precision), given.steps)
    plain = measure_steps(lambda: build_plain_step(copy.deepcopy(model), pairs, settings.beta, precision), given.steps)
    for name, (seconds, peak) in {"ours": ours, "plain": plain}.items():
        print(f"{name:<8}{tokens / seconds:>8.0f} tokens/s{peak / 2**20:>8.0f} MiB at the peak")
    print(f"ours / plain: {plain[0] / ours[0]:.2f} times the tokens/s, {ours[1] / plain[1]:.0%} of the peak memory")


def draw_pairs(count: int, prompt: int, answer: int, vocabulary: int) -> list[Pair]:
    """Return pairs of random tokens: prompts of one length, answers of half of `answer` up to all of it."""
    source = random.Random(0)

    def draw_tokens(length: int) -> tuple[int, ...]:
        return tuple(source.randrange(vocabulary) for _ in range(length))

    lengths = [(source.randint(answer // 2, answer), source.randint(answer // 2, answer)) for _ in range(count)]
    return [
        Pair(str(number), draw_tokens(prompt), draw_tokens(chosen), draw_tokens(rejected))
        for number, (chosen, rejected) in enumerate(lengths)
    ]


def measure_steps(make: Callable[[], Callable[[], Any]], steps: int) -> tuple[float, float]:
    """Return a step's median seconds, and the most memory, in bytes, that the process took more than before it.

    On a GPU, the most that its tensors took there.
    """
    gc.collect()
    before = read_peak_memory(reset=True)
    step = make()
    step()
    seconds = []
    for _ in range(steps):
        begun = time.monotonic()
        step()
        seconds.append(time.monotonic() - begun)
    return statistics.median(seconds), read_peak_memory() - before


def read_peak_memory(reset: bool = False) -> float:
    """Return the most bytes taken since the last reset; with `reset`, those that are taken now."""
    if torch.cuda.is_available():
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.max_memory_allocated())
    if reset:
        # Tensors that are freed go back to the system, so that memory is what is in use, for both alike.
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return float(lines["VmHWM"].split()[0]) * 1024


def build_our_step(model: Any, pairs: Sequence[Pair], settings: PolicySettings, precision: str) -> Callable[[], Any]:
    """Return what takes one step as the training program does."""
    learner = Learner(model, settings, precision)
    zeros = [ReferenceScore(pair.pair_id, (0.0,) * len(pair.chosen), (0.0,) * len(pair.rejected)) for pair in pairs]
    one_row = fits_one_row(learner.model.module, pairs, 0)
    optimiser = Optimiser(learner, settings, index_scores(zeros), 0, one_row, Stopwatch())
    return lambda: optimiser.take_step(pairs, RATE)


def build_plain_step(model: Any, pairs: Sequence[Pair], beta: float, precision: str) -> Callable[[], Any]:
    """Return what takes one step the usual way."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    adam = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    rows = [(pair.prompt, completion) for side in ("chosen", "rejected") for pair in pairs
            for completion in [getattr(pair, side)]]  # fmt: skip
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    tokens, counts = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width - 1)
    for row, (prompt, completion) in enumerate(rows):
        tokens[row, : len(prompt) + len(completion)] = torch.tensor([*prompt, *completion])
        counts[row, len(prompt) - 1 : len(prompt) + len(completion) - 1] = 1.0
    tokens, counts = tokens.to(device), counts.to(device)

    def take_plain_step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits: Tensor = model(tokens).logits
        logprobs = logits[:, :-1].float().log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
        chosen, rejected = (logprobs * counts).sum(1).chunk(2)
        loss = -logsigmoid(beta * (chosen - rejected)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()

    return take_plain_step


if __name__ == "__main__":
    main()
