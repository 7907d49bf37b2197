"""The evaluation step: the round's policy meets the opponent on held-out prompts, and the oracle judges."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import progress
from ..exploration.settings import ExplorationSettings
from ..labeling.asking import Interview, answers_of, join
from ..labeling.labels import more_probable
from ..labeling.oracle import open_oracle
from ..labeling.settings import LabelingSettings
from ..ledger.done import Done
from ..ledger.ledger import Ledger
from ..ledger.owner import process_start
from ..ledger.step import Step
from ..records.records import Duel, Preference, Verdict
from ..records.table import from_parquet, to_parquet
from ..seeds import derive
from .answering import VERDICTS, Answered, answer_all
from .diagnostics import diagnose
from .judging import TIE, HeldOutAnswer, Pairing, as_duel, as_verdict, evaluated_before, is_evaluated, mean_or_none
from .settings import EvaluationSettings
from .win_rate import mean_interval, win_rate

JUDGEMENTS, ONLINE_JUDGEMENTS = "judgements", "online_judgements"


@dataclass(frozen=True, slots=True)
class Judged:
    """All verdicts, how many queries they took, whose they are, and the seconds that this attempt waited for them."""

    verdicts: list[Verdict]
    queries: int
    oracle: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What was counted, what was found, and the seconds that this attempt waited for the oracle."""

    counts: Mapping[str, int]
    facts: Mapping[str, Any]
    seconds: float


def run_evaluation(ledger: Ledger, round_: int, run: str) -> Done:
    """Measure the round's policy, where `eval_every` says so, and its duels, where the objective asks for good ones.

    Queries for both are counted apart from the budget.

    What a killed attempt has generated, and what it was told by the oracle, stands.
    """
    with ledger.step(round_, "evaluation", run) as step:
        if step.done is not None:
            return step.done
        settings = ledger.section(EvaluationSettings, "evaluation")
        held_out = is_evaluated(round_, settings.eval_every, ledger.plan(round_).last)
        online = ledger.section(ExplorationSettings, "exploration").objective == "explore_and_exploit"
        past = evaluated_before(round_, settings.eval_every)
        answered = answer_all(ledger, step, past, held_out, online)
        found = [
            *([measure_held_out(ledger, step, answered, past)] if held_out else []),
            *([measure_online(ledger, step, answered)] if online else []),
        ]
        if not held_out:
            step.write(VERDICTS, to_parquet([], Verdict))
        facts: dict[str, Any] = diagnose(step)
        counts: dict[str, int] = {"prompts": 0, **({"generated_tokens": answered.generated_tokens} if found else {})}
        for measured in found:
            counts, facts = {**counts, **measured.counts}, {**facts, **measured.facts}
        timings = {
            "startup": answered.begun - process_start(),
            "generate": answered.ended - answered.begun,
            "judge": sum(measured.seconds for measured in found),
            "work": time.time() - answered.begun,
        }
        return step.finish(counts, timings, facts)


def measure_held_out(ledger: Ledger, step: Step, answered: Answered, past: int | None) -> Measured:
    """Let the oracle compare the policy's held-out answers with the opponent's."""
    pairings = [
        Pairing(prompt, answered.policy[prompt.prompt_id], answered.opponent[prompt.prompt_id])
        for prompt in ledger.eval_prompts()
    ]
    judged = judge(ledger, step, JUDGEMENTS, pairings, judged_before(step, past))
    step.write(VERDICTS, to_parquet(judged.verdicts, Verdict))
    samples = ledger.section(EvaluationSettings, "evaluation").bootstrap_samples
    facts = measure(judged.verdicts, samples, derive(ledger.seed, step.round, "bootstrap"))
    counts = {"evaluation_queries": judged.queries, **count(judged.verdicts)}
    return Measured(counts, {**facts, "oracle": judged.oracle}, judged.seconds)


def measure_online(ledger: Ledger, step: Step, answered: Answered) -> Measured:
    """Let the oracle compare both answers of each duel with the opponent's answer to the same prompt."""
    duels = from_parquet(step.read("sampling", "duels.parquet"), Duel, "duels.parquet")
    real = [duel for duel in duels if not duel.synthetic]
    prompts = {prompt.prompt_id: prompt for prompt in ledger.plan(step.round).prompts}
    pairings = [
        Pairing(prompts[name], HeldOutAnswer(name, text, 0), answered.online_opponent[name])
        for name, text in ((duel.prompt_id, text) for duel in real for text in (duel.first, duel.second))
    ]
    # Where a member says what the opponent says, the round's own duel is asked about already.
    known = answers_of(join(step.read_parts("labeling", "preferences")))
    judged = judge(ledger, step, ONLINE_JUDGEMENTS, pairings, known)
    samples = ledger.section(EvaluationSettings, "evaluation").bootstrap_samples
    facts = online_facts(
        [row.policy_wins for row in judged.verdicts], samples, derive(ledger.seed, step.round, "online")
    )
    return Measured({"online_queries": judged.queries, "online_prompts": len(real)}, facts, judged.seconds)


def judge(
    ledger: Ledger, step: Step, name: str, pairings: Sequence[Pairing], known: Mapping[str, Preference]
) -> Judged:
    """Ask the oracle, in batches that are durable one by one, about the pairings that are not `known` or equal."""
    settings = ledger.section(LabelingSettings, "labeling")
    oracle = open_oracle(settings)
    duels = [as_duel(pairing, ledger.seed) for pairing in pairings]
    interview = Interview(oracle, settings.oracle_batch_size, lambda duel, first_wins: more_probable(first_wins))
    asked = interview.conduct(step, name, duels, known, _tell(step.round, len(duels)))
    verdicts = map(as_verdict, pairings, duels, asked.preferences)
    queries = {duel.duel_id for duel in duels if not duel.clash} - known.keys()
    return Judged(list(verdicts), len(queries), oracle.identity, asked.seconds)


def judged_before(step: Step, past: int | None) -> dict[str, Preference]:
    """Return what the oracle said in the round that was measured before this one, by duel."""
    parts = [] if past is None else step.read_parts("evaluation", JUDGEMENTS, round=past)
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


def online_facts(wins: Sequence[float], samples: int, seed: int) -> dict[str, float | None]:
    """Sum up the probabilities that duel members beat the opponent; two of them, one after the other, make a duel.

    A duel counts with the mean of its two members: a win 1, a tie 0.5. `online_mean_probability` is Oat's number.
    """
    if not wins:
        return {}
    both = np.array(wins).reshape(-1, 2)
    outcomes = ((both > TIE) + 0.5 * (both == TIE)).mean(1)
    low, high = mean_interval(outcomes, samples, seed)
    return {
        "online_win_rate": float(outcomes.mean()),
        "online_low": low,
        "online_high": high,
        "online_mean_probability": float(both.mean()),
    }


def _tell(round_: int, of: int) -> Callable[[int], None]:
    return lambda done: progress.tell("evaluate", round_, "work", done=done, of=of)
