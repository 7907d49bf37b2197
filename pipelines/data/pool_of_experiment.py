"""`oatflow pool`: an experiment's candidates with their features and known rewards, to simulate strategies on."""

from __future__ import annotations

import numpy as np
from oatflow.components.errors import RefusedInput
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.records.records import Candidate, KnownReward
from oatflow.components.records.table import from_parquet
from oatflow.components.records.tables import FEATURES
from oatflow.components.reward_model.checkpoint import features_from_bytes
from oatflow.components.simulator.pool import Pool


def pool_of(ledger: Ledger) -> Pool:
    """Gather the candidates of all finished rounds. Raises `RefusedInput` where features or rewards are not known."""
    rounds = range(ledger.read_head().round + 1)
    features = [
        features_from_bytes(_read_output(ledger, round_, "sampling", FEATURES.name)).numpy() for round_ in rounds
    ]
    rewards = [_read_rewards(ledger, round_) for round_ in rounds]
    samples = int(ledger.experiment.settings["sampling"]["num_samples"])
    together = np.concatenate(features).astype(np.float32)
    return Pool(
        together.reshape(-1, samples, together.shape[1]),
        np.concatenate(rewards).astype(np.float32).reshape(-1, samples),
        f"rounds 0 to {rounds[-1]} of experiment {ledger.name!r}, rewards of {_find_oracle(ledger, rounds[-1])}",
    )


def _read_rewards(ledger: Ledger, round_: int) -> list[float]:
    """Return the known rewards of a round's candidates, in their order."""
    rows = from_parquet(_read_output(ledger, round_, "labeling", "rewards.parquet"), KnownReward, "rewards.parquet")
    data = ledger.read_output("sampling", "candidates.parquet", round_)
    candidates = from_parquet(data, Candidate, "candidates.parquet")
    assert [(row.prompt_id, row.candidate) for row in rows] == [(row.prompt_id, row.candidate) for row in candidates]
    return [row.reward for row in rows]


def _read_output(ledger: Ledger, round_: int, room: str, name: str) -> bytes:
    done = ledger.find_done(round_, room)
    if done is None or done.find_output(name) is None:
        raise RefusedInput(
            f"round {round_} has no {name}: a pool is made of an experiment that learned a reward model (learn_rm, or "
            "a strategy such as EnnBAITS) and whose oracle's reward is known"
        )
    return ledger.read_output(room, name, round_)


def _find_oracle(ledger: Ledger, round_: int) -> str:
    done = ledger.find_done(round_, "labeling")
    return str(done.facts["oracle"]) if done else ""
