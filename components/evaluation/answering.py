"""Held-out answers: the policy's in every measured round, the opponent's once in an experiment."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..ledger.ledger import Ledger
from ..ledger.plan import STARTING_MODEL, PolicyPointer
from ..ledger.step import Step
from ..records.records import Verdict
from ..records.table import from_parquet, to_parquet
from ..sampling.engine import Decoding, Engine
from ..sampling.generation import answer, encode_prompts, policy_engine, policy_tokenizer, teller
from .judging import HeldOutAnswer, opponents_answer
from .settings import EvaluationSettings

POLICY, OPPONENT, VERDICTS = "answers.parquet", "opponent.parquet", "verdicts.parquet"
Answers = Mapping[str, HeldOutAnswer]
"""Answers by the id of their prompt."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Both sides' answers, the tokens that this round generated for them, and when that began and ended."""

    policy: Answers
    opponent: Answers
    generated_tokens: int
    begun: float
    ended: float


def answer_held_out(ledger: Ledger, step: Step, past: int | None) -> Answered:
    """Let the round's policy answer, and get the opponent's answers; `past`: the round that was measured before.

    The starting model, where it is the opponent, answers in the first measured round only.
    """
    is_model = ledger.section(EvaluationSettings, "evaluation").opponent == "pretrain"
    who = {POLICY: ledger.policy_after(step.round)}
    if is_model and past is None:
        # First, because a warm engine may still hold the starting model.
        who = {OPPONENT: ledger.policy_after(STARTING_MODEL), **who}
    begun = generate(ledger, step, who)
    made = {name: _read(step, name) for name in who}
    return Answered(
        policy=made[POLICY],
        opponent=made.get(OPPONENT) or (_earlier(step, past) if is_model else reference_answers(ledger)),
        generated_tokens=sum(row.tokens for answers in made.values() for row in answers.values()),
        begun=begun,
        ended=time.time(),
    )


def generate(ledger: Ledger, step: Step, who: Mapping[str, PolicyPointer]) -> float:
    """Let policies answer the held-out prompts one after the other, each into its table, with one engine for all.

    A table that an earlier attempt wrote, stands. Returns when generating began.
    """
    settings = ledger.section(EvaluationSettings, "evaluation")
    decoding = Decoding(settings.eval_temperature, 1.0, settings.eval_generate_max_length)
    todo = [name for name in who if step.existing(name) is None]
    if not todo:
        return time.time()
    prompts = ledger.eval_prompts()
    tokens = encode_prompts(ledger, prompts)
    with policy_engine(ledger, step, who[todo[0]]) as engine:
        begun = time.time()
        for name in todo:
            _load(engine, step, who[name])
            seeds = (ledger.seed, step.round, "evaluate", name)
            draws = answer(engine, prompts, tokens, decoding, seeds, teller("evaluate", step.round))
            rows = [HeldOutAnswer(p.prompt_id, d.text, len(d.tokens)) for p, d in zip(prompts, draws, strict=True)]
            step.write(name, to_parquet(rows, HeldOutAnswer))
    return begun


def reference_answers(ledger: Ledger) -> Answers:
    """Return the answers that the prompt set brings along."""
    tokenizer = policy_tokenizer(ledger)
    texts = {prompt.prompt_id: prompt.reference or "" for prompt in ledger.eval_prompts()}
    return {name: HeldOutAnswer(name, text, len(tokenizer(text)["input_ids"])) for name, text in texts.items()}


def _earlier(step: Step, round_: int | None) -> Answers:
    """Return the starting model's answers as an earlier round judged them: the very same texts."""
    verdicts = from_parquet(step.read("evaluation", VERDICTS, round=round_), Verdict, VERDICTS)
    return {row.prompt_id: opponents_answer(row) for row in verdicts}


def _read(step: Step, name: str) -> Answers:
    data = step.existing(name)
    assert data is not None, name
    return {row.prompt_id: row for row in from_parquet(data, HeldOutAnswer, name)}


def _load(engine: Engine, step: Step, policy: PolicyPointer) -> None:
    """Load a policy that a round made; the starting model can only be the one that the engine was opened with."""
    with tempfile.TemporaryDirectory(prefix="oatflow-policy-") as scratch:

        def folder() -> Path:
            step.download_folder("policy", "model", Path(scratch), round=policy.round)
            return Path(scratch)

        if policy.round != STARTING_MODEL:
            engine.load_policy(folder, policy.digest)
