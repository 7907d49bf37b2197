"""The labeling step: duels in, preferences out, the budget kept to the query; offline, the preference set answers."""

from __future__ import annotations

import time
from collections.abc import Callable

from .. import progress
from ..ledger.done import Done
from ..ledger.ledger import Ledger
from ..ledger.owner import process_start
from ..ledger.step import Step
from ..prompts.settings import PromptSettings
from ..records.records import Candidate, Duel, KnownReward, Preference, Side
from ..records.table import from_parquet, to_parquet
from ..seeds import derive
from .asking import Interview, part_name
from .budget import within_budget
from .given import PREFERENCE_SET, given_preference
from .labels import drawn, more_probable
from .oracle import Oracle, open_oracle
from .settings import LabelingSettings

PARTS, REWARDS = "preferences", "rewards.parquet"


def run_labeling(ledger: Ledger, round_: int, run: str) -> Done:
    """Ask the oracle about the round's duels, in batches that are durable one by one.

    A killed attempt's batches are adopted, and not asked again. Duels beyond the budget get no preference. Offline,
    nobody is asked.
    """
    with ledger.step(round_, "labeling", run) as step:
        if step.done is not None:
            return step.done
        if ledger.section(PromptSettings, "prompts").offline:
            return read_labels(step)
        settings = ledger.section(LabelingSettings, "labeling")
        label = labeler(settings.bt_sample, ledger.seed, round_)
        interview = Interview(open_oracle(settings), settings.oracle_batch_size, label)
        begun = time.time()
        duels = from_parquet(step.read("sampling", "duels.parquet"), Duel, "duels.parquet")
        affordable = within_budget(duels, ledger.plan(round_).queries_left)
        asked = interview.conduct(step, PARTS, affordable.duels, {}, _tell(round_, len(affordable.duels)))
        note_known_rewards(step, interview.oracle)
        return step.finish(
            counts={
                "duels": len(duels),
                "queries": affordable.queries,
                "clashes": sum(duel.clash for duel in duels),
                "over_budget": len(duels) - len(affordable.duels),
                "first_chosen": sum(preference.chosen == "first" for preference in asked.preferences),
            },
            timings={"startup": begun - process_start(), "ask": asked.seconds, "work": time.time() - begun},
            facts={"oracle": interview.oracle.identity},
        )


def read_labels(step: Step) -> Done:
    """Take the labels of the round's duels from the preference set: `labels` counts them, and no query is made."""
    begun = time.time()
    duels = from_parquet(step.read("sampling", "duels.parquet"), Duel, "duels.parquet")
    preferences = [given_preference(duel) for duel in duels]
    step.write(part_name(PARTS, 0), to_parquet(preferences, Preference))
    clashes = sum(preference.clash for preference in preferences)
    return step.finish(
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
    candidates = from_parquet(step.read("sampling", "candidates.parquet"), Candidate, "candidates.parquet")
    rewards = [
        KnownReward(row.prompt_id, row.candidate, oracle.known_reward(prompts[row.prompt_id], row.response))
        for row in candidates
    ]
    step.write(REWARDS, to_parquet(rewards, KnownReward))


def labeler(bt_sample: bool, seed: int, round_: int) -> Callable[[Duel, float], Side]:
    """Choose how a probability becomes a label: drawn with a seed of its own for every duel, or the likelier side."""
    if not bt_sample:
        return lambda duel, first_wins: more_probable(first_wins)
    return lambda duel, first_wins: drawn(first_wins, derive(seed, round_, duel.duel_id, "label"))


def _tell(round_: int, of: int) -> Callable[[int], None]:
    return lambda done: progress.tell("label", round_, "work", done=done, of=of)
