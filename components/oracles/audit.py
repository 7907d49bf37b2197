"""Audits an oracle by canaries, whose right answer is known, and by its agreement with people.

A canary is a question that a sound oracle cannot get wrong, or two questions whose answers must fit together. Canaries
cost queries like other questions. The findings are pure functions of the answers; every number comes with its n.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from ..records.records import Duel, duel_id
from .oracle import Answer, Oracle, OracleFailed
from .verdicts import find_winner

CANARIES = ("asked", "swapped", "again", "same", "empty")
"""The questions about each pair: as it is, sides changed, as it is again, one answer twice, an answer and none."""
EVEN = 0.5

_ASK_BOTH = "ask both orders (judge_orders=both)"
_UNREADABLE = "look at what it says (judge: template, judge_max_tokens; a share above unreadable_limit stops a run)"
_UNREAD = "it does not read the answers, or the rubric is not about them"
_RANDOM = "its answers are partly chance: expect noisy labels, and no repeatable runs"
_BIASED = "it favours a place; both orders cancel that on average (judge_orders=both), not its noise"
_WEAK = "where the orders differ the label says little; take a stronger judge"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two different answers to a prompt, none of them empty."""

    prompt: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A pair, and which answer a person found better: first, second or tie."""

    pair: Pair
    label: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One property of an oracle: a share or a mean over `n` cases, what a sound oracle has, and how far off is fine.

    `value` is None where there was no case.
    """

    name: str
    kind: Literal["share", "mean"]
    value: float | None
    n: int
    sound: float
    tolerance: float
    advice: str

    @property
    def fine(self) -> bool | None:
        """Whether it is what a sound oracle has, more or less; None where nothing is known."""
        return None if self.value is None else abs(self.value - self.sound) <= self.tolerance + 1e-12


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often the oracle agrees with people.

    Attributes:
        n: Labelled pairs whose answer can be read.
        agreed: Those with the same verdict.
        kappa: Cohen's kappa, agreement beyond chance; None if all verdicts are the same.
        both_decided: Pairs on which neither says tie.
        decided: Those with the same verdict.
        unreadable: Pairs whose answer cannot be read.
    """

    n: int
    agreed: int
    kappa: float | None
    both_decided: int
    decided: int
    unreadable: int


@dataclass
class Account:
    """All answers of an audit, including those before a failure."""

    answers: list[Answer] = field(default_factory=list)

    def ask_duels(self, oracle: Oracle, duels: Sequence[Duel]) -> dict[str, Answer]:
        """Ask about distinct duels; returns the answers by duel."""
        distinct = {duel.duel_id: duel for duel in duels}
        try:
            answers = dict(zip(distinct, oracle.compare_duels(list(distinct.values())), strict=True))
        except OracleFailed as error:
            self.answers += error.answers.values()
            raise
        self.answers += answers.values()
        return answers


def ask_canaries(oracle: Oracle, pairs: Sequence[Pair], account: Account) -> list[Finding]:
    """Ask all canaries about each pair and return what they show."""
    distinct = list(dict.fromkeys(pairs))
    duels = {name: [make_canary(name, pair, number) for number, pair in enumerate(distinct)] for name in CANARIES}
    once = account.ask_duels(oracle, [duel for name in CANARIES if name != "again" for duel in duels[name]])
    # On its own: within one call an oracle may answer a question once that is asked twice.
    again = account.ask_duels(oracle, duels["again"])
    answers = {name: [(again if name == "again" else once)[duel.duel_id] for duel in duels[name]] for name in CANARIES}
    return draw_findings(answers)


def ask_like_people(oracle: Oracle, labelled: Sequence[LabelledPair], account: Account) -> Agreement:
    """Ask about each labelled pair and compare with the labels. A pair with several labels is asked once."""
    duels = [as_duel(row.pair.prompt, row.pair.first, row.pair.second) for row in labelled]
    answers = account.ask_duels(oracle, duels)
    return measure_agreement(
        [(row.label, name_verdict(answers[duel.duel_id])) for row, duel in zip(labelled, duels, strict=True)]
    )


def make_canary(name: str, pair: Pair, number: int) -> Duel:
    """Return one question about a pair; for every other pair, the empty answer comes first."""
    if name == "swapped":
        return as_duel(pair.prompt, pair.second, pair.first)
    if name == "same":
        return as_duel(pair.prompt, pair.first, pair.first)
    if name == "empty":
        sides = (pair.first, "") if number % 2 == 0 else ("", pair.first)
        return as_duel(pair.prompt, *sides)
    return as_duel(pair.prompt, pair.first, pair.second)


def as_duel(prompt: str, first: str, second: str) -> Duel:
    """Return a duel outside any experiment."""
    return Duel(duel_id(prompt, first, second), "audit", prompt, first, second, 0, 1, clash=first == second)


def draw_findings(answers: Mapping[str, Sequence[Answer]]) -> list[Finding]:
    """Return what the answers to the canaries show. Pure; the lists are in the order of the pairs."""
    asked, swapped = answers["asked"], answers["swapped"]
    both, repeated = list(_read_together(asked, swapped)), list(_read_together(asked, answers["again"]))
    readable = [answer.first_wins is not None for name in CANARIES for answer in answers[name]]
    twice = [abs(p - EVEN) for (p,) in _read_together(answers["same"])]
    swaps = [abs(p + q - 1) for p, q in both]
    same_winner = [find_winner(p) == -find_winner(q) for p, q in both]
    changes = [abs(p - q) for p, q in repeated]
    shown = list(_measure_favour([*asked, *swapped]))
    consistent = [answer.consistent for answer in asked if answer.consistent is not None]
    return [
        _report_share("can be read", readable, 0.05, _UNREADABLE),
        _report_share("an answer beats an empty one", list(_beats_empty(answers["empty"])), 0.1, _UNREAD),
        _report_mean("same answer twice: |P - 0.5|", twice, 0.0, 0.1, f"a place or chance decides; {_ASK_BOTH}"),
        _report_mean("sides changed: |P(a,b) + P(b,a) - 1|", swaps, 0.0, 0.1, f"the place decides; {_ASK_BOTH}"),
        _report_share("sides changed: same winner", same_winner, 0.1, f"the place decides; {_ASK_BOTH}"),
        _report_mean("asked again: |P - P'|", changes, 0.0, 0.02, _RANDOM),
        _report_mean("what is shown first wins: P", shown, EVEN, 0.1, _BIASED),
        _report_share("both orders have the same winner", consistent, 0.2, _WEAK),
    ]


def measure_agreement(said: Sequence[tuple[str, str | None]]) -> Agreement:
    """Compare what people said with what the oracle said, None where that cannot be read. Pure."""
    readable = [(person, oracle) for person, oracle in said if oracle is not None]
    decided = [(person, oracle) for person, oracle in readable if "tie" not in (person, oracle)]
    return Agreement(
        n=len(readable),
        agreed=_count_same(readable),
        kappa=compute_kappa(readable),
        both_decided=len(decided),
        decided=_count_same(decided),
        unreadable=len(said) - len(readable),
    )


def compute_kappa(said: Sequence[tuple[str, str]]) -> float | None:
    """Agreement beyond chance, (p_o - p_e) / (1 - p_e); p_e from how often each says what (Cohen 1960).

    None where it is not defined: nothing was said, or both always say the same one thing.
    """
    n = len(said)
    people, oracle = Counter(person for person, _ in said), Counter(name_verdict for _, name_verdict in said)
    by_chance = sum(people[value] * oracle[value] for value in people)
    # In whole numbers until the end: p_e = 1 must be told from nearly 1.
    return None if by_chance == n * n else (n * _count_same(said) - by_chance) / (n * n - by_chance)


def name_verdict(answer: Answer) -> str | None:
    """Return the response that an answer prefers: first, second or tie; None if it cannot be read."""
    if answer.first_wins is None:
        return None
    if answer.undecided or answer.first_wins == EVEN:
        return "tie"
    return "first" if answer.first_wins > EVEN else "second"


def _read_together(*lists: Sequence[Answer]) -> Iterator[tuple[float, ...]]:
    """Yield the probabilities of answers that belong together, if all of them can be read."""
    for together in zip(*lists, strict=True):
        wins = tuple(answer.first_wins for answer in together if answer.first_wins is not None)
        if len(wins) == len(lists):
            yield wins


def _beats_empty(answers: Sequence[Answer]) -> Iterator[bool]:
    for number, answer in enumerate(answers):
        if answer.first_wins is not None:
            yield answer.first_wins > EVEN if number % 2 == 0 else answer.first_wins < EVEN


def _measure_favour(answers: Sequence[Answer]) -> Iterator[float]:
    """Yield the probability that the response shown first wins; if the order is unknown, that of the duel's first."""
    for answer in answers:
        shown = answer.first_wins if answer.shown_first_wins is None else answer.shown_first_wins
        if shown is not None:
            yield shown


def _count_same(said: Iterable[tuple[str, str]]) -> int:
    return sum(person == oracle for person, oracle in said)


def _report_share(name: str, cases: Sequence[bool], tolerance: float, advice: str) -> Finding:
    return Finding(name, "share", fmean(cases) if cases else None, len(cases), 1.0, tolerance, advice)


def _report_mean(name: str, values: Sequence[float], sound: float, tolerance: float, advice: str) -> Finding:
    return Finding(name, "mean", fmean(values) if values else None, len(values), sound, tolerance, advice)
