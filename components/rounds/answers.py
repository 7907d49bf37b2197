"""The answers that an evaluation compares, and how the oracle is asked to compare them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.answering import AnswerJob, count_tokens, generate_answers, reference_answers
from ..evaluation.match import Match
from ..evaluation.pairings import Answers, is_evaluated
from ..labeling.asking import Interview
from ..labeling.labels import pick_likelier
from ..records.keep import StepOutputs
from ..records.tables import ANSWERS, ENSEMBLE, ONLINE_OPPONENT_ANSWERS, OPPONENT_ANSWERS
from . import history
from .inputs import Round, Tools


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers to compare.

    Attributes:
        policy: The new policy's answers to the held-out prompts; None if the round does not measure the win rate.
        opponent: The opponent's answers to them.
        online_opponent: The opponent's answers to the round's own prompts; None if the round does not measure duels.
        tokens: Tokens that this round generated for them.
        seconds: How long that took.
    """

    policy: Answers | None
    opponent: Answers
    online_opponent: Answers | None
    tokens: int
    seconds: float


def answer_prompts(given: Round, tools: Tools, kept: StepOutputs) -> Answered:
    """Let the policy and the opponent answer what the round measures: held-out prompts, the round's own, or both.

    The starting model, if it is the opponent, answers the held-out prompts in the first measured round only.
    """
    settings, prompts = given.settings.evaluation, given.plan.prompts
    measures_held_out = is_evaluated(given.number, settings.eval_every, given.plan.last)
    measures_duels = given.settings.exploration.objective == "explore_and_exploit"
    held_out = given.read_held_out() if measures_held_out else ()
    answered_in = history.find_opponent_round(given, kept) if measures_held_out else None
    jobs = []
    # The starting model comes first: a warm engine may still hold it.
    if settings.opponent == "pretrain" and measures_held_out and answered_in is None:
        jobs.append(AnswerJob(OPPONENT_ANSWERS, given.starting_model, held_out))
    if settings.opponent == "pretrain" and measures_duels:
        jobs.append(AnswerJob(ONLINE_OPPONENT_ANSWERS, given.starting_model, prompts))
    if measures_held_out:
        jobs.append(AnswerJob(ANSWERS, tools.find_trained_policy(), held_out, settings.num_bon))

    def choose_best(texts: Sequence[tuple[str, str]], best_of: int) -> list[int]:
        return choose_best_answers(given, tools, kept, texts, best_of)

    begun = time.monotonic()
    made = generate_answers(
        jobs,
        tools,
        kept,
        settings,
        given.settings.prompts.apply_chat_template,
        given.seed,
        given.number,
        choose_best,
    )
    seconds = time.monotonic() - begun
    opponent, online_opponent = made.get(OPPONENT_ANSWERS.name), made.get(ONLINE_OPPONENT_ANSWERS.name)
    if measures_held_out and opponent is None:
        opponent = history.opponent_answers(given, tools, kept, answered_in)
    if measures_duels and online_opponent is None:
        online_opponent = reference_answers(prompts, tools.load_tokenizer())
    return Answered(made.get(ANSWERS.name), opponent or {}, online_opponent, count_tokens(made), seconds)


def choose_best_answers(
    given: Round, tools: Tools, kept: StepOutputs, texts: Sequence[tuple[str, str]], best_of: int
) -> list[int]:
    """Return the place of each prompt's best answer: the highest mean reward under the round's ensemble.

    Args:
        given: The round.
        tools: Open the encoder.
        kept: Reads the ensemble that has learned from the round.
        texts: Prompts with answers, `best_of` to each prompt in a row.
        best_of: How many answers a prompt has.
    """
    from ..exploration.strategies import pick_best_of_n
    from ..reward_model import beliefs, checkpoint

    ensemble = checkpoint.from_bytes(kept.read_output(ENSEMBLE.step, ENSEMBLE.name, given.number))
    features = beliefs.encode_texts(texts, tools.open_encoder)
    rewards = beliefs.predict_rewards(ensemble, features, given.settings.reward_model)
    best: list[int] = pick_best_of_n(rewards.reshape(len(rewards), -1, best_of)).tolist()
    return best


def start_match(given: Round, tools: Tools, kept: StepOutputs) -> Match:
    """Open the oracle that compares answers, and return the match that asks it."""
    labeling, evaluation = given.settings.labeling, given.settings.evaluation
    oracle, _ = tools.open_oracle((), evaluation.eval_oracle)
    interview = Interview(
        oracle,
        labeling.oracle_batch_size,
        lambda duel, first_wins: pick_likelier(first_wins),
        labeling.unreadable_limit,
        labeling.lost_limit,
        history.spent_before(kept, given.number) if oracle.spending else 0.0,
    )
    return Match(interview, given.seed, given.number)
