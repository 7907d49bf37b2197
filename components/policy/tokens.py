"""From preferences to pairs of token sequences, and from pairs to the steps and passes in which they are learned.

A completion is the very tokens that the policy sampled, so the border between prompt and completion is exact, and an
end-of-sequence token is learned where the answer ended by itself and nowhere else.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import RecordError
from ..records.records import Candidate, Duel, Preference


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference in tokens."""

    duel_id: str
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of the prompt and of both completions."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


def make_pairs(
    preferences: Sequence[Preference],
    duels: Sequence[Duel],
    candidates: Sequence[Candidate],
    prompts: Mapping[str, Sequence[int]],
    longest: int | None = None,
) -> list[Pair]:
    """Return a pair for each labelled preference, in their order; a clash has no label and makes none.

    `prompts`: each prompt's tokens by its id. `longest`: most tokens of a prompt with one completion; what is beyond
    is cut off at the completion's end. Raises `RecordError` where a completion has no token to learn from, or where
    the prompt's tokens are not as many as it was sampled with.
    """
    drawn = {(candidate.prompt_id, candidate.candidate): candidate for candidate in candidates}
    by_id = {duel.duel_id: duel for duel in duels}
    labelled = [preference for preference in preferences if preference.chosen is not None]
    pairs = []
    for preference in labelled:
        duel = by_id[preference.duel_id]
        prompt = tuple(prompts[duel.prompt_id])
        first, second = (
            _completion(drawn[duel.prompt_id, number], prompt, longest, duel)
            for number in (duel.first_candidate, duel.second_candidate)
        )
        chosen, rejected = (first, second) if preference.chosen == "first" else (second, first)
        pairs.append(Pair(duel.duel_id, prompt, chosen, rejected))
    return pairs


def optimisation_steps(pairs: Sequence[Pair], batch_size: int, seeds: Sequence[int]) -> Iterator[list[Pair]]:
    """Cut the pairs into optimisation steps: one pass over all of them for each seed, in an order of its own.

    The last step of a pass may be smaller; no pair is left out.
    """
    for seed in seeds:
        order = list(pairs)
        random.Random(seed).shuffle(order)
        for start in range(0, len(order), batch_size):
            yield order[start : start + batch_size]


def forward_passes(step: Sequence[Pair], size: int, rank: int, world: int) -> list[list[Pair]]:
    """Cut a step into one rank's forward passes of at most `size` pairs, equally many on every rank.

    Pairs of like length go together, for the least padding. A rank may get an empty pass: it then still takes part in
    what all ranks do together.
    """
    by_length = sorted(step, key=lambda pair: (pair.length, pair.duel_id))
    rounds = -(-len(by_length) // (size * world))
    cuts = [len(by_length) * cut // (rounds * world) for cut in range(rounds * world + 1)]
    passes = [by_length[start:end] for start, end in itertools.pairwise(cuts)]
    return passes[rank::world]


def _completion(candidate: Candidate, prompt: tuple[int, ...], longest: int | None, duel: Duel) -> tuple[int, ...]:
    if candidate.prompt_tokens != len(prompt):
        raise RecordError(
            f"duel {duel.duel_id}: its prompt has {len(prompt)} tokens here, and had {candidate.prompt_tokens} when it "
            "was sampled; sample and train with one tokenizer and one chat template"
        )
    kept = candidate.tokens if longest is None else candidate.tokens[: max(0, longest - len(prompt))]
    if not kept:
        raise RecordError(f"duel {duel.duel_id}: candidate {candidate.candidate} has no token to learn from")
    return kept
