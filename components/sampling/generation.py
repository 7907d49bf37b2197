"""Drawing candidates and answers from a policy. The engine, the prompts' tokens and the seeds are handed in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from .. import progress
from ..records.records import OF_REFERENCE, Candidate, Duel, Prompt
from ..seeds import derive
from .engine import Decoding, Draw, Engine, OnProgress, Policy, Request, ignore_progress

REPORT_SECONDS = 0.5
"""Least time between two lines of progress."""


def draw_candidates(
    engine: Engine,
    prompts: Sequence[Prompt],
    requests: Sequence[Request],
    decoding: Decoding,
    on_progress: OnProgress = ignore_progress,
    beside: Policy | None = None,
) -> list[Candidate]:
    """Draw each prompt's candidates from the loaded policy, one for each seed of its request.

    Args:
        engine: Holds the policy that answers.
        prompts: The round's prompts.
        requests: Tokens and seeds of each prompt, in the same order.
        decoding: How to choose the next token.
        on_progress: Called while the engine generates.
        beside: If given, this policy draws the candidate number OF_REFERENCE of each prompt, and the loaded policy
            draws the other one (XPO). It stays loaded.
    """
    if beside is None:
        drawn = engine.generate(requests, decoding, on_progress)
    else:
        drawn = _draw_from_both(engine, requests, decoding, on_progress, beside)
    return [
        Candidate(prompt.prompt_id, number, draw.text, draw.tokens, len(request.prompt_tokens), draw.finish_reason)
        for prompt, request, draws in zip(prompts, requests, drawn, strict=True)
        for number, draw in enumerate(draws)
    ]


def _draw_from_both(
    engine: Engine, requests: Sequence[Request], decoding: Decoding, on_progress: OnProgress, beside: Policy
) -> list[list[Draw]]:
    by_policy, by_other = (
        [replace(request, seeds=request.seeds[number : number + 1]) for request in requests]
        for number in (0, OF_REFERENCE)
    )
    drawn = engine.generate(by_policy, decoding, on_progress)
    engine.load_policy(beside.fetch_folder, beside.digest)
    drawn_beside = engine.generate(by_other, decoding, on_progress)
    return [[*first, *second] for first, second in zip(drawn, drawn_beside, strict=True)]


def score_candidates(
    engine: Engine,
    candidates: Sequence[Candidate],
    requests: Sequence[Request],
    reference: Policy,
    on_progress: OnProgress = ignore_progress,
) -> list[Candidate]:
    """Return the candidates with their log-probabilities under the loaded policy and under the reference (APL).

    Args:
        engine: Holds the policy that drew the candidates.
        candidates: All candidates, together by prompt.
        requests: Tokens and seeds of each prompt, in the order of the candidates.
        reference: Is loaded only if it is another policy.
        on_progress: Called while the engine computes.
    """
    prompts = [request.prompt_tokens for request in requests for _ in request.seeds]
    answers = [(prompt, candidate.tokens) for prompt, candidate in zip(prompts, candidates, strict=True)]
    logprobs = under_reference = engine.logprobs(answers, on_progress)
    if engine.loaded() != reference.digest:
        engine.load_policy(reference.fetch_folder, reference.digest)
        under_reference = engine.logprobs(answers, on_progress)
    return [
        replace(candidate, logprob=logprob, reference_logprob=reference_logprob)
        for candidate, logprob, reference_logprob in zip(candidates, logprobs, under_reference, strict=True)
    ]


def request_candidates(
    prompts: Sequence[Prompt], tokens: Sequence[tuple[int, ...]], samples: int, seed: int, round_: int
) -> list[Request]:
    """Return a request for `samples` candidates of each prompt. `seed` is the experiment's."""
    return [
        Request(encoded, candidate_seeds(seed, round_, prompt.prompt_id, samples))
        for prompt, encoded in zip(prompts, tokens, strict=True)
    ]


def candidate_seeds(seed: int, round_: int, prompt_id: str, samples: int) -> tuple[int, ...]:
    """Return the seeds of a prompt's candidates in a round; they depend on nothing else."""
    return tuple(derive(seed, round_, prompt_id, "sample", number) for number in range(samples))


def draw_answers(
    engine: Engine,
    prompts: Sequence[Prompt],
    tokens: Sequence[tuple[int, ...]],
    decoding: Decoding,
    seed_parts: tuple[int, *tuple[int | str, ...]],
    on_progress: OnProgress = ignore_progress,
) -> list[Draw]:
    """Return one answer to each prompt.

    Args:
        engine: Holds the policy that answers.
        prompts: The prompts.
        tokens: Their tokens, as `encode_prompts` gives them.
        decoding: How to choose the next token.
        seed_parts: The experiment's seed, then the purpose; a prompt's seed derives from these and its id.
        on_progress: Called while the engine generates.
    """
    seeds = [derive(*seed_parts, prompt.prompt_id) for prompt in prompts]
    requests = [Request(encoded, (seed,)) for encoded, seed in zip(tokens, seeds, strict=True)]
    return [draw for (draw,) in engine.generate(requests, decoding, on_progress)]


def report_progress(step: str, round_: int) -> OnProgress:
    """Return a function that reports a step's progress now and then, and at the end."""
    last = 0.0

    def report(done: int, of: int, tokens: int) -> None:
        nonlocal last
        if done == of or time.monotonic() - last >= REPORT_SECONDS:
            last = time.monotonic()
            progress.report_event(step, round_, "work", done=done, of=of, tokens=tokens)

    return report


def count_sampled(candidates: Sequence[Candidate], duels: Sequence[Duel], generated: bool) -> dict[str, int]:
    """Count a round's prompts, candidates, duels and tokens; `generated`: whether the policy made the candidates."""
    prompts = {candidate.prompt_id: candidate.prompt_tokens for candidate in candidates}
    return {
        "prompts": len(prompts),
        "candidates": len(candidates),
        "duels": len(duels),
        "clashes": sum(duel.clash for duel in duels),
        "generated_tokens": sum(len(candidate.tokens) for candidate in candidates) if generated else 0,
        "prompt_tokens": sum(prompts.values()),
    }
