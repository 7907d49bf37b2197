"""Reports made by hand, and a small ledger that was never run but reads like one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from oatflow.components.evaluation.held_out import HeldOut, sum_up
from oatflow.components.ledger import layout
from oatflow.components.ledger.claim import Claim
from oatflow.components.ledger.done import Done
from oatflow.components.ledger.ledger import Experiment, Head, Ledger, RoundRecord
from oatflow.components.ledger.owner import Owner
from oatflow.components.records.plan import WITHOUT_REWARD_MODEL, Plan, PolicyPointer
from oatflow.components.records.records import Duel, Preference, Prompt, Verdict
from oatflow.components.records.sealed import digest_of, seal_document
from oatflow.components.records.table import to_parquet
from oatflow.components.reporting.curves import Explored, RoundRow, SampledDuel
from oatflow.components.reporting.page import render_report
from oatflow.components.reporting.report import Report
from oatflow.components.store.transfer import Placed

ORACLE = "simulated/vader-3.3.2/T=0.1"
SETTINGS = {
    "labeling": {"max_queries": 9, "preference_oracle": "simulated"},
    "evaluation": {"opponent": "pretrain"},
    "ledger": {"seed": 7},
}


@pytest.fixture(scope="session")
def made_row() -> Callable[..., RoundRow]:
    return _row


@pytest.fixture(scope="session")
def close_rounds() -> Callable[[Ledger], Ledger]:
    return _close_rounds


@pytest.fixture(scope="session")
def made_offline_row() -> Callable[..., RoundRow]:
    return _offline_row


@pytest.fixture(scope="session")
def made_explored_row() -> Callable[..., RoundRow]:
    return _explored_row


@pytest.fixture(scope="session")
def made_answers() -> Callable[..., HeldOut]:
    return _answers


@pytest.fixture(scope="session")
def made_verdict() -> Callable[..., Verdict]:
    return _verdict


@pytest.fixture(scope="session")
def made_duel() -> Callable[..., SampledDuel]:
    return _duel


@pytest.fixture(scope="session")
def made_report() -> Callable[..., Report]:
    return _report


@pytest.fixture(scope="session")
def html() -> str:
    """A report of six rounds."""
    return render_report(_report())


@pytest.fixture
def offline_ledger(ledger: Ledger) -> Ledger:
    """The same rounds, but for their labels, which a preference set gave, and their policies, measured by others."""
    for round_ in (0, 1):
        for room, counts, facts in (
            ("labeling", {"queries": 0, "labels": 3 - round_, "clashes": 0}, {"oracle": "preference set"}),
            ("policy", {"pairs": 3, "held_out_pairs": 4}, {"held_out_accuracy": 0.75, "held_out_margin": 0.1}),
            ("evaluation", {"prompts": 0}, {}),
        ):
            done = ledger.find_done(round_, room)
            ledger.store.put(
                layout.done_key(round_, room), seal_document(replace(done, counts=counts, facts=facts).to_json())
            )
    return _close_rounds(Ledger.open(ledger.store.uri))


@pytest.fixture
def explored_ledger(ledger: Ledger) -> Ledger:
    """The same rounds, but for what they say of their exploration: round 0 has three duels of a regret, round 1 two."""
    for round_, told in enumerate(({"duel_regret": 0.5, "regret_duels": 3}, {"duel_regret": 0.25, "regret_duels": 2})):
        facts = {"sampling": {"synthetic": round_}, "evaluation": {**told, "rm_accuracy": 0.75, "rm_foretold": 4}}
        for room, more in facts.items():
            done = ledger.find_done(round_, room)
            told_too = replace(done, facts={**done.facts, **more})
            ledger.store.put(layout.done_key(round_, room), seal_document(told_too.to_json()))
    return _close_rounds(Ledger.open(ledger.store.uri))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Two finished rounds of three duels (one a clash in round 0; round 1 not evaluated), and a third that is open."""
    ledger = Ledger.open((tmp_path / "first-light").as_uri())
    tables = {split: _written_prompts(ledger, split) for split in ("train", "eval")}
    experiment = Experiment(SETTINGS, "s" * 64, tables, {"train": 0, "eval": 0})
    ledger.write_document(layout.EXPERIMENT, experiment.to_json())
    for round_ in (0, 1):
        _write_plan(ledger, round_)
        for room in WITHOUT_REWARD_MODEL:
            _write_step(ledger, round_, room)
    _close_rounds(ledger)
    _write_step(ledger, 2, "sampling")
    claim = Claim("run-3", Owner("somewhere"), 4, 60.0, 2e9)
    ledger.write_document(layout.claim_key(2), claim.to_json())
    return Ledger.open(ledger.store.uri)


def _close_rounds(ledger: Ledger) -> Ledger:
    """Write the chain of the records of both rounds, as they are now; returns the ledger, opened again."""

    def digest(key: str) -> str:
        return digest_of(ledger.store.get(key).data)

    parent = digest(layout.EXPERIMENT)
    for round_ in (0, 1):
        steps = {room: digest(layout.done_key(round_, room)) for room in WITHOUT_REWARD_MODEL}
        record = RoundRecord(round_, parent, digest(layout.plan_key(round_)), steps)
        ledger.store.put(layout.round_record_key(round_), seal_document(record.to_json()))
        parent = digest(layout.round_record_key(round_))
    ledger.store.put(layout.HEAD, seal_document(asdict(Head(1, parent, 3))))
    return Ledger.open(ledger.store.uri)


def _written_prompts(ledger: Ledger, split: str) -> Placed:
    data = to_parquet([Prompt(f"{split}-{number}", f"{split} prompt {number}") for number in range(4)], Prompt)
    ledger.store.put(f"prompts/{split}.parquet", data)
    return Placed(split, f"prompts/{split}.parquet", len(data), digest_of(data))


def _write_plan(ledger: Ledger, round_: int) -> None:
    prompts = tuple(Prompt(f"p{number}", f"Prompt {number}") for number in range(3))
    plan = Plan(round_, 3, prompts, *[PolicyPointer(round_ - 1, "s" * 64)] * 2, 2 * round_, 9 - 2 * round_)
    ledger.write_document(layout.plan_key(round_), plan.to_json())


def _write_step(ledger: Ledger, round_: int, room: str) -> None:
    outputs = tuple(_written(ledger, round_, room, name, data) for name, data in _outputs(round_)[room].items())
    counts, facts = _measured(round_)[room]
    timings = {"startup": 2.0, "work": 3.0}
    begun = 1000.0 + 100 * round_ + 10 * WITHOUT_REWARD_MODEL.index(room)
    done = Done(
        room, round_, "run-1", 1, {}, outputs, counts, facts, timings, {"oatflow": "0.1.0"}, begun, begun + 5
    )  # fmt: skip
    ledger.write_document(layout.done_key(round_, room), done.to_json())


def _written(ledger: Ledger, round_: int, room: str, name: str, data: bytes) -> Placed:
    key = layout.output_key(round_, room, name)
    ledger.store.put(key, data)
    return Placed(name, key, len(data), digest_of(data))


def _outputs(round_: int) -> dict[str, dict[str, bytes]]:
    samples = [_duel(f"{round_}-{number}", clash=(round_, number) == (0, 2)) for number in range(3)]
    preferences = [sample.preference for sample in samples]
    return {
        "sampling": {"duels.parquet": to_parquet([sample.duel for sample in samples], Duel)},
        "labeling": {
            "preferences-0000.parquet": to_parquet(preferences[:2], Preference),
            "preferences-0001.parquet": to_parquet(preferences[2:], Preference),
        },
        "policy": {"model/model.safetensors": bytes([round_])},
        "evaluation": {"verdicts.parquet": to_parquet([_verdict(f"e{number}") for number in range(4)], Verdict)},
    }


def _measured(round_: int) -> dict[str, tuple[dict[str, int], dict[str, object]]]:
    clashes = 1 - round_
    judged = {"win_rate": 0.75, "low": 0.5, "high": 1.0, "mean_probability": 0.7}
    return {
        "sampling": ({"prompts": 3, "duels": 3, "clashes": clashes, "generated_tokens": 60}, {}),
        "labeling": ({"queries": 3 - clashes, "clashes": clashes}, {"oracle": ORACLE}),
        "policy": ({"pairs": 3 - clashes}, {"loss": 0.6, "reward_margin": 0.2, "accuracy": 1.0, "losses": [0.7, 0.6]}),
        "evaluation": ({"prompts": 4}, judged) if round_ == 0 else ({}, {}),
    }


def _row(round_: int = 0, **given: object) -> RoundRow:
    values = {
        "round": round_, "prompts": 64, "duels": 64, "clashes": 0, "queries": 64, "queries_total": 64 * (round_ + 1),
        "labels": None, "labels_total": None, "pairs": 64, "loss": 0.69,
        "reward_margin": 0.1, "accuracy": 0.6, "win_rate": 0.71, "low": 0.62, "high": 0.79,
        "mean_probability": 0.7, "mean_reward": 0.64, "opponent_mean_reward": 0.35, "held_out": 128,
        "held_out_accuracy": None, "held_out_margin": None, "held_out_pairs": None,
        "generated_tokens": 4533, "seconds": {"sample": (14.0, 7.0), "train": (6.0, 44.5)}, "policy": "a" * 64,
        "digest": "b" * 64, "finished": 1e9,
    }  # fmt: skip
    return RoundRow(**{**values, **given})


def _offline_row(round_: int = 0, **given: object) -> RoundRow:
    """A round that learned from a preference set, and whose policy was measured by the pairs held out alone."""
    nothing = dict.fromkeys(("win_rate", "low", "high", "mean_probability", "mean_reward", "opponent_mean_reward"))
    values = {
        **nothing, "queries": 0, "queries_total": 0, "labels": 64, "labels_total": 64 * (round_ + 1), "held_out": 0,
        "held_out_accuracy": 0.75, "held_out_margin": 0.21, "held_out_pairs": 128, "generated_tokens": 0,
    }  # fmt: skip
    return _row(round_, **{**values, **given})


def _explored_row(round_: int = 0, **given: object) -> RoundRow:
    """A round whose duels an ensemble picked, and in which everything was measured that can be."""
    values = {
        "duel_regret": 0.5, "duel_regret_low": 0.42, "duel_regret_high": 0.58, "regret_duels": 64,
        "regret_total": 32.0 * (round_ + 1), "simple_regret": 0.25, "simple_regret_low": 0.19,
        "simple_regret_high": 0.31, "anytime_regret": 0.25,
        "online_win_rate": 0.55, "online_low": 0.45, "online_high": 0.64, "online_prompts": 64, "rm_accuracy": 0.75,
        "rm_brier": 0.2, "rm_ece": 0.08, "rm_ece_calibrated": 0.07, "rm_foretold": 64,
        "uncertainty_chosen": 0.021, "uncertainty_all": 0.014,
        "synthetic": 0,
    }  # fmt: skip
    return _row(round_, explored=Explored(**{**values, **given}))


def _duel(
    name: str = "d",
    first: str = "Good.",
    second: str = "Bad.",
    first_wins: float = 0.9,
    prompt: str = "Say something.",
    clash: bool = False,
    **told: object,
) -> SampledDuel:
    duel = Duel(name, f"prompt of {name}", prompt, first, second, 0, 1, clash, **told)
    if clash:
        return SampledDuel(duel, Preference(name, duel.prompt_id, True, None, None, None, None, ""))
    chosen = "first" if first_wins > 0.5 else "second"
    if duel.labelled_by_member:
        preference = Preference(
            name, duel.prompt_id, False, duel.member_first_wins, chosen, None, None, "member 7", True
        )
        return SampledDuel(duel, preference)
    return SampledDuel(duel, Preference(name, duel.prompt_id, False, first_wins, chosen, 0.4, -0.1, ORACLE))


def _verdict(
    name: str,
    response: str = "Fine.",
    policy_wins: float = 0.8,
    tokens: int = 3,
    opponent_tokens: int = 2,
    opponent_reward: float | None = None,
) -> Verdict:
    return Verdict(
        name, f"Question {name}?", response, "Meh.", policy_wins, tokens, opponent_tokens, 0.2, opponent_reward
    )


def _answers(wins: int = 70, ties: int = 10, losses: int = 48, longer: int = 4, seed: int = 0) -> HeldOut:
    """Prompts won, tied and lost in this order; lengths that differ by `longer` in the mean, whatever the outcome."""
    won = [0.9] * wins + [0.5] * ties + [0.1] * losses
    spread = (-9, -4, 4, 9)
    verdicts = [
        _verdict(f"e{place}", "Meh." if chance == 0.5 else "Fine.", chance, 20 + longer + spread[place % 4], 20, 0.1)
        for place, chance in enumerate(won)
    ]
    return sum_up(verdicts, seed)


def _report(**given: object) -> Report:
    values = {
        "name": "first-light", "rows": tuple(_row(round_) for round_ in range(6)), "rounds": 6, "budget": 384,
        "oracle": ORACLE, "opponent": "the starting model", "duels": (_duel(),), "verdicts": (_verdict("e0"),),
        "settings": SETTINGS, "software": {"oatflow": "0.1.0"}, "digests": {"HEAD": "c" * 64},
    }  # fmt: skip
    return Report(**{**values, **given})
