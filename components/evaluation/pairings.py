"""A held-out answer against the opponent's, as a duel, and the oracle's preference as a verdict. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ..records.records import Duel, HeldOutAnswer, Preference, Prompt, Verdict, duel_id
from ..seeds import derive

TIE = 0.5
_POLICY, _OPPONENT = 0, 1
Answers = Mapping[str, HeldOutAnswer]
"""Answers by the id of their prompt."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """A held-out prompt with both answers to it."""

    prompt: Prompt
    policy: HeldOutAnswer
    opponent: HeldOutAnswer


def pair_answers(prompts: Sequence[Prompt], policy: Answers, opponent: Answers) -> list[Pairing]:
    """Return each held-out prompt with the policy's and the opponent's answer."""
    return [Pairing(prompt, policy[prompt.prompt_id], opponent[prompt.prompt_id]) for prompt in prompts]


def pair_duels(duels: Sequence[Duel], prompts: Sequence[Prompt], opponent: Answers) -> list[Pairing]:
    """Return both answers of each duel, one after the other, with the opponent's; synthetic duels do not count."""
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    shown = [(duel.prompt_id, text) for duel in duels if not duel.synthetic for text in (duel.first, duel.second)]
    return [Pairing(by_id[name], HeldOutAnswer(name, text, 0), opponent[name]) for name, text in shown]


def make_duel(pairing: Pairing, seed: int) -> Duel:
    """Return a duel of both answers, in random order. Equal texts are a clash.

    The order is drawn once for each prompt and is the same in every round: an answer that training did not change
    makes the same duel again, which costs no query.
    """
    sides = [(pairing.policy.response, _POLICY), (pairing.opponent.response, _OPPONENT)]
    if derive(seed, pairing.prompt.prompt_id, "position") % 2:
        sides.reverse()
    (first, first_side), (second, second_side) = sides
    return Duel(
        duel_id=duel_id(pairing.prompt.text, first, second),
        prompt_id=pairing.prompt.prompt_id,
        prompt=pairing.prompt.text,
        first=first,
        second=second,
        first_candidate=first_side,
        second_candidate=second_side,
        clash=first == second,
    )


def make_verdict(pairing: Pairing, duel: Duel, preference: Preference) -> Verdict:
    """Return the oracle's preference as the policy's chance of winning. A clash is a tie."""
    wins = TIE if preference.first_wins is None else preference.first_wins
    rewards = preference.first_reward, preference.second_reward
    if duel.first_candidate == _OPPONENT:
        wins, rewards = 1 - wins, rewards[::-1]
    return Verdict(
        prompt_id=pairing.prompt.prompt_id,
        prompt=pairing.prompt.text,
        response=pairing.policy.response,
        opponent_response=pairing.opponent.response,
        policy_wins=wins,
        response_tokens=pairing.policy.tokens,
        opponent_tokens=pairing.opponent.tokens,
        reward=rewards[0],
        opponent_reward=rewards[1],
    )


def find_mean(rewards: Iterable[float | None]) -> float | None:
    """Return the mean of the rewards that are known, or None."""
    known = [reward for reward in rewards if reward is not None]
    return fmean(known) if known else None


def is_evaluated(round_: int, every: int, last: bool) -> bool:
    """Return whether a round's policy is measured: after `every` rounds and after the last one; never if that is 0."""
    return every > 0 and (last or (round_ + 1) % every == 0)
