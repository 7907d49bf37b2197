"""Reads everything that a report shows from the ledger; rendering it is pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..evaluation.held_out import HeldOut, sum_up
from ..ledger.ledger import Ledger
from ..records.keep import read_table
from ..records.plan import Plan
from ..records.records import Verdict
from ..records.tables import VERDICTS
from ..seeds import derive
from .curves import RoundRow, SampledDuel, read_rounds, sample_duels, sample_verdicts, software
from .foretold import Foretold, read_foretold

SAMPLES = 24
BLIND = ("passive", "EnnPassive")
"""Strategies that take the first two candidates, whatever is believed of them."""
OPPONENTS = {"pretrain": "the starting model", "reference": "the reference answers"}


@dataclass(frozen=True, slots=True)
class Report:
    """One experiment as people see it.

    `rounds`: how many the experiment is planned to have; what clashes save pays for more. `budget`: labels that it may
    have, the oracle's or the preference set's. `oracle`: the identity of who judged.
    `opponent`: who the win rate is against, in words. `digests`: what the chain of rounds hangs on, by name.
    `seen`: held-out prompts that are learned from, too. `reliability`: what the ensemble foretold against what came
    true, where there is one.
    """

    name: str
    rows: tuple[RoundRow, ...]
    rounds: int | None
    budget: int
    oracle: str
    opponent: str
    duels: tuple[SampledDuel, ...]
    verdicts: tuple[Verdict, ...]
    settings: Mapping[str, Mapping[str, Any]]
    software: Mapping[str, str]
    digests: Mapping[str, str]
    reliability: Foretold | None = None
    seen: int = 0

    @property
    def seed(self) -> int | None:
        """What all random numbers of the experiment derive from."""
        seed = self._setting("ledger", "seed", None)
        return None if seed is None else int(seed)

    @property
    def evaluated(self) -> RoundRow | None:
        """The last round that was evaluated."""
        return next((row for row in reversed(self.rows) if row.win_rate is not None), None)

    @property
    def ranked(self) -> RoundRow | None:
        """The last round whose policy ranked held-out preferences."""
        return next((row for row in reversed(self.rows) if row.held_out_interval is not None), None)

    @property
    def competitor(self) -> str:
        """Whose win rate it is, in words, including that the reward model picks the best of several answers."""
        name = "the starting model" if self.policy_is_fixed else "the policy"
        return f"{name}, best of {self.best_of} answers by its reward model," if self.best_of > 1 else name

    @property
    def best_of(self) -> int:
        """Answers to each held-out prompt that the reward model picked the best of."""
        return int(self._setting("evaluation", "num_bon", 1))

    @property
    def policy_is_fixed(self) -> bool:
        """Whether the labels are for the reward model alone."""
        return bool(self._setting("policy", "learn_rm_only", False))

    @property
    def strategy(self) -> str | None:
        """What picks the duels, or None where nothing does."""
        method = self._setting("exploration", "exp_method", BLIND[0])
        return None if method in BLIND or self.offline else str(method)

    @property
    def has_synthetic_duels(self) -> bool:
        """Whether a member of the ensemble labelled some of the sampled duels."""
        return any(sample.duel.labelled_by_member for sample in self.duels)

    @property
    def foretold(self) -> bool:
        """Whether an ensemble had an opinion of the sampled duels."""
        return any(sample.duel.predicted is not None for sample in self.duels)

    @property
    def labelled_by(self) -> str:
        """Who was asked about the sampled duels: members of the ensemble do not count."""
        asked = (sample.preference.oracle for sample in self.duels if not sample.duel.labelled_by_member)
        return next(asked, self.oracle)

    @property
    def offline(self) -> bool:
        """Whether the policy learned from a preference set, and no oracle gave it a label."""
        return any(row.labels_total is not None for row in self.rows)

    def _setting(self, section: str, name: str, default: Any) -> Any:
        # An experiment may be older than a setting.
        return self.settings.get(section, {}).get(name, default)


def read_report(ledger: Ledger) -> Report:
    """Gather a report of all finished rounds."""
    rows, experiment, head = tuple(with_answers(ledger, read_rounds(ledger))), ledger.experiment, ledger.read_head()
    duels = tuple(sample_duels(ledger, head.round, SAMPLES)) if rows else ()
    judged = [row.round for row in rows if row.win_rate is not None]
    settings, plan = experiment.settings, ledger.read_plan(head.round) if rows else None
    return Report(
        name=ledger.name,
        rows=rows,
        rounds=_plan_rounds(rows, plan) if plan else None,
        budget=plan.queries_spent + plan.queries_left if plan else int(settings["labeling"]["max_queries"]),
        oracle=_find_oracle(ledger, head.round, judged),
        opponent=OPPONENTS[settings["evaluation"]["opponent"]],
        duels=duels,
        verdicts=tuple(sample_verdicts(ledger, judged[-1], SAMPLES)) if judged else (),
        settings=settings,
        software=software(ledger),
        seen=_count_seen(ledger),
        digests={
            "starting model": experiment.starting_model,
            "training prompts": experiment.prompts["train"].sha256,
            "held-out prompts": experiment.prompts["eval"].sha256,
            "HEAD": head.digest,
        },
        reliability=read_foretold(ledger, [row.round for row in rows if row.explored.rm_foretold]),
    )


def _plan_rounds(rows: Sequence[RoundRow], plan: Plan) -> int:
    """Return how many rounds are planned: one more than there are, where clashes have saved queries."""
    is_spent = rows[-1].labels_total is not None or rows[-1].queries_total >= plan.queries_spent + plan.queries_left
    return plan.rounds if is_spent else max(plan.rounds, len(rows) + 1)


def _count_seen(ledger: Ledger) -> int:
    """Count the held-out prompts whose text is also among those that are learned from."""
    learned = {prompt.text for prompt in (*ledger.train_prompts(), *ledger.outside_preferences())}
    return sum(prompt.text in learned for prompt in ledger.eval_prompts())


def with_answers(ledger: Ledger, rows: Sequence[RoundRow]) -> list[RoundRow]:
    """Add what the verdicts say to the rows of rounds that were evaluated.

    Evaluations write it down; the verdicts themselves are read where one is older than that, and in the first and in
    the last measured round, which are compared prompt by prompt.
    """
    judged = [row for row in rows if row.win_rate is not None]
    paired = {row.round for row in (*judged[:1], *judged[-1:])}

    def sum_up_round(row: RoundRow) -> HeldOut | None:
        if row.answers is not None and row.round not in paired:
            return row.answers
        return sum_up(read_table(ledger, VERDICTS, row.round), derive(ledger.seed, row.round, "report"))

    return [replace(row, answers=None if row.win_rate is None else sum_up_round(row)) for row in rows]


def _find_oracle(ledger: Ledger, round_: int, judged: Sequence[int]) -> str:
    """Return the identity of who judged the policy last, or else the labels; before the first, the settings' name."""
    marks = [
        *(ledger.find_done(evaluated, "evaluation") for evaluated in judged[-1:]),
        ledger.find_done(round_, "labeling"),
    ]
    known = [mark.facts["oracle"] for mark in marks if mark and "oracle" in mark.facts]
    return str(known[0] if known else ledger.experiment.settings["labeling"]["preference_oracle"])
