"""What earlier rounds found out, and this one need not pay for or compute again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from ..evaluation.answering import reference_answers
from ..evaluation.pairings import Answers
from ..prompts.schedule import prompts_of_round
from ..records.keep import FinishedSteps, read_table, sum_costs
from ..records.records import Duel, Preference
from ..records.tables import CANDIDATES, ENSEMBLE, FEATURES, OPPONENT_ANSWERS, PAIR_FEATURES, PREFERENCES, REPLAY_BUFFER
from ..seeds import derive

if TYPE_CHECKING:
    from torch import Tensor

    from ..reward_model.fitting import Ensemble
    from ..reward_model.replay import Replay
    from .inputs import Round, Tools


REMEMBERED = 2
"""Earlier rounds whose features are used again. What is not found is computed again, and comes out the same."""


def answered_before(given: Round, finished: FinishedSteps, duels: Sequence[Duel]) -> dict[str, Preference]:
    """Return what the oracle said of these duels in earlier rounds: possible only if prompts are repeated."""
    if not given.number:
        return {}
    texts = [prompt.text for prompt in given.read_prompt_set()]
    size = given.settings.prompts.rollout_batch_size
    if (given.number + 1) * size <= len(texts) == len(set(texts)):
        return {}
    return finished.find_answers(PREFERENCES, {duel.duel_id for duel in duels}, given.number)


def find_opponent_round(given: Round, finished: FinishedSteps) -> int | None:
    """Return the round in which the starting model answered the held-out prompts, or None if it has to answer now.

    It answers in the first round that every experiment with these settings measures. Rounds before that one are
    measured only where an experiment ends with them, and may go on when its budget is raised.
    """
    first = given.settings.evaluation.eval_every - 1
    if first < given.number and OPPONENT_ANSWERS.name in finished.list_outputs(OPPONENT_ANSWERS.step, first):
        return first
    return None


def opponent_answers(given: Round, tools: Tools, finished: FinishedSteps, answered_in: int | None) -> Answers:
    """Return the opponent's answers to the held-out prompts, if it did not answer in this round.

    `answered_in`: the round in which the starting model did; any other opponent is the prompt set itself.
    """
    if given.settings.evaluation.opponent != "pretrain":
        return reference_answers(given.read_held_out(), tools.load_tokenizer())
    assert answered_in is not None, "the opponent has answered, or answers in this round"
    return {row.prompt_id: row for row in read_table(finished, OPPONENT_ANSWERS, answered_in)}


def spent_before(finished: FinishedSteps, round_: int) -> float:
    """Add up what the oracle has cost: in earlier rounds, and in the finished steps of this one."""
    here = [finished.read_report(step, round_) for step in ("labeling", "evaluation")]
    return finished.sum_cost(round_) + sum_costs(here)


def ensemble_before(given: Round, finished: FinishedSteps, features: int) -> Ensemble:
    """Return the ensemble as the round before left it; before the first round, its seeded initial weights."""
    from ..reward_model import checkpoint, fitting

    if given.number == 0:
        return fitting.start_ensemble(given.settings.reward_model, features, derive(given.seed, "reward model"))
    return checkpoint.from_bytes(finished.read_output(ENSEMBLE.step, ENSEMBLE.name, given.number - 1))


def replay_buffer(finished: FinishedSteps, round_: int, new: Replay, maxlen: int) -> Replay:
    """Return the newest `maxlen` pairs: the round's own behind those of the rounds before.

    The round before has kept its buffer; only where it is older than that, earlier rounds are read one by one.
    """
    from ..reward_model.checkpoint import replay_from_bytes
    from ..reward_model.replay import Replay

    if round_ and REPLAY_BUFFER.name in finished.list_outputs(REPLAY_BUFFER.step, round_ - 1):
        before = finished.read_output(REPLAY_BUFFER.step, REPLAY_BUFFER.name, round_ - 1)
        return replay_from_bytes(before).extended(new, maxlen)
    replay = Replay.empty(new.chosen.shape[1]).extended(new, maxlen)
    for earlier in reversed(range(round_)):
        if len(replay) == maxlen:
            break
        data = finished.read_output(PAIR_FEATURES.step, PAIR_FEATURES.name, earlier)
        replay = replay_from_bytes(data).extended(replay, maxlen)
    return replay


def known_features(
    given: Round, finished: FinishedSteps, texts: frozenset[tuple[str, str]]
) -> dict[tuple[str, str], Tensor]:
    """Return the features of those texts that an earlier round has encoded: answers repeat where prompts do."""
    from ..reward_model.checkpoint import features_from_bytes

    found: dict[tuple[str, str], Tensor] = {}
    for earlier in _rounds_that_share_prompts(given):
        prompts = {prompt.prompt_id: prompt.text for prompt in given.read_prompt_set()}
        candidates = read_table(finished, CANDIDATES, earlier)
        features = features_from_bytes(finished.read_output(FEATURES.step, FEATURES.name, earlier))
        for candidate, row in zip(candidates, features, strict=True):
            text = (prompts[candidate.prompt_id], candidate.response)
            if text in texts:
                found[text] = row
    return found


def _rounds_that_share_prompts(given: Round) -> Iterator[int]:
    """Yield the newest earlier rounds with a prompt of this one: as many as most prompts are in.

    They follow from the schedule: no round is read for it.
    """
    size, count = given.settings.prompts.rollout_batch_size, len(given.read_prompt_set())
    seed = derive(given.seed, "prompts")
    here = set(prompts_of_round(count, given.number, size, seed))
    shared = (e for e in reversed(range(given.number)) if here.intersection(prompts_of_round(count, e, size, seed)))
    yield from islice(shared, REMEMBERED)
