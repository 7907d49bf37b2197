"""Answers to held-out prompts: the policy's in every measured round, the opponent's once in an experiment.

If the objective asks for good duels, too, the opponent also answers each round's own prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol

from ..prompts.template import Tokenizer, encode_prompts
from ..records.keep import StepOutputs
from ..records.plan import PolicyPointer
from ..records.records import HeldOutAnswer, Prompt
from ..records.tables import Table
from ..sampling.engine import Decoding, Draw, Engine, Policy, Request
from ..sampling.generation import draw_answers, report_progress
from ..seeds import derive
from .pairings import Answers
from .settings import EvaluationSettings

ChooseBest = Callable[[Sequence[tuple[str, str]], int], list[int]]
"""Takes prompts with answers, so many to each prompt in a row; returns the place of each prompt's best answer."""


@dataclass(frozen=True, slots=True)
class AnswerJob:
    """Which policy answers which prompts, and the table that the answers go into; the best of `best_of` draws."""

    table: Table[HeldOutAnswer]
    policy: PolicyPointer
    prompts: Sequence[Prompt]
    best_of: int = 1


class EngineTools(Protocol):
    """What opens policies, and engines that hold them; see `rounds.round.Tools`."""

    @property
    def load_tokenizer(self) -> Callable[[], Tokenizer]:
        """Returns the tokenizer of the policies."""
        ...

    @property
    def open_policy(self) -> Callable[[PolicyPointer], AbstractContextManager[Policy]]:
        """Opens a policy of the experiment."""
        ...

    @property
    def open_engine(self) -> Callable[[Policy], AbstractContextManager[Engine]]:
        """Opens an engine with a policy loaded."""
        ...


def generate_answers(
    jobs: Sequence[AnswerJob],
    tools: EngineTools,
    keep: StepOutputs,
    settings: EvaluationSettings,
    chat_template: bool,
    seed: int,
    round_: int,
    choose_best: ChooseBest,
) -> dict[str, Answers]:
    """Return the answers of each job by the name of its table. One engine does all jobs, one after the other.

    A table that an earlier attempt kept is used. Loading the engine counts as start-up.

    Args:
        jobs: What to answer; a job whose policy a warm engine may still hold comes first.
        tools: Open policies and engines.
        keep: Keeps the tables.
        settings: How to answer.
        chat_template: Whether prompts are wrapped in the tokenizer's chat template.
        seed: The experiment's seed.
        round_: The round's number.
        choose_best: Chooses among several draws. It is called after the engine has freed its memory.
    """
    kept = {job.table.name: keep.find_output(job.table.name) for job in jobs}
    to_do = [job for job in jobs if kept[job.table.name] is None]
    drawn: list[tuple[AnswerJob, list[list[Draw]]]] = []
    if to_do:
        with ExitStack() as stack:
            policies = [stack.enter_context(tools.open_policy(job.policy)) for job in to_do]
            engine = stack.enter_context(tools.open_engine(policies[0]))
            keep.begin_work()
            for job, policy in zip(to_do, policies, strict=True):
                engine.load_policy(policy.fetch_folder, policy.digest)
                tokens = encode_prompts(tools.load_tokenizer(), job.prompts, chat_template)
                draws = _draw(engine, job, tokens, settings, seed, round_)
                if job.best_of == 1:
                    kept[job.table.name] = _keep_answers(keep, job, draws, [0] * len(draws))
                else:
                    drawn.append((job, draws))
    for job, draws in drawn:
        texts = [(prompt.text, draw.text) for prompt, row in zip(job.prompts, draws, strict=True) for draw in row]
        kept[job.table.name] = _keep_answers(keep, job, draws, choose_best(texts, job.best_of))
    tables = {job.table.name: job.table.from_bytes(kept[job.table.name] or b"") for job in jobs}
    return {name: {row.prompt_id: row for row in rows} for name, rows in tables.items()}


def best_of_seeds(seed: int, round_: int, prompt_id: str, count: int) -> tuple[int, ...]:
    """Return the seeds of the draws of which the best is taken."""
    return tuple(derive(seed, round_, "best of n", prompt_id, number) for number in range(count))


def reference_answers(prompts: Sequence[Prompt], tokenizer: Tokenizer) -> Answers:
    """Return the answers that come with the prompt set."""
    texts = {prompt.prompt_id: prompt.reference or "" for prompt in prompts}
    return {name: HeldOutAnswer(name, text, len(tokenizer(text)["input_ids"])) for name, text in texts.items()}


def count_tokens(answers: Mapping[str, Answers]) -> int:
    """Return how many tokens were generated for the answers, those of draws that were not chosen included."""
    return sum(row.drawn_tokens or row.tokens for table in answers.values() for row in table.values())


def _draw(
    engine: Engine,
    job: AnswerJob,
    tokens: Sequence[tuple[int, ...]],
    settings: EvaluationSettings,
    seed: int,
    round_: int,
) -> list[list[Draw]]:
    progress, longest = report_progress("evaluate", round_), settings.eval_generate_max_length
    if job.best_of == 1:
        decoding = Decoding(settings.eval_temperature, 1.0, longest)
        parts = (seed, round_, "evaluate", job.table.name)
        return [[draw] for draw in draw_answers(engine, job.prompts, tokens, decoding, parts, progress)]
    requests = [
        Request(encoded, best_of_seeds(seed, round_, prompt.prompt_id, job.best_of))
        for prompt, encoded in zip(job.prompts, tokens, strict=True)
    ]
    return engine.generate(requests, Decoding(settings.bon_temperature, 1.0, longest), progress)


def _keep_answers(keep: StepOutputs, job: AnswerJob, drawn: Sequence[Sequence[Draw]], best: Sequence[int]) -> bytes:
    """Keep the best of each prompt's draws, with the tokens that all of them took; returns what is kept."""
    rows = [
        HeldOutAnswer(prompt.prompt_id, draws[place].text, len(draws[place].tokens), sum(len(d.tokens) for d in draws))
        for prompt, draws, place in zip(job.prompts, drawn, best, strict=True)
    ]
    return keep.write_output(job.table.name, job.table.to_bytes(rows))
