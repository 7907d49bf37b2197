"""From an oracle's probability to a label. Pure; an answer that is no probability never becomes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite

from ..errors import OracleError
from ..oracles.oracle import Answer
from ..records.records import MEMBER, Duel, Preference, Side
from ..seeds import derive
from .settings import LabelingSettings


def choose_labeler(settings: LabelingSettings, seed: int, round_: int) -> Callable[[Duel, float], Side]:
    """Return the function that turns a duel's probability into its label, as the settings say.

    The label is drawn from the probability, or it is the more probable side; then noise may flip it. Every draw has a
    seed of its own, which derives from the experiment's seed, the round and the duel.
    """

    def label(duel: Duel, first_wins: float) -> Side:
        if settings.bt_sample:
            side = draw_label(first_wins, derive(seed, round_, duel.duel_id, "label"))
        else:
            side = pick_likelier(first_wins)
        if settings.preference_flip_prob:
            side = flip_label(side, settings.preference_flip_prob, derive(seed, round_, duel.duel_id, "flip"))
        return side

    return label


def pick_likelier(first_wins: float) -> Side:
    """Label a duel by its likelier winner. Where ties are not undecided, 0.5 goes to the second, as in Oat."""
    return "first" if first_wins > 0.5 else "second"


def draw_label(first_wins: float, seed: int) -> Side:
    """Draw a label from the probability (Bernoulli). `seed`: an integer in [0, 2**63), as `seeds.derive` gives it."""
    # The upper 53 bits fill a float exactly, so that a probability of 1 always wins and one of 0 never does.
    return "first" if (seed >> 10) / 2**53 < first_wins else "second"


def flip_label(label: Side, probability: float, seed: int) -> Side:
    """Turn a label round with that probability: noise, as of an oracle that errs. `seed`: see `drawn`."""
    other: Side = "second" if label == "first" else "first"
    return other if draw_label(probability, seed) == "first" else label


def clash_preference(duel: Duel) -> Preference:
    """Return what is known of a duel of equal texts: nothing, and nobody was asked."""
    return Preference(duel.duel_id, duel.prompt_id, True, None, None, None, None, "")


def unasked_preference(duel: Duel) -> Preference:
    """Return what is known of a duel that could not be paid for: nothing, and nobody was asked."""
    return Preference(duel.duel_id, duel.prompt_id, False, None, None, None, None, "")


def member_preference(duel: Duel) -> Preference:
    """Return the label that a member of the ensemble gives to the pair that it proposed; nobody is asked."""
    assert duel.member_first_wins is not None
    chosen = pick_likelier(duel.member_first_wins)
    return Preference(
        duel.duel_id, duel.prompt_id, False, duel.member_first_wins, chosen, None, None, f"{MEMBER}{duel.member}", True
    )


def keep_believable(answers: Sequence[Answer], duels: Sequence[Duel]) -> dict[str, Answer]:
    """Return by duel the answers that can be believed; of a number that is not that of the duels, none."""
    if len(answers) != len(duels):
        return {}
    return {duel.duel_id: answer for duel, answer in zip(duels, answers, strict=True) if _find_problem(answer) is None}


def check_answers(answers: Sequence[Answer], duels: Sequence[Duel], oracle: str) -> Sequence[Answer]:
    """Return the answers if there is one for every duel and each can be believed; raises `OracleError` otherwise."""
    if len(answers) != len(duels):
        left = "".join(f"; the first without one is duel {duel.duel_id}" for duel in duels[len(answers) :][:1])
        raise OracleError(f"oracle {oracle}: {len(answers)} answers to {len(duels)} duels{left}")
    for duel, answer in zip(duels, answers, strict=True):
        problem = _find_problem(answer)
        if problem:
            raise OracleError(
                f"oracle {oracle}: duel {duel.duel_id} (prompt {duel.prompt_id}): {problem}. "
                "The others of this batch are kept: mend the oracle and start again, nothing is asked twice"
            )
    return answers


def _find_problem(answer: Answer) -> str | None:
    if answer.first_wins is not None and not (_is_number(answer.first_wins) and 0 <= answer.first_wins <= 1):
        return f"first_wins={answer.first_wins!r} is not a probability in [0, 1]"
    for name in ("first_reward", "second_reward"):
        reward = getattr(answer, name)
        if reward is not None and not _is_number(reward):
            return f"{name}={reward!r} is not a finite number"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and isfinite(value)
