"""From candidates to duels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..records.records import Candidate, Duel, Prompt, duel_id
from .strategies import Strategy


def pick_duels(
    prompts: Iterable[Prompt], candidates: Sequence[Candidate], strategy: Strategy, swap: Callable[[str], bool]
) -> list[Duel]:
    """Return one duel a prompt, in the order of the candidates, which lie together by prompt.

    `swap` says for a prompt id whether the two change places: chance, so that the position carries no information.
    """
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    duels = []
    for drawn in _by_prompt(candidates):
        prompt_id = drawn[0].prompt_id
        first, second = (drawn[index] for index in strategy(len(drawn)))
        duels.append(_duel(by_id[prompt_id], *((second, first) if swap(prompt_id) else (first, second))))
    return duels


def _by_prompt(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Put the candidates of a prompt together. Their numbers begin at 0, also where a prompt comes twice in a row."""
    groups: list[list[Candidate]] = []
    for candidate in candidates:
        if candidate.candidate == 0:
            groups.append([])
        groups[-1].append(candidate)
    return groups


def _duel(prompt: Prompt, first: Candidate, second: Candidate) -> Duel:
    return Duel(
        duel_id=duel_id(prompt.text, first.response, second.response),
        prompt_id=prompt.prompt_id,
        prompt=prompt.text,
        first=first.response,
        second=second.response,
        first_candidate=first.candidate,
        second_candidate=second.candidate,
        clash=first.response == second.response,
    )
