"""Candidates of an offline round: the two answers that a preference set gives to each prompt. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..prompts.template import Tokenizer, encode_answer
from ..records.records import CHOSEN, REJECTED, Candidate, Prompt


def given_candidates(
    prompts: Sequence[Prompt], tokens: Sequence[tuple[int, ...]], tokenizer: Tokenizer, longest: int
) -> list[Candidate]:
    """Return two candidates a prompt, the chosen answer and the rejected one, each of at most `longest` tokens.

    `tokens` are the prompts'.
    """
    candidates = []
    for prompt, encoded in zip(prompts, tokens, strict=True):
        for number, text in ((CHOSEN, prompt.chosen), (REJECTED, prompt.rejected)):
            assert text is not None, f"prompt {prompt.prompt_id} comes without answers"
            answer, reason = encode_answer(tokenizer, text, longest)
            candidates.append(Candidate(prompt.prompt_id, number, text, answer, len(encoded), reason))
    return candidates
