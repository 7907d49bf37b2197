"""Held-out answers: the policy's in every measured round, the opponent's once in an experiment.

Where the experiment is to answer well in its duels too, the opponent also answers each round's own prompts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..ledger.ledger import Ledger
from ..ledger.step import Step
from ..records.plan import STARTING_MODEL, PolicyPointer
from ..records.records import HeldOutAnswer, Prompt, Verdict
from ..records.table import from_parquet, to_parquet
from ..sampling.engine import Decoding, Draw, Engine, Request
from ..seeds import derive
from .judging import opponents_answer
from .old_edge import answer, encode_prompts, load_policy, policy_engine, policy_tokenizer, teller
from .settings import EvaluationSettings

POLICY, OPPONENT, VERDICTS = "answers.parquet", "opponent.parquet", "verdicts.parquet"
ONLINE_OPPONENT = "online_opponent.parquet"
Answers = Mapping[str, HeldOutAnswer]
"""Answers by the id of their prompt."""


@dataclass(frozen=True, slots=True)
class Job:
    """Whose answers to which prompts go into the table `name`; the best of `best_of` for each."""

    name: str
    policy: PolicyPointer
    prompts: Sequence[Prompt]
    best_of: int = 1


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers, the tokens that this round generated for them, and when that began and ended.

    `online_opponent`: the opponent's answers to the round's own prompts. What nobody had to answer, is empty.
    """

    policy: Answers
    opponent: Answers
    online_opponent: Answers
    generated_tokens: int
    begun: float
    ended: float


def answer_all(ledger: Ledger, step: Step, past: int | None, held_out: bool, online: bool) -> Answered:
    """Let the round's policy answer, and get the opponent's answers; `past`: the round that was measured before.

    `held_out`: the held-out prompts are answered. `online`: the opponent answers the round's own prompts. The starting
    model, where it is the opponent, answers the held-out prompts in the first measured round only.
    """
    settings = ledger.section(EvaluationSettings, "evaluation")
    is_model = settings.opponent == "pretrain"
    jobs = list(_jobs(ledger, step, settings, held_out and is_model and past is None, held_out, online and is_model))
    begun = generate(ledger, step, jobs)
    made = {job.name: _read(step, job.name) for job in jobs}
    opponent = made.get(OPPONENT) or {}
    if held_out and not opponent:
        opponent = _earlier(step, past) if is_model else reference_answers(ledger, ledger.eval_prompts())
    online_opponent = made.get(ONLINE_OPPONENT) or {}
    if online and not is_model:
        online_opponent = reference_answers(ledger, ledger.plan(step.round).prompts)
    return Answered(
        policy=made.get(POLICY) or {},
        opponent=opponent,
        online_opponent=online_opponent,
        generated_tokens=sum(row.drawn_tokens or row.tokens for answers in made.values() for row in answers.values()),
        begun=begun,
        ended=time.time(),
    )


def _jobs(
    ledger: Ledger, step: Step, settings: EvaluationSettings, opponent: bool, policy: bool, online: bool
) -> Iterator[Job]:
    """Walk what there is to generate. The starting model comes first: a warm engine may still hold it."""
    starting = ledger.policy_after(STARTING_MODEL)
    if opponent:
        yield Job(OPPONENT, starting, ledger.eval_prompts())
    if online:
        yield Job(ONLINE_OPPONENT, starting, ledger.plan(step.round).prompts)
    if policy:
        yield Job(POLICY, ledger.policy_after(step.round), ledger.eval_prompts(), settings.num_bon)


def generate(ledger: Ledger, step: Step, jobs: Sequence[Job]) -> float:
    """Let policies answer prompts one after the other, each into its table, with one engine for all.

    A table that an earlier attempt wrote, stands. Returns when generating began.
    """
    todo = [job for job in jobs if step.find_output(job.name) is None]
    to_choose: list[tuple[Job, list[list[Draw]]]] = []
    if not todo:
        return time.time()
    with policy_engine(ledger, step, todo[0].policy) as engine:
        begun = time.time()
        for job in todo:
            load_policy(ledger, step, engine, job.policy)
            if job.best_of == 1:
                write(step, job, [[draw] for draw in answered(ledger, step, engine, job)])
            else:
                to_choose.append((job, several_draws(ledger, step, engine, job)))
    for job, drawn in to_choose:
        # Only now: the encoder may need the memory that the engine has let go of.
        write(step, job, drawn, best_places(ledger, step, job, drawn))
    return begun


def write(step: Step, job: Job, drawn: Sequence[Sequence[Draw]], best: Sequence[int] | None = None) -> None:
    """Write the best of each prompt's draws, or the only one, with the tokens that all of them took."""
    rows = [
        HeldOutAnswer(prompt.prompt_id, draws[place].text, len(draws[place].tokens), sum(len(d.tokens) for d in draws))
        for prompt, draws, place in zip(job.prompts, drawn, best or [0] * len(drawn), strict=True)
    ]
    step.write_output(job.name, to_parquet(rows, HeldOutAnswer))


def answered(ledger: Ledger, step: Step, engine: Engine, job: Job) -> list[Draw]:
    """Return the policy's answer to each prompt."""
    settings = ledger.section(EvaluationSettings, "evaluation")
    decoding = Decoding(settings.eval_temperature, 1.0, settings.eval_generate_max_length)
    seeds = (ledger.seed, step.round, "evaluate", job.name)
    tokens = encode_prompts(ledger, job.prompts)
    return answer(engine, job.prompts, tokens, decoding, seeds, teller("evaluate", step.round))


def several_draws(ledger: Ledger, step: Step, engine: Engine, job: Job) -> list[list[Draw]]:
    """Return several draws of the policy to each prompt."""
    settings = ledger.section(EvaluationSettings, "evaluation")
    decoding = Decoding(settings.bon_temperature, 1.0, settings.eval_generate_max_length)
    requests = [
        Request(tokens, best_of_seeds(ledger.seed, step.round, prompt.prompt_id, job.best_of))
        for prompt, tokens in zip(job.prompts, encode_prompts(ledger, job.prompts), strict=True)
    ]
    return engine.generate(requests, decoding, teller("evaluate", step.round))


def best_places(ledger: Ledger, step: Step, job: Job, drawn: Sequence[Sequence[Draw]]) -> list[int]:
    """Return for each prompt the place of the draw whose mean reward is highest under the round's ensemble."""
    from ..exploration.strategies import best_of_n
    from .old_edge import believed_rewards, encode, ensemble_after

    texts = [(prompt.text, draw.text) for prompt, draws in zip(job.prompts, drawn, strict=True) for draw in draws]
    rewards = believed_rewards(ledger, encode(ledger, texts), ensemble_after(step))
    best: list[int] = best_of_n(rewards.reshape(len(rewards), len(drawn), job.best_of)).tolist()
    return best


def best_of_seeds(seed: int, round_: int, prompt_id: str, count: int) -> tuple[int, ...]:
    """Return the seeds of the draws of which the best is taken."""
    return tuple(derive(seed, round_, "best of n", prompt_id, number) for number in range(count))


def reference_answers(ledger: Ledger, prompts: Sequence[Prompt]) -> Answers:
    """Return the answers that the prompt set brings along."""
    tokenizer = policy_tokenizer(ledger)
    texts = {prompt.prompt_id: prompt.reference or "" for prompt in prompts}
    return {name: HeldOutAnswer(name, text, len(tokenizer(text)["input_ids"])) for name, text in texts.items()}


def _earlier(step: Step, round_: int | None) -> Answers:
    """Return the starting model's answers as an earlier round judged them: the very same texts."""
    verdicts = from_parquet(step.read_output("evaluation", VERDICTS, round_=round_), Verdict, VERDICTS)
    return {row.prompt_id: opponents_answer(row) for row in verdicts}


def _read(step: Step, name: str) -> Answers:
    data = step.find_output(name)
    assert data is not None, name
    return {row.prompt_id: row for row in from_parquet(data, HeldOutAnswer, name)}
