"""The step of the reward model's room: the ensemble learns from the round's duels, and from those in its buffer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from ..ledger.done import Done
from ..ledger.ledger import Ledger
from ..ledger.owner import process_start
from ..ledger.step import Step
from ..records.records import Candidate, Duel, Preference
from ..records.table import from_parquet, from_parts
from ..seeds import derive
from .beliefs import ENSEMBLE, FEATURES, OUTSIDE_FEATURES, ensemble_before
from .checkpoint import features_from_bytes, replay_from_bytes, replay_to_bytes, to_bytes
from .fitting import fit
from .replay import Replay
from .settings import RewardModelSettings

PAIRS = "pairs.safetensors"


def run_fit(ledger: Ledger, round_: int, run: str) -> Done:
    """Fit the ensemble, or adopt what is done. Synthetic pairs and clashes are kept out of what it learns from."""
    with ledger.step(round_, "reward_model", run) as step:
        if step.done is not None:
            return step.done
        begun = time.time()
        settings = ledger.section(RewardModelSettings, "reward_model")
        new = replay_from_bytes(step.write_output(PAIRS, replay_to_bytes(with_outside(step, read_pairs(step)))))
        replay = replay_before(step, new, settings.r_buffer_maxlen)
        before = ensemble_before(ledger, step, round_, new.chosen.shape[1])
        queries = queries_so_far(ledger, round_)
        after, learned = fit(before, replay, settings, queries, derive(ledger.seed, round_, "fit"))
        step.write_output(ENSEMBLE, to_bytes(after))
        return step.mark_done(
            counts={"pairs": int(new.kept.sum()), "left_out": int((~new.kept).sum()), "buffer": len(replay)},
            timings={"startup": begun - process_start(), "work": time.time() - begun},
            facts={f"rm_{name}": value for name, value in asdict(learned).items()} if learned else {},
        )


def read_pairs(step: Step) -> Replay:
    """Return the features of the round's chosen and rejected answers, one row for each preference."""
    duels = {
        row.duel_id: row for row in from_parquet(step.read_output("sampling", "duels.parquet"), Duel, "duels.parquet")
    }
    candidates = from_parquet(step.read_output("sampling", "candidates.parquet"), Candidate, "candidates.parquet")
    place = {(row.prompt_id, row.response): number for number, row in enumerate(candidates)}
    features = features_from_bytes(step.read_output("sampling", FEATURES))
    preferences = _preferences(step)
    sides = [_sides(duels[row.duel_id], row) for row in preferences]
    chosen = [place[row.prompt_id, winner] for row, (winner, _) in zip(preferences, sides, strict=True)]
    rejected = [place[row.prompt_id, loser] for row, (_, loser) in zip(preferences, sides, strict=True)]
    kept = torch.tensor([is_learned_from(row) for row in preferences], dtype=torch.bool)
    return Replay(_rows(features, chosen), _rows(features, rejected), kept)


def with_outside(step: Step, own: Replay) -> Replay:
    """Return a round's duels behind the preferences made elsewhere that it learns from, if there are any."""
    rows = step.ledger.plan(step.round).outside
    if not rows:
        return own
    chosen, rejected = features_from_bytes(step.read_output("sampling", OUTSIDE_FEATURES)).chunk(2)
    kept = torch.tensor([row.chosen != row.rejected for row in rows], dtype=torch.bool)
    return Replay(chosen, rejected, kept).extended(own, len(rows) + len(own))


def is_learned_from(preference: Preference) -> bool:
    """Whether the oracle's label of a pair tells the ensemble something that is not its own opinion."""
    return preference.chosen is not None and not preference.synthetic


def replay_before(step: Step, new: Replay, maxlen: int) -> Replay:
    """Return the buffer: the round's rows behind those of the rounds before, as far back as it reaches."""
    replay = Replay.empty(new.chosen.shape[1]).extended(new, maxlen)
    for earlier in reversed(range(step.round)):
        if len(replay) == maxlen:
            break
        replay = replay_from_bytes(step.read_output("reward_model", PAIRS, round_=earlier)).extended(replay, maxlen)
    return replay


def queries_so_far(ledger: Ledger, round_: int) -> int:
    """Count the queries up to the end of a round's labeling."""
    done = ledger.done(round_, "labeling")
    return ledger.plan(round_).queries_spent + (done.counts["queries"] if done else 0)


def _preferences(step: Step) -> list[Preference]:
    return from_parts(step.read_parts("labeling", "preferences"), Preference, "preferences")


def _sides(duel: Duel, preference: Preference) -> tuple[str, str]:
    """Return the texts of the chosen and of the rejected answer; of a clash, both are one."""
    first_chosen = preference.chosen != "second"
    return (duel.first, duel.second) if first_chosen else (duel.second, duel.first)


def _rows(features: Tensor, places: Sequence[int]) -> Tensor:
    return features[torch.tensor(places, dtype=torch.int64)]
