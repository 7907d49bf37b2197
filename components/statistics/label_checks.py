"""Checks of a round's labels: whether the round paid for answers that teach nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .exact import at_least, at_most, sign_test
from .intervals import wilson_interval

RARE = 0.0005
"""A check fails only where a sound oracle would give such answers less often than this: several checks together raise a
false alarm in less than one of a thousand rounds, and a few answers raise none."""
UNDECIDED_LIMIT = 0.75
"""Largest share of the readable answers that may name no winner."""
ONE_SIDE_LIMIT = 0.95
"""Largest share of the decided answers that may name the same side; the order of a duel's answers is random."""
FEWEST_COMPARED = 20
"""Fewest duels judged twice for a verdict on the agreement: with fewer, almost any interval includes chance."""
SOUND_AGREEMENT = 0.75
"""Share of duels with the same winner twice that a sound oracle has at least."""
SOUND_ALPHA = 0.4
"""Krippendorff's alpha that sound annotators have at least."""
CHANCE = 0.5
NORMAL_95, NORMAL_RARE = 1.96, 3.29
"""Standard deviations to the ends of a 95% interval, and to the point below which a share of RARE lies."""

_AUDIT = "oatflow audit-oracle --count 16"
_READABLE = f"{_AUDIT}, and look at 'can be read'"
_DECIDES = f"{_AUDIT}, and look at 'an answer beats an empty one'"
_PLACE = f"{_AUDIT}, and look at 'sides changed: same winner' and 'what is shown first wins'"
_PEOPLE = "oatflow audit-oracle --labels FILE, with labels that people gave"


@dataclass(frozen=True, slots=True)
class LabelAlarm:
    """One reason why a round's labels cannot be trusted.

    Attributes:
        name: Short name of the check that failed.
        sentence: What was seen, as a sentence.
        check: The command that finds out more, and what to look at; "" where the oracle is not the reason.
    """

    name: str
    sentence: str
    check: str


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """What a round's preferences are made of. None: not known, and then the checks that need it are left out.

    Attributes:
        duels: Duels of the round, clashes included.
        clashes: Duels of two equal answers, which the oracle never sees.
        queries: Duels that the oracle was asked about.
        unpaid: Duels that it was not asked about, for lack of budget.
        unreadable: Answers that cannot be read as a verdict.
        lost: Answers that were lost when a process was killed.
        undecided: Answers that neither response is better.
        first_wins: Answers that prefer the duel's first response.
        second_wins: Answers that prefer its second response.
        position_bias: Mean probability that the response shown first wins, minus one half.
        shown: Answers that the bias is over.
        learnable: Pairs with a label, whoever gave it.
        agreed: Duels judged twice with the same winner, for instance in both orders.
        compared: Duels judged twice.
        alpha: Krippendorff's alpha of the annotators.
        alpha_low: Lower end of its 95% interval.
        alpha_duels: Duels that it is over.
        from_set: Whether the labels came with the prompts, and no oracle was asked.
    """

    duels: int = 0
    clashes: int = 0
    queries: int = 0
    unpaid: int = 0
    unreadable: int = 0
    lost: int = 0
    undecided: int = 0
    first_wins: int | None = None
    second_wins: int | None = None
    position_bias: float | None = None
    shown: int | None = None
    learnable: int | None = None
    agreed: int | None = None
    compared: int | None = None
    alpha: float | None = None
    alpha_low: float | None = None
    alpha_duels: int | None = None
    from_set: bool = False

    @property
    def readable(self) -> int:
        """Answers that can be read as a verdict, undecided ones included."""
        return max(0, self.queries - self.unreadable - self.lost)


def read_label_counts(numbers: Mapping[str, Any]) -> LabelCounts:
    """Return the counts of a round from what its labeling step recorded, counts and facts together.

    Reads `first_wins`, `second_wins` and `learnable`, which a step of an older version did not record.
    """
    named = ("duels", "clashes", "queries", "unreadable", "lost", "undecided")
    consistent, compared = numbers.get("consistent"), numbers.get("asked_in_both_orders")
    return LabelCounts(
        **{name: int(numbers.get(name, 0)) for name in named},
        unpaid=int(numbers.get("unpaid", 0)) + int(numbers.get("over_budget", 0)),
        first_wins=numbers.get("first_wins"),
        second_wins=numbers.get("second_wins"),
        position_bias=numbers.get("position_bias"),
        shown=numbers.get("shown"),
        learnable=numbers.get("learnable"),
        agreed=None if consistent is None or not compared else round(consistent * compared),
        compared=compared,
        alpha=numbers.get("krippendorff_alpha"),
        alpha_low=numbers.get("krippendorff_low"),
        alpha_duels=numbers.get("agreed_upon"),
        from_set="labels" in numbers,
    )


def check_labels(counts: LabelCounts, undecided_limit: float = UNDECIDED_LIMIT) -> tuple[LabelAlarm, ...]:
    """Return what is wrong with a round's labels, gravest first; nothing where all checks pass."""
    found = (
        _check_learnable(counts),
        _check_undecided(counts, undecided_limit),
        _check_one_side(counts),
        _check_agreement(counts),
        _check_annotators(counts),
    )
    return tuple(alarm for alarm in found if alarm is not None)


def _check_learnable(counts: LabelCounts) -> LabelAlarm | None:
    # A round whose duels could not all be paid for says so elsewhere; one duel proves nothing.
    if counts.learnable != 0 or counts.unpaid or counts.duels < 2:
        return None
    causes = ", ".join(_list_causes(counts))
    sentence = f"None of the round's {_count_duels(counts.duels)} gave a pair to learn from: {causes}."
    if counts.clashes == counts.duels and counts.from_set:
        sentence += " The set's better and worse answers are the same: check prompts.chosen_key and rejected_key."
    elif counts.clashes == counts.duels:
        sentence += " The policy gives the same answer twice: sampling.temperature or num_samples is too low."
    return LabelAlarm("no pair to learn from", sentence, _find_check(counts))


def _find_check(counts: LabelCounts) -> str:
    if not counts.queries:
        return ""
    return _READABLE if counts.unreadable >= counts.undecided else _DECIDES


def _list_causes(counts: LabelCounts) -> Iterator[str]:
    causes = {
        "clashes (two equal answers)": counts.clashes,
        "undecided": counts.undecided,
        "unreadable": counts.unreadable,
        "lost": counts.lost,
        "not paid for": counts.unpaid,
    }
    yield from (f"{number:,} {cause}" for cause, number in causes.items() if number)
    if other := counts.duels - sum(causes.values()):
        yield f"{other:,} without a label for another reason"


def _check_undecided(counts: LabelCounts, limit: float) -> LabelAlarm | None:
    if not counts.undecided or at_least(counts.undecided, counts.readable, limit) >= RARE:
        return None
    sentence = (
        f"{counts.undecided:,} of {counts.readable:,} answers name no winner, more than {limit:.0%}: "
        "they are paid for and teach nothing."
    )
    return LabelAlarm("undecided answers", sentence, _DECIDES)


def _check_one_side(counts: LabelCounts) -> LabelAlarm | None:
    sides = [
        (counts.first_wins, counts.second_wins, "the duel's first answer", "the duel's second answer"),
        (*_shown_wins(counts), "the answer shown first", "the answer shown second"),
    ]
    for first, second, name, other in sides:
        if first is None or second is None or not first + second:
            continue
        most, whole = max(first, second), first + second
        chance = sign_test(first, second)
        rare = chance is not None and chance < RARE
        if most > ONE_SIDE_LIMIT * whole and rare:
            winner = name if first > second else other
            sentence = f"In {most:,} of {whole:,} decided duels {winner} wins, although their order is random."
            return LabelAlarm("all answers on one side", sentence, _PLACE)
    return None


def _shown_wins(counts: LabelCounts) -> tuple[int | None, int | None]:
    if counts.position_bias is None or not counts.shown:
        return None, None
    first = round((counts.position_bias + CHANCE) * counts.shown)
    return first, counts.shown - first


def _check_agreement(counts: LabelCounts) -> LabelAlarm | None:
    if counts.agreed is None or not counts.compared or counts.compared < FEWEST_COMPARED:
        return None
    low, high = wilson_interval(counts.agreed / counts.compared, counts.compared)
    if low > CHANCE or at_most(counts.agreed, counts.compared, SOUND_AGREEMENT) >= RARE:
        return None
    sentence = (
        f"Of {counts.compared:,} duels judged twice, {counts.agreed:,} have the same winner both times "
        f"(95% interval {low:.0%} to {high:.0%}), which may be chance."
    )
    return LabelAlarm("agreement by chance", sentence, _PLACE)


def _check_annotators(counts: LabelCounts) -> LabelAlarm | None:
    if counts.alpha is None or counts.alpha_low is None or (counts.alpha_duels or 0) < FEWEST_COMPARED:
        return None
    deviation = (counts.alpha - counts.alpha_low) / NORMAL_95
    if counts.alpha_low > 0 or SOUND_ALPHA - counts.alpha < NORMAL_RARE * deviation:
        return None
    sentence = (
        f"The annotators agree no better than by chance (Krippendorff's alpha {counts.alpha:.2f}, its 95% interval "
        f"begins at {counts.alpha_low:.2f}, {_count_duels(counts.alpha_duels or 0)})."
    )
    return LabelAlarm("agreement by chance", sentence, _PEOPLE)


def _count_duels(number: int) -> str:
    return f"{number:,} duel{'' if number == 1 else 's'}"
