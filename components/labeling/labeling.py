"""The labeling step: duels in, preferences out, the budget kept to the query; offline, the preference set answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from .. import progress
from ..errors import WaitingForLabels
from ..ledger.claim import release_claim
from ..ledger.done import Done
from ..ledger.ledger import Ledger
from ..ledger.owner import process_start
from ..ledger.step import Step
from ..oracles.oracle import Oracle
from ..oracles.settings import HumanSettings
from ..prompts.settings import PromptSettings
from ..records.records import Candidate, Duel, KnownReward, Preference, Side
from ..records.table import from_parquet, to_parquet
from ..seeds import derive
from .asking import Asked, Interview, open_duels, part_name
from .budget import within_budget
from .given import PREFERENCE_SET, given_preference
from .labels import drawn, more_probable, turned
from .queries import count_queries, what_it_took
from .settings import LabelingSettings
from .whom import answered_before, oracle_of, spent_before

PARTS, REWARDS = "preferences", "rewards.parquet"
SPENDING_LIMIT = "spending_limit"
"""The fact that says which limit left duels of a round without an answer."""


def run_labeling(ledger: Ledger, round_: int, run: str) -> Done:
    """Ask the oracle about the round's duels, in batches that are durable one by one.

    A killed attempt's batches are adopted, and not asked again. Duels beyond the budget get no preference. Offline,
    nobody is asked. Raises `WaitingForLabels` where people are asked and have not answered yet.
    """
    with ledger.step(round_, "labeling", run) as step:
        if step.done is not None:
            return step.done
        if ledger.section(PromptSettings, "prompts").offline:
            return read_labels(step)
        settings = ledger.section(LabelingSettings, "labeling")
        begun = time.time()
        duels = from_parquet(step.read_output("sampling", "duels.parquet"), Duel, "duels.parquet")
        known = answered_before(step, duels)
        affordable = within_budget(duels, ledger.plan(round_).queries_left, known)
        oracle, facts = open_for(step, settings, open_duels(affordable.duels, known))
        interview = Interview(
            oracle,
            settings.oracle_batch_size,
            labeler(settings, ledger.seed, round_),
            settings.unreadable_limit,
            spent_before(ledger, round_) if oracle.purse else 0.0,
        )
        asked = interview.conduct(step, PARTS, affordable.duels, known, _tell(round_, len(affordable.duels)))
        note_known_rewards(step, oracle)
        return step.mark_done(
            counts={
                "duels": len(duels),
                "clashes": sum(duel.clash for duel in duels),
                "over_budget": len(duels) - len(affordable.duels),
                "first_chosen": sum(preference.chosen == "first" for preference in asked.preferences),
                **count_queries(asked.receipts, asked.preferences, known),
            },
            timings={"startup": begun - process_start(), "ask": asked.seconds, "work": time.time() - begun},
            facts={"oracle": oracle.identity, **what_it_took(asked.receipts), **_limit_reached(oracle, asked), **facts},
        )


def label_or_wait(ledger: Ledger, round_: int, run: str) -> bool:
    """Run the labeling step; False where people have not answered yet: then the round is anybody's to carry on."""
    try:
        run_labeling(ledger, round_, run)
    except WaitingForLabels as waiting:
        print(waiting, flush=True)
        release_claim(ledger.store, round_, run)
        return False
    return True


def open_for(step: Step, settings: LabelingSettings, duels: Sequence[Duel]) -> tuple[Oracle, Mapping[str, float]]:
    """Open the oracle that answers these duels, and return what is known of it as a whole: how far people agree."""
    if settings.preference_oracle != "human":
        return oracle_of(step.ledger, "labeling", step.round), {}
    from ..oracles.agreement import agreement_facts
    from ..oracles.human import HumanOracle
    from .people import collect_answers

    people = step.ledger.section(HumanSettings, "human")
    answers = collect_answers(step, duels, people)
    return HumanOracle(people, answers), agreement_facts(answers, derive(step.ledger.seed, step.round, "agreement"))


def read_labels(step: Step) -> Done:
    """Take the labels of the round's duels from the preference set: `labels` counts them, and no query is made."""
    begun = time.time()
    duels = from_parquet(step.read_output("sampling", "duels.parquet"), Duel, "duels.parquet")
    preferences = [given_preference(duel) for duel in duels]
    step.write_output(part_name(PARTS, 0), to_parquet(preferences, Preference))
    clashes = sum(preference.clash for preference in preferences)
    return step.mark_done(
        counts={
            "duels": len(duels),
            "queries": 0,
            "labels": len(duels) - clashes,
            "clashes": clashes,
            "first_chosen": sum(preference.chosen == "first" for preference in preferences),
        },
        timings={"startup": begun - process_start(), "ask": 0.0, "work": time.time() - begun},
        facts={"oracle": PREFERENCE_SET},
    )


def note_known_rewards(step: Step, oracle: Oracle) -> None:
    """Write the rewards of all candidates, where the oracle's reward is known: no query, and nothing to learn from."""
    if oracle.known_reward is None:
        return
    prompts = {prompt.prompt_id: prompt.text for prompt in step.ledger.plan(step.round).prompts}
    candidates = from_parquet(step.read_output("sampling", "candidates.parquet"), Candidate, "candidates.parquet")
    rewards = [
        KnownReward(row.prompt_id, row.candidate, oracle.known_reward(prompts[row.prompt_id], row.response))
        for row in candidates
    ]
    step.write_output(REWARDS, to_parquet(rewards, KnownReward))


def labeler(settings: LabelingSettings, seed: int, round_: int) -> Callable[[Duel, float], Side]:
    """Choose how a probability becomes a label: drawn, or the likelier side; then turned round by noise.

    Every draw has a seed of its own, of the round and the duel.
    """

    def label(duel: Duel, first_wins: float) -> Side:
        if settings.bt_sample:
            side = drawn(first_wins, derive(seed, round_, duel.duel_id, "label"))
        else:
            side = more_probable(first_wins)
        if settings.preference_flip_prob:
            side = turned(side, settings.preference_flip_prob, derive(seed, round_, duel.duel_id, "flip"))
        return side

    return label


def _limit_reached(oracle: Oracle, asked: Asked) -> Mapping[str, float]:
    """Return the spending limit, where it left duels without an answer."""
    limit = oracle.purse.limit if oracle.purse else None
    unpaid = any(not row.oracle and not row.clash for row in asked.preferences)
    return {SPENDING_LIMIT: limit} if unpaid and limit is not None else {}


def _tell(round_: int, of: int) -> Callable[[int], None]:
    return lambda done: progress.tell("label", round_, "work", done=done, of=of)
