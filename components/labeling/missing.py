"""What a limit left undone in a step, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_CAUSES = {"unpaid": "not paid for", "over_budget": "over the budget", "lost": "lost", "unreadable": "unreadable"}
_KINDS = {
    "": ("duels without an answer", "duel without an answer"),
    "evaluation_": ("held-out prompts without a verdict", "held-out prompt without a verdict"),
    "online_": ("answers of duels without a verdict", "answer of a duel without a verdict"),
}


def describe_missing(counts: Mapping[str, int]) -> str:
    """Return what is missing by the counts of a step or of a round, "" where nothing is.

    For instance: "3 duels without an answer (2 not paid for, 1 lost)".
    """
    return ", ".join(_list_missing(counts))


def _list_missing(counts: Mapping[str, int]) -> Iterator[str]:
    for prefix, (many, one) in _KINDS.items():
        found = {cause: counts.get(f"{prefix}{name}", 0) for name, cause in _CAUSES.items()}
        if whole := sum(found.values()):
            causes = ", ".join(f"{number:,} {cause}" for cause, number in found.items() if number)
            yield f"{whole:,} {one if whole == 1 else many} ({causes})"
