"""What earlier rounds found out, and this one need not pay for or compute again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..evaluation.answering import reference_answers
from ..evaluation.pairings import Answers, find_opponent_answer
from ..labeling.asking import answers_of
from ..prompts.schedule import prompts_of_round
from ..records.keep import FinishedSteps, read_table
from ..records.records import Duel, Preference
from ..records.tables import CANDIDATES, ENSEMBLE, FEATURES, PAIR_FEATURES, PREFERENCES, VERDICTS, Table
from ..seeds import derive

if TYPE_CHECKING:
    from torch import Tensor

    from ..reward_model.fitting import Ensemble
    from ..reward_model.replay import Replay
    from .inputs import Round, Tools


def answered_before(given: Round, finished: FinishedSteps, duels: Sequence[Duel]) -> dict[str, Preference]:
    """Return what the oracle said of these duels in earlier rounds: possible only if prompts are repeated."""
    if not given.number:
        return {}
    texts = [prompt.text for prompt in given.read_prompt_set()]
    size = given.settings.prompts.rollout_batch_size
    if (given.number + 1) * size <= len(texts) == len(set(texts)):
        return {}
    return earlier_answers(finished, PREFERENCES, range(given.number), duels)


def earlier_answers(
    finished: FinishedSteps, table: Table[Preference], rounds: Sequence[int], duels: Iterable[Duel]
) -> dict[str, Preference]:
    """Return the oracle's answers to these duels in a table of those rounds, by the duel's id."""
    wanted = {duel.duel_id for duel in duels}
    found: dict[str, Preference] = {}
    # The newest first: an answer that has not changed is in the round before.
    for round_ in reversed(rounds):
        if not wanted:
            break
        rows = answers_of(read_table(finished, table, round_, as_input=False))
        if useful := {name: row for name, row in rows.items() if name in wanted}:
            read_table(finished, table, round_)
            found |= useful
            wanted -= useful.keys()
    return found


def opponent_answers(given: Round, tools: Tools, finished: FinishedSteps, past: int | None) -> Answers:
    """Return the opponent's answers to the held-out prompts, if it did not answer in this round.

    The starting model has answered in the first round that was measured; `past` is the last one. Any other opponent is
    the prompt set itself.
    """
    if given.settings.evaluation.opponent != "pretrain":
        return reference_answers(given.read_held_out(), tools.load_tokenizer())
    assert past is not None, "the opponent answers in the first round that is measured"
    return {row.prompt_id: find_opponent_answer(row) for row in read_table(finished, VERDICTS, past)}


def spent_before(finished: FinishedSteps, round_: int) -> float:
    """Add up what the oracle has cost: in earlier rounds, and in the finished steps of this one."""
    steps = [(each, step) for each in range(round_ + 1) for step in ("labeling", "evaluation")]
    reports = [finished.read_report(step, each) for each, step in steps]
    return sum(float(report.facts.get("cost", 0.0)) for report in reports if report)


def ensemble_before(given: Round, finished: FinishedSteps, features: int) -> Ensemble:
    """Return the ensemble as the round before left it; before the first round, its seeded initial weights."""
    from ..reward_model import checkpoint, fitting

    if given.number == 0:
        return fitting.start_ensemble(given.settings.reward_model, features, derive(given.seed, "reward model"))
    return checkpoint.from_bytes(finished.read_output(ENSEMBLE.step, ENSEMBLE.name, given.number - 1))


def replay_buffer(finished: FinishedSteps, round_: int, new: Replay, maxlen: int) -> Replay:
    """Return the newest `maxlen` pairs: the round's own behind those of the rounds before."""
    from ..reward_model.checkpoint import replay_from_bytes
    from ..reward_model.replay import Replay

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
    """Yield earlier rounds with a prompt of this one. They follow from the schedule: no round is read for it."""
    if not given.number:
        return
    size, count = given.settings.prompts.rollout_batch_size, len(given.read_prompt_set())
    seed = derive(given.seed, "prompts")
    here = set(prompts_of_round(count, given.number, size, seed))
    for earlier in range(given.number):
        if here.intersection(prompts_of_round(count, earlier, size, seed)):
            yield earlier
