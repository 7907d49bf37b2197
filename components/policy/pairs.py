"""The pairs that a round learns from: its own duels' and older ones', those made elsewhere, and the held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RecordError
from ..prompts.template import encode_answer, encode_prompts
from ..records.keep import FinishedSteps, read_table
from ..records.records import Prompt
from ..records.tables import CANDIDATES, DUELS, PREFERENCES
from .buffer import buffered_rounds
from .settings import PolicySettings
from .tokens import Pair, fit_completion, make_pairs

OUTSIDE = "outside-"
"""What the names of pairs made elsewhere begin with; those of duels do not."""


@dataclass(frozen=True)
class PairReader:
    """Reads pairs as tokens.

    Attributes:
        finished: The steps whose tables are read.
        prompts_of: Returns the prompts of a round.
        settings: How pairs are cut, and how many older ones are used.
        tokenizer: The tokenizer of the policy.
        chat_template: Whether prompts are put into the tokenizer's chat template.
        longest: Most tokens of a prompt with one completion; None: any number.
        from_reference: Whether the reference drew one candidate of every duel, the one of number OF_REFERENCE.
    """

    finished: FinishedSteps
    prompts_of: Callable[[int], Sequence[Prompt]]
    settings: PolicySettings
    tokenizer: Any
    chat_template: bool
    longest: int | None = None
    from_reference: bool = False

    def read_buffer(self, round_: int) -> dict[int, list[Pair]]:
        """Return the pairs that a round learns from, by the round that brought them, oldest first; clashes too."""
        maxlen = self.settings.pi_buffer_maxlen
        rounds = [round_] if maxlen is None else buffered_rounds(round_, self.settings.buffer_clear_every)
        found: dict[int, list[Pair]] = {}
        free = maxlen
        for each in reversed(rounds):
            pairs = self.read_round(each)
            found[each] = pairs if free is None else pairs[len(pairs) - min(free, len(pairs)) :]
            if free is not None and (free := free - len(pairs)) <= 0:
                break
        return dict(reversed(found.items()))

    def read_round(self, round_: int) -> list[Pair]:
        """Return a pair for each preference of a round."""
        prompts = self.prompts_of(round_)
        return make_pairs(
            preferences=read_table(self.finished, PREFERENCES, round_),
            duels=read_table(self.finished, DUELS, round_),
            candidates=read_table(self.finished, CANDIDATES, round_),
            prompts=dict(zip((prompt.prompt_id for prompt in prompts), self._encode_prompts(prompts), strict=True)),
            longest=self.longest,
            invented_end=self._invented_end,
            from_reference=self.from_reference,
        )

    def make_outside_pairs(self, prompts: Sequence[Prompt], longest_answer: int) -> list[Pair]:
        """Return a pair for each preference made elsewhere; answers are cut to `longest_answer` tokens."""
        return self._make_given_pairs(prompts, OUTSIDE, longest_answer)

    def make_held_out_pairs(self, prompts: Sequence[Prompt]) -> list[Pair]:
        """Return the held-out pairs of a preference set; none where the prompts bring no answers along."""
        pairs = self._make_given_pairs([prompt for prompt in prompts if prompt.chosen is not None], "", None)
        return [pair for pair in pairs if not pair.is_identical]

    @property
    def _invented_end(self) -> int | None:
        """The token that a completion gets where it was cut off, if it gets one."""
        return int(self.tokenizer.eos_token_id) if self.settings.eos_overwrite else None

    def _encode_prompts(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        return encode_prompts(self.tokenizer, prompts, self.chat_template)

    def _make_given_pairs(self, prompts: Sequence[Prompt], prefix: str, longest_answer: int | None) -> list[Pair]:
        return [
            Pair(prefix + prompt.prompt_id, tokens, *self._encode_answers(prompt, len(tokens), longest_answer))
            for prompt, tokens in zip(prompts, self._encode_prompts(prompts), strict=True)
        ]

    def _encode_answers(
        self, prompt: Prompt, prompt_tokens: int, longest_answer: int | None
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        assert prompt.chosen is not None and prompt.rejected is not None
        free = None if self.longest is None else self.longest - prompt_tokens
        chosen, rejected = (
            fit_completion(encode_answer(self.tokenizer, text, longest_answer)[0], free, self._invented_end)
            for text in (prompt.chosen, prompt.rejected)
        )
        if not chosen or not rejected:
            raise RecordError(
                f"prompt {prompt.prompt_id}: it leaves no room for an answer among the model's {self.longest} "
                "positions; lower prompts.prompt_max_length"
            )
        return chosen, rejected
