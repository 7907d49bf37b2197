"""From candidates to duels: pick two candidates of each prompt, and draw their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..records.records import Candidate, Duel, Prompt, duel_id
from .settings import ExplorationSettings

Chance = Callable[[str, str], int]
"""A seed for a prompt's id and a purpose."""


@dataclass(frozen=True, slots=True)
class Pick:
    """Two of a prompt's candidates by their numbers; the other fields are those of `Duel`."""

    first: int
    second: int
    strategy: str
    synthetic: bool | None = None
    member: int | None = None
    member_first_wins: float | None = None
    predicted: float | None = None
    uncertainty: float | None = None
    recommended: int | None = None


def group_by_prompt(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Group candidates by prompt. Each group begins with candidate 0, even if a prompt comes twice in a row."""
    groups: list[list[Candidate]] = []
    for candidate in candidates:
        if candidate.candidate == 0:
            groups.append([])
        groups[-1].append(candidate)
    return groups


def pair_first_two(drawn: Sequence[Candidate], settings: ExplorationSettings, chance: Chance) -> Pick | None:
    """Pick the first two candidates, which are independent draws, and handle a clash as `on_clash` says.

    A redraw takes the next candidate with another text. Returns None for no duel.
    """
    assert len(drawn) >= 2, f"{len(drawn)} candidates cannot duel"
    first, second = drawn[0], drawn[1]
    if first.response == second.response and settings.on_clash != "keep":
        others = [candidate for candidate in drawn if candidate.response != first.response]
        if settings.on_clash == "skip":
            return None
        if others:
            number = chance(first.prompt_id, "clash") % len(others) if settings.on_clash == "random" else 0
            second = others[number]
    return Pick(first.candidate, second.candidate, settings.exp_method)


def pick_first_two(
    groups: Sequence[Sequence[Candidate]], settings: ExplorationSettings, chance: Chance
) -> list[Pick | None]:
    """Let the first two candidates of each prompt duel: two draws of the policy, or one and one of the reference."""
    return [pair_first_two(drawn, settings, chance) for drawn in groups]


def make_duels(
    prompts: Iterable[Prompt], groups: Sequence[Sequence[Candidate]], picks: Sequence[Pick | None], chance: Chance
) -> list[Duel]:
    """Return a duel for each pick. The order of its two candidates is random, so that it carries no information."""
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    duels = []
    for drawn, pick in zip(groups, picks, strict=True):
        if pick is not None:
            prompt = by_id[drawn[0].prompt_id]
            swap = bool(chance(prompt.prompt_id, "order") & 1)
            duels.append(_make_duel(prompt, drawn[pick.first], drawn[pick.second], pick, swap))
    return duels


def _make_duel(prompt: Prompt, first: Candidate, second: Candidate, pick: Pick, swap: bool) -> Duel:
    if swap:
        first, second = second, first
    return Duel(
        duel_id=duel_id(prompt.text, first.response, second.response),
        prompt_id=prompt.prompt_id,
        prompt=prompt.text,
        first=first.response,
        second=second.response,
        first_candidate=first.candidate,
        second_candidate=second.candidate,
        clash=first.response == second.response,
        strategy=pick.strategy,
        synthetic=pick.synthetic,
        member=pick.member,
        member_first_wins=_swap_probability(pick.member_first_wins, swap),
        predicted=_swap_probability(pick.predicted, swap),
        uncertainty=pick.uncertainty,
        recommended=pick.recommended,
    )


def _swap_probability(first_wins: float | None, swap: bool) -> float | None:
    return 1 - first_wins if swap and first_wins is not None else first_wins
