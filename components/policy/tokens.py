"""From preferences to pairs of token sequences, and from pairs to the steps and passes in which they are learned.

A completion is exactly the tokens that the policy sampled, so the border between prompt and completion is exact, and an
end-of-sequence token is learned only where the answer ended by itself.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import RecordError
from ..records.records import OF_REFERENCE, Candidate, Duel, Preference
from .schedule import Leftover, count_steps


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference in tokens. `of_reference`: in XPO, the completion that the reference drew; else None."""

    duel_id: str
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    of_reference: Literal["chosen", "rejected"] | None = None

    @property
    def length(self) -> int:
        """Tokens of the prompt and of both completions."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def is_identical(self) -> bool:
        """Whether both completions are the same, so that there is nothing to prefer: a clash."""
        return self.chosen == self.rejected

    @property
    def pair_id(self) -> str:
        """Name the pair by its tokens."""
        return hashlib.sha256(repr((self.prompt, self.chosen, self.rejected)).encode()).hexdigest()[:24]


def make_pairs(
    preferences: Sequence[Preference],
    duels: Sequence[Duel],
    candidates: Sequence[Candidate],
    prompts: Mapping[str, Sequence[int]],
    longest: int | None = None,
    invented_end: int | None = None,
    from_reference: bool = False,
) -> list[Pair]:
    """Return a pair for each preference, in their order; a clash makes one of identical, empty completions.

    Args:
        preferences: The labels of a round.
        duels: The duels that the labels are for.
        candidates: The candidates that competed.
        prompts: Each prompt's tokens by its id.
        longest: Most tokens of a prompt with one completion; a longer completion loses its end.
        invented_end: The token that a completion gets at its end where it was cut off, by sampling or here (as in
            Oat); None invents nothing.
        from_reference: Whether the reference drew the candidate of number OF_REFERENCE in every duel.

    Raises:
        RecordError: A completion has no token to learn from, or a prompt has not as many tokens as when its answers
            were sampled.
    """
    drawn = {(candidate.prompt_id, candidate.candidate): candidate for candidate in candidates}
    by_id = {duel.duel_id: duel for duel in duels}
    pairs = []
    for preference in preferences:
        duel = by_id[preference.duel_id]
        prompt = tuple(prompts[duel.prompt_id])
        if preference.chosen is None:
            pairs.append(Pair(duel.duel_id, prompt, (), ()))
            continue
        free = None if longest is None else longest - len(prompt)
        first, second = (
            _cut_completion(drawn[duel.prompt_id, number], prompt, free, invented_end, duel)
            for number in (duel.first_candidate, duel.second_candidate)
        )
        chosen, rejected = (first, second) if preference.chosen == "first" else (second, first)
        side = _find_reference_side(duel, preference) if from_reference else None
        pairs.append(Pair(duel.duel_id, prompt, chosen, rejected, side))
    return pairs


def optimisation_steps(
    pairs: Sequence[Pair], batch_size: int, seeds: Sequence[int], leftover: Leftover = "spread"
) -> Iterator[list[Pair]]:
    """Cut the pairs into optimisation steps: one pass over all of them for each seed, shuffled by it.

    Pairs that do not fill a step are spread over all steps of the pass, or are a smaller step of their own: Adam moves
    the weights about as far for one pair as for a whole batch. Steps that hold only clashes are skipped.
    """
    number = count_steps(len(pairs), batch_size, leftover)
    ends = [
        len(pairs) * step // max(1, number) if leftover == "spread" else min(step * batch_size, len(pairs))
        for step in range(number + 1)
    ]
    for seed in seeds:
        order = list(pairs)
        random.Random(seed).shuffle(order)
        for start, end in itertools.pairwise(ends):
            step = order[start:end]
            if not all(pair.is_identical for pair in step):
                yield step


def forward_passes(step: Sequence[Pair], size: int, rank: int, world: int) -> list[list[Pair]]:
    """Cut a step into one rank's forward passes of at most `size` pairs; every rank makes the same number.

    Pairs of similar length go together, for little padding. A rank may get an empty pass: it still takes part in the
    communication of all ranks.
    """
    by_length = sorted(step, key=lambda pair: (pair.length, pair.duel_id))
    rounds = -(-len(by_length) // (size * world))
    cuts = [len(by_length) * cut // (rounds * world) for cut in range(rounds * world + 1)]
    passes = [by_length[start:end] for start, end in itertools.pairwise(cuts)]
    return passes[rank::world]


def fit_completion(tokens: tuple[int, ...], free: int | None, invented_end: int | None) -> tuple[int, ...]:
    """Cut a completion to `free` tokens; where it does not end by itself, it may get an invented end."""
    kept = tokens if free is None else tokens[: max(0, free)]
    if invented_end is None or not kept or kept[-1] == invented_end:
        return kept
    return (*kept, invented_end) if free is None or len(kept) < free else (*kept[:-1], invented_end)


def _find_reference_side(duel: Duel, preference: Preference) -> Literal["chosen", "rejected"]:
    side = "first" if duel.first_candidate == OF_REFERENCE else "second"
    return "chosen" if preference.chosen == side else "rejected"


def _cut_completion(
    candidate: Candidate, prompt: tuple[int, ...], free: int | None, invented_end: int | None, duel: Duel
) -> tuple[int, ...]:
    if candidate.prompt_tokens != len(prompt):
        raise RecordError(
            f"duel {duel.duel_id}: its prompt has {len(prompt)} tokens here, and had {candidate.prompt_tokens} when it "
            "was sampled; sample and train with one tokenizer and one chat template"
        )
    kept = fit_completion(candidate.tokens, free, invented_end)
    if not kept:
        raise RecordError(f"duel {duel.duel_id}: candidate {candidate.candidate} has no token to learn from")
    return kept
