"""Held-out answers: the policy's in every measured round, the opponent's once in an experiment.

Where the experiment is to answer well in its duels too, the opponent also answers each round's own prompts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..prompts.template import Tokenizer
from ..records.keep import FinishedSteps, Keep, read_table
from ..records.records import HeldOutAnswer, Prompt
from ..records.tables import VERDICTS, Table
from ..sampling.engine import Decoding, Draw, Engine, OnProgress, Policy, Request
from ..seeds import derive
from .pairings import Answers, find_opponent_answer
from .settings import EvaluationSettings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class AnswerJob:
    """One policy's answers to some prompts.

    Attributes:
        table: The table that the answers are kept in.
        policy: The policy that answers.
        prompts: The prompts.
        best_of: How many answers are drawn for each prompt; the reward model picks the best.
    """

    table: Table[HeldOutAnswer]
    policy: Policy
    prompts: Sequence[Prompt]
    best_of: int = 1


@dataclass(frozen=True)
class Answering:
    """Generates answers with one engine, and keeps them.

    Attributes:
        keep: Keeps the tables of answers. A table that an interrupted attempt kept is not generated again.
        settings: How to draw answers.
        seed: The experiment's seed.
        round: The round that is measured.
        open_engine: Opens an engine with a policy loaded.
        encode_prompts: Returns the tokens of prompts. Called only where something is generated.
        score_texts: Returns every member's reward of K prompts with an answer, (E, K): what best-of-n picks by.
        on_progress: Called with what is generated so far.
    """

    keep: Keep
    settings: EvaluationSettings
    seed: int
    round: int
    open_engine: Callable[[Policy], AbstractContextManager[Engine]]
    encode_prompts: Callable[[Sequence[Prompt]], list[tuple[int, ...]]]
    score_texts: Callable[[Sequence[tuple[str, str]]], Tensor]
    on_progress: OnProgress

    def generate_answers(self, jobs: Sequence[AnswerJob]) -> float:
        """Let the policies answer one after the other; returns when generating began, in seconds since the epoch."""
        missing = [job for job in jobs if self.keep.find_output(job.table.name) is None]
        to_choose: list[tuple[AnswerJob, list[list[Draw]]]] = []
        if not missing:
            return time.time()
        with self.open_engine(missing[0].policy) as engine:
            begun = time.time()
            for job in missing:
                engine.load_policy(job.policy.fetch_folder, job.policy.digest)
                drawn = self._draw_answers(engine, job)
                if job.best_of == 1:
                    self._keep_best(job, drawn, [0] * len(drawn))
                else:
                    to_choose.append((job, drawn))
        for job, drawn in to_choose:
            # Only now: the encoder may need the memory that the engine has released.
            self._keep_best(job, drawn, self._choose_best(job, drawn))
        return begun

    def read_answers(self, job: AnswerJob) -> Answers:
        """Return the answers of a job that is done."""
        data = self.keep.find_output(job.table.name)
        assert data is not None, job.table.name
        return {row.prompt_id: row for row in job.table.from_bytes(data)}

    def _draw_answers(self, engine: Engine, job: AnswerJob) -> list[list[Draw]]:
        is_one = job.best_of == 1
        temperature = self.settings.eval_temperature if is_one else self.settings.bon_temperature
        requests = [
            Request(tokens, (self._derive_seed(job, prompt),) if is_one else self._derive_seeds(job, prompt))
            for prompt, tokens in zip(job.prompts, self.encode_prompts(job.prompts), strict=True)
        ]
        decoding = Decoding(temperature, 1.0, self.settings.eval_generate_max_length)
        return engine.generate(requests, decoding, self.on_progress)

    def _derive_seed(self, job: AnswerJob, prompt: Prompt) -> int:
        return derive(self.seed, self.round, "evaluate", job.table.name, prompt.prompt_id)

    def _derive_seeds(self, job: AnswerJob, prompt: Prompt) -> tuple[int, ...]:
        return tuple(derive(self.seed, self.round, "best of n", prompt.prompt_id, n) for n in range(job.best_of))

    def _choose_best(self, job: AnswerJob, drawn: Sequence[Sequence[Draw]]) -> list[int]:
        """Return for each prompt the place of the draw whose mean reward is highest under the round's ensemble."""
        from ..exploration.strategies import best_of_n

        texts = [(prompt.text, draw.text) for prompt, draws in zip(job.prompts, drawn, strict=True) for draw in draws]
        rewards = self.score_texts(texts)
        best: list[int] = best_of_n(rewards.reshape(len(rewards), len(drawn), job.best_of)).tolist()
        return best

    def _keep_best(self, job: AnswerJob, drawn: Sequence[Sequence[Draw]], best: Sequence[int]) -> None:
        """Keep the chosen draw of each prompt, with the tokens that all of its draws took."""
        rows = [
            HeldOutAnswer(
                prompt_id=prompt.prompt_id,
                response=draws[place].text,
                tokens=len(draws[place].tokens),
                drawn_tokens=sum(len(draw.tokens) for draw in draws),
            )
            for prompt, draws, place in zip(job.prompts, drawn, best, strict=True)
        ]
        self.keep.write_output(job.table.name, job.table.to_bytes(rows))


def read_reference_answers(prompts: Sequence[Prompt], tokenizer: Tokenizer) -> Answers:
    """Return the answers that the prompt set brings along."""
    texts = {prompt.prompt_id: prompt.reference or "" for prompt in prompts}
    return {name: HeldOutAnswer(name, text, len(tokenizer(text)["input_ids"])) for name, text in texts.items()}


def read_opponent_answers(finished: FinishedSteps, round_: int) -> Answers:
    """Return the starting model's answers that an earlier round was judged against."""
    return {row.prompt_id: find_opponent_answer(row) for row in read_table(finished, VERDICTS, round_)}


def count_tokens(answers: Iterable[Answers]) -> int:
    """Return how many tokens were generated for answers, those of draws that were not chosen included."""
    return sum(row.drawn_tokens or row.tokens for table in answers for row in table.values())
