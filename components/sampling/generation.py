"""The step of the sampling room: the policy draws candidates, two of each prompt's become a duel.

Offline, nothing is drawn: a prompt's candidates are the two answers that the preference set gives.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import progress
from ..exploration.choice import Choice, choose_duels
from ..exploration.settings import ExplorationSettings
from ..ledger.done import Done
from ..ledger.ledger import Ledger
from ..ledger.owner import process_start
from ..ledger.plan import STARTING_MODEL, Plan, PolicyPointer
from ..ledger.step import Step
from ..prompts.settings import PromptSettings
from ..prompts.template import encode_prompt, load_tokenizer
from ..records.records import OF_REFERENCE, Candidate, Duel, Prompt
from ..records.table import from_parquet, to_parquet
from ..seeds import derive
from ..starting_model import starting_folder, trusts_remote_code
from .engine import Decoding, Draw, Engine, OnProgress, Request, open_engine, quietly
from .offline import given_candidates
from .settings import SamplingSettings

CANDIDATES, DUELS = "candidates.parquet", "duels.parquet"
TELL_SECONDS = 0.5


def run_sampling(ledger: Ledger, round_: int, run: str) -> Done:
    """Get the round's candidates and pick its duels. What a killed attempt has written already, stands."""
    with ledger.step(round_, "sampling", run) as step:
        if step.done is not None:
            return step.done
        plan = ledger.plan(round_)
        offline = ledger.section(PromptSettings, "prompts").offline
        begun = time.time()
        written = step.find_output(CANDIDATES)
        if written is None:
            begun, candidates = (take_candidates if offline else draw_candidates)(ledger, step, plan)
            written = step.write_output(CANDIDATES, to_parquet(candidates, Candidate))
        generated = time.time()
        candidates = from_parquet(written, Candidate, CANDIDATES)
        chosen = pick(ledger, step, plan, candidates)
        duels = from_parquet(step.write_output(DUELS, to_parquet(chosen.duels, Duel)), Duel, DUELS)
        timings = {"startup": begun - process_start(), "generate": generated - begun, "work": time.time() - begun}
        return step.mark_done(count(candidates, duels, generated=not offline), timings, chosen.facts)


def take_candidates(ledger: Ledger, step: Step, plan: Plan) -> tuple[float, list[Candidate]]:
    """Return when that began, and the two answers that the preference set gives to each prompt of the plan."""
    begun = time.time()
    longest = ledger.section(SamplingSettings, "sampling").generate_max_length
    tokens = encode_prompts(ledger, plan.prompts)
    return begun, given_candidates(plan.prompts, tokens, policy_tokenizer(ledger), longest)


def draw_candidates(ledger: Ledger, step: Step, plan: Plan) -> tuple[float, list[Candidate]]:
    """Return when generating began, and `num_samples` candidates for each prompt of the plan."""
    settings = ledger.section(SamplingSettings, "sampling")
    decoding = Decoding(settings.temperature, settings.top_p, settings.generate_max_length)
    requests = [
        Request(tokens, candidate_seeds(ledger.seed, plan.round, prompt.prompt_id, settings.num_samples))
        for prompt, tokens in zip(plan.prompts, encode_prompts(ledger, plan.prompts), strict=True)
    ]
    method = ledger.section(ExplorationSettings, "exploration").exp_method
    with policy_engine(ledger, step, plan.sampler) as engine:
        begun = time.time()
        draw = draw_beside_reference if method == "XPO" else draw_from_policy
        drawn = draw(ledger, step, engine, requests, decoding)
        candidates = [
            Candidate(prompt.prompt_id, number, draw.text, draw.tokens, len(request.prompt_tokens), draw.finish_reason)
            for prompt, request, draws in zip(plan.prompts, requests, drawn, strict=True)
            for number, draw in enumerate(draws)
        ]
        if method == "APL":
            prompts = [request.prompt_tokens for request in requests for _ in request.seeds]
            candidates = with_logprobs(ledger, step, engine, candidates, prompts)
    return begun, candidates


def draw_from_policy(
    ledger: Ledger, step: Step, engine: Engine, requests: Sequence[Request], decoding: Decoding
) -> list[list[Draw]]:
    """Let the loaded policy draw all candidates."""
    return engine.generate(requests, decoding, teller("sample", step.round))


def draw_beside_reference(
    ledger: Ledger, step: Step, engine: Engine, requests: Sequence[Request], decoding: Decoding
) -> list[list[Draw]]:
    """Let the loaded policy draw the first candidate of each prompt, and the reference the one of its number (XPO)."""
    by_policy, by_reference = (
        [replace(request, seeds=request.seeds[number : number + 1]) for request in requests]
        for number in (0, OF_REFERENCE)
    )
    drawn = draw_from_policy(ledger, step, engine, by_policy, decoding)
    load_policy(ledger, step, engine, ledger.policy_after(STARTING_MODEL))
    beside = draw_from_policy(ledger, step, engine, by_reference, decoding)
    return [[*first, *second] for first, second in zip(drawn, beside, strict=True)]


def with_logprobs(
    ledger: Ledger, step: Step, engine: Engine, candidates: Sequence[Candidate], prompts: Sequence[tuple[int, ...]]
) -> list[Candidate]:
    """Score the candidates under the loaded policy and under the reference; where they are one, just once (APL).

    `prompts`: each candidate's prompt in tokens.
    """
    answers = [(prompt, candidate.tokens) for prompt, candidate in zip(prompts, candidates, strict=True)]
    tell = teller("sample", step.round)
    logprobs = under_reference = engine.logprobs(answers, tell)
    reference = ledger.policy_after(STARTING_MODEL)
    if engine.loaded() != reference.digest:
        load_policy(ledger, step, engine, reference)
        under_reference = engine.logprobs(answers, tell)
    return [
        replace(candidate, logprob=logprob, reference_logprob=reference_logprob)
        for candidate, logprob, reference_logprob in zip(candidates, logprobs, under_reference, strict=True)
    ]


def candidate_seeds(seed: int, round_: int, prompt_id: str, samples: int) -> tuple[int, ...]:
    """Return the seeds of a prompt's candidates in a round: they depend on nothing else."""
    return tuple(derive(seed, round_, prompt_id, "sample", number) for number in range(samples))


def pick(ledger: Ledger, step: Step, plan: Plan, candidates: Sequence[Candidate]) -> Choice:
    """Choose the round's duels, by what the reward model believes where the experiment learns one."""
    settings = ledger.section(ExplorationSettings, "exploration")
    if not plan.learns_rewards:
        return choose_duels(plan, candidates, settings, ledger.seed)
    from ..reward_model.beliefs import believed_rewards, candidate_features, ensemble_before, note_outside_features

    features = candidate_features(ledger, step, plan, candidates)
    note_outside_features(ledger, step, plan)
    ensemble = ensemble_before(ledger, step, plan.round, features.shape[1])
    return choose_duels(plan, candidates, settings, ledger.seed, believed_rewards(ledger, features, ensemble))


def answer(
    engine: Engine,
    prompts: Sequence[Prompt],
    tokens: Sequence[tuple[int, ...]],
    decoding: Decoding,
    seed_parts: tuple[int, *tuple[int | str, ...]],
    on_progress: OnProgress = quietly,
) -> list[Draw]:
    """Return one answer a prompt; `tokens` are the prompts', as `encode_prompts` gives them.

    A prompt's seed derives from `seed_parts` (an experiment's seed, then the purpose) and the prompt's id.
    """
    seeds = [derive(*seed_parts, prompt.prompt_id) for prompt in prompts]
    requests = [Request(encoded, (seed,)) for encoded, seed in zip(tokens, seeds, strict=True)]
    return [draw for (draw,) in engine.generate(requests, decoding, on_progress)]


@contextmanager
def policy_engine(ledger: Ledger, step: Step, policy: PolicyPointer) -> Iterator[Engine]:
    """Give an engine with that policy loaded. Its weights are fetched only if the engine does not hold them yet."""
    settings = ledger.section(SamplingSettings, "sampling")
    with (
        policy_folder(ledger, step, policy) as folder,
        closing(open_engine(settings, folder, policy.digest, trusts_remote_code(ledger))) as engine,
    ):
        yield engine


def load_policy(ledger: Ledger, step: Step, engine: Engine, policy: PolicyPointer) -> None:
    """Put another policy into an open engine. Its weights are fetched only if the engine does not hold them yet."""
    with policy_folder(ledger, step, policy) as folder:
        engine.load_policy(folder, policy.digest)


@contextmanager
def policy_folder(ledger: Ledger, step: Step, policy: PolicyPointer) -> Iterator[Callable[[], Path]]:
    """Give what fetches a policy's folder when it is called; the folder is there as long as this lasts."""
    with tempfile.TemporaryDirectory(prefix="oatflow-policy-") as scratch:

        def folder() -> Path:
            if policy.round == STARTING_MODEL:
                return starting_folder(ledger)
            step.download_folder("policy", "model", Path(scratch), round_=policy.round)
            return Path(scratch)

        yield folder


def encode_prompts(ledger: Ledger, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
    """Return the prompts' tokens."""
    tokenizer = policy_tokenizer(ledger)
    template = ledger.section(PromptSettings, "prompts").apply_chat_template
    return [tuple(encode_prompt(tokenizer, prompt.text, template)) for prompt in prompts]


def policy_tokenizer(ledger: Ledger) -> Any:
    """Load the tokenizer of every policy of the experiment, which is the starting model's."""
    scripted = ledger.section(SamplingSettings, "sampling").engine == "scripted"
    return load_tokenizer(None if scripted else starting_folder(ledger), trusts_remote_code(ledger))


def teller(step: str, round_: int) -> OnProgress:
    """Return what tells a step's progress while it generates, now and then and at the end."""
    told = 0.0

    def tell(done: int, of: int, tokens: int) -> None:
        nonlocal told
        if done == of or time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            progress.tell(step, round_, "work", done=done, of=of, tokens=tokens)

    return tell


def count(candidates: Sequence[Candidate], duels: Sequence[Duel], generated: bool) -> dict[str, int]:
    """Return the figures of a round's sampling; `generated`: whether the policy made the candidates."""
    prompts = {candidate.prompt_id: candidate.prompt_tokens for candidate in candidates}
    return {
        "prompts": len(prompts),
        "candidates": len(candidates),
        "duels": len(duels),
        "clashes": sum(duel.clash for duel in duels),
        "generated_tokens": sum(len(candidate.tokens) for candidate in candidates) if generated else 0,
        "prompt_tokens": sum(prompts.values()),
    }
