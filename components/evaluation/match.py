"""The evaluation step: the round's policy meets the opponent on held-out prompts, and the oracle judges."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .. import progress
from ..labeling.asking import Interview, join
from ..labeling.labels import more_probable
from ..labeling.oracle import open_oracle
from ..labeling.settings import LabelingSettings
from ..ledger.done import Done
from ..ledger.ledger import Ledger
from ..ledger.owner import process_start
from ..ledger.step import Step
from ..records.records import Preference, Verdict
from ..records.table import to_parquet
from ..seeds import derive
from .answering import VERDICTS, answer_held_out
from .judging import TIE, Pairing, as_duel, as_verdict, evaluated_before, is_evaluated, mean_or_none
from .settings import EvaluationSettings
from .win_rate import win_rate

JUDGEMENTS = "judgements"


@dataclass(frozen=True, slots=True)
class Judged:
    """All verdicts, how many queries they took, whose they are, and the seconds that this attempt waited for them."""

    verdicts: list[Verdict]
    queries: int
    oracle: str
    seconds: float


def run_evaluation(ledger: Ledger, round_: int, run: str) -> Done:
    """Measure the round's policy, where `eval_every` says so. Its queries are counted apart from the budget.

    What a killed attempt has generated, and what it was told by the oracle, stands.
    """
    with ledger.step(round_, "evaluation", run) as step:
        if step.done is not None:
            return step.done
        settings = ledger.section(EvaluationSettings, "evaluation")
        if not is_evaluated(round_, settings.eval_every, ledger.plan(round_).last):
            return finish_unmeasured(step)
        past = evaluated_before(round_, settings.eval_every)
        answered = answer_held_out(ledger, step, past)
        pairings = [
            Pairing(prompt, answered.policy[prompt.prompt_id], answered.opponent[prompt.prompt_id])
            for prompt in ledger.eval_prompts()
        ]
        judged = judge(ledger, step, pairings, judged_before(step, past))
        step.write(VERDICTS, to_parquet(judged.verdicts, Verdict))
        timings = {
            "startup": answered.begun - process_start(),
            "generate": answered.ended - answered.begun,
            "judge": judged.seconds,
            "work": time.time() - answered.begun,
        }
        counts = {"evaluation_queries": judged.queries, "generated_tokens": answered.generated_tokens}
        facts = measure(judged.verdicts, settings.bootstrap_samples, derive(ledger.seed, round_, "bootstrap"))
        return step.finish({**counts, **count(judged.verdicts)}, timings, {**facts, "oracle": judged.oracle})


def judge(ledger: Ledger, step: Step, pairings: Sequence[Pairing], known: Mapping[str, Preference]) -> Judged:
    """Ask the oracle, in batches that are durable one by one, about the pairings that are not `known` or equal."""
    settings = ledger.section(LabelingSettings, "labeling")
    oracle = open_oracle(settings)
    duels = [as_duel(pairing, ledger.seed) for pairing in pairings]
    interview = Interview(oracle, settings.oracle_batch_size, lambda duel, first_wins: more_probable(first_wins))
    asked = interview.conduct(step, JUDGEMENTS, duels, known, _tell(step.round, len(duels)))
    verdicts = map(as_verdict, pairings, duels, asked.preferences)
    queries = {duel.duel_id for duel in duels if not duel.clash} - known.keys()
    return Judged(list(verdicts), len(queries), oracle.identity, asked.seconds)


def judged_before(step: Step, past: int | None) -> dict[str, Preference]:
    """Return what the oracle said in the round that was measured before this one, by duel."""
    names = [] if past is None else step.outputs("evaluation", round=past)
    parts = [step.read("evaluation", name, round=past) for name in names if name.startswith(JUDGEMENTS)]
    return {row.duel_id: row for row in join(parts)}


def count(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Count prompts, and those that the policy won and tied."""
    return {
        "prompts": len(verdicts),
        "wins": sum(row.policy_wins > TIE for row in verdicts),
        "ties": sum(row.policy_wins == TIE for row in verdicts),
    }


def measure(verdicts: Sequence[Verdict], samples: int, seed: int) -> dict[str, float | None]:
    """Return the win rate with its interval, and the mean rewards over the prompts whose rewards are known."""
    measured = win_rate(np.array([row.policy_wins for row in verdicts]), samples, seed)
    return {
        **asdict(measured),
        "mean_reward": mean_or_none(row.reward for row in verdicts),
        "opponent_mean_reward": mean_or_none(row.opponent_reward for row in verdicts),
    }


def finish_unmeasured(step: Step) -> Done:
    """Mark a round done whose policy is not measured: an empty table, no figures."""
    begun = time.time()
    step.write(VERDICTS, to_parquet([], Verdict))
    timings = {"startup": begun - process_start(), "generate": 0.0, "judge": 0.0, "work": time.time() - begun}
    return step.finish(counts={"prompts": 0}, timings=timings)


def _tell(round_: int, of: int) -> Callable[[int], None]:
    return lambda done: progress.tell("evaluate", round_, "work", done=done, of=of)
