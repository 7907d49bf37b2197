"""What a judge said, as the probability that the answer shown first wins. Pure.

The options are the digits 0 and 1, as Oat's: a token of its own in every vocabulary, and never the beginning of a
sentence, as the letter A is; so what is not a verdict is not taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import exp, isnan

OPTIONS = ("0", "1")
"""How a judge names the answer shown first, and the one shown second."""
LEAST_MASS = 0.5
"""Probability that both options must have together: else the judge rather wanted to say something else. Oat's parser
knows no such bound. Seen of a small model: "<<" 0.67, "The" 0.10, "1" 0.02, which Oat reads as a certain 1."""
SPACES = " \t\r\n\u00a0\u2581\u0120\u010a"
"""What stands for a space in the names of tokens: ▁ in sentencepiece's, Ġ and Ċ in those of byte-level BPE."""

_WRAPPING = SPACES + "*`\"'.,:;!?()[]{}"
_MENTION = re.compile(r"(?<![\w.,])[01](?!\w|[.,]\d)")
_AT_THE_START = re.compile(r"[01][ \t]*(?:[\n:,;!*\]\u2013\u2014-]|$)")
_AT_THE_END = re.compile(r"(?:^|[\s*`\"':(\[])[01]$")


def read_logprobs(top: Sequence[tuple[str, float]]) -> float | None:
    """P(shown first wins) = P("0") / (P("0") + P("1")), from the likeliest first tokens and their log-probabilities.

    Tokens that are an option but for spaces count together. Where only one option is among them, it wins for certain,
    as in Oat. None where neither is, where Oat draws a random number, or where both are unlikely.
    """
    first, second = (
        sum(_to_probability(logprob) for token, logprob in top if _strip_token(token) == name) for name in OPTIONS
    )
    return first / (first + second) if first + second >= LEAST_MASS else None


def read_text(text: str) -> float | None:
    """1.0 or 0.0 where the text names one option and no other, as its last word or set apart at its start; else None.

    "1." and "1)" at the start are no verdict: lists begin so.
    """
    bare = text.strip(_WRAPPING)
    named = {match[0] for match in _MENTION.finditer(bare)}
    if len(named) != 1 or not (_AT_THE_START.match(bare) or _AT_THE_END.search(bare)):
        return None
    return 1.0 if named == {OPTIONS[0]} else 0.0


def find_winner(first_wins: float) -> int:
    """Return 1 if the first is likelier to win, -1 if the second is, and 0 if neither."""
    return (first_wins > 0.5) - (first_wins < 0.5)


def _strip_token(token: str) -> str:
    return token.strip(SPACES)


def _to_probability(logprob: float) -> float:
    """Of a log-probability that may be a rounding error above 0, minus infinity, or nonsense."""
    return 0.0 if isnan(logprob) else exp(min(logprob, 0.0))
