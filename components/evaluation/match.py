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
from ..labeling.queries import count_queries, what_it_took
from ..labeling.settings import LabelingSettings
from ..labeling.whom import earlier_answers, oracle_of, spent_before
from ..ledger.done import Done
from ..ledger.ledger import Ledger
from ..ledger.owner import process_start
from ..ledger.step import Step
from ..oracles.oracle import Oracle
from ..records.records import Duel, Preference, Verdict
from ..records.table import from_parquet, to_parquet
from ..seeds import derive
from ..statistics.bootstrap import mean_interval
from .answering import VERDICTS, Answered, answer_all
from .diagnostics import diagnose
from .judging import TIE, HeldOutAnswer, Pairing, as_duel, as_verdict, evaluated_before, is_evaluated, mean_or_none
from .settings import EvaluationSettings
from .win_rate import win_rate

JUDGEMENTS, ONLINE_JUDGEMENTS = "judgements", "online_judgements"


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on each pairing, and what the queries were, took and cost.

    A verdict is None where the oracle's answer cannot be read, or could not be paid for: it is no tie. `seconds`: how
    long this attempt waited for the oracle.
    """

    verdicts: list[Verdict | None]
    counts: Mapping[str, int]
    facts: Mapping[str, float]
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
        oracle = oracle_of(ledger, "evaluation", round_, settings.eval_oracle) if held_out or online else None
        found: list[Measured] = [
            *([measure_held_out(ledger, step, answered, oracle)] if held_out and oracle else []),
        ]
        if online and oracle:
            spent = sum(measured.facts.get("cost", 0.0) for measured in found)
            found.append(measure_online(ledger, step, answered, oracle, spent))
        if not held_out:
            step.write(VERDICTS, to_parquet([], Verdict))
        samples = ledger.section(EvaluationSettings, "evaluation").bootstrap_samples
        facts: dict[str, Any] = diagnose(step, samples, derive(ledger.seed, step.round, "regret"))
        counts: dict[str, int] = {"prompts": 0, **({"generated_tokens": answered.generated_tokens} if found else {})}
        for measured in found:
            costs = facts.get("cost", 0.0) + measured.facts.get("cost", 0.0)
            counts, facts = {**counts, **measured.counts}, {**facts, **measured.facts}
            facts |= {"cost": costs} if costs else {}
        timings = {
            "startup": answered.begun - process_start(),
            "generate": answered.ended - answered.begun,
            "judge": sum(measured.seconds for measured in found),
            "work": time.time() - answered.begun,
        }
        return step.finish(counts, timings, facts)


def measure_held_out(ledger: Ledger, step: Step, answered: Answered, oracle: Oracle) -> Measured:
    """Let the oracle compare the policy's held-out answers with the opponent's."""
    pairings = [
        Pairing(prompt, answered.policy[prompt.prompt_id], answered.opponent[prompt.prompt_id])
        for prompt in ledger.eval_prompts()
    ]
    duels = [as_duel(pairing, ledger.seed) for pairing in pairings]
    known = earlier_answers(step, "evaluation", JUDGEMENTS, range(step.round), duels)
    judged = judge(step, JUDGEMENTS, oracle, pairings, duels, known)
    verdicts = [verdict for verdict in judged.verdicts if verdict is not None]
    step.write(VERDICTS, to_parquet(verdicts, Verdict))
    samples = ledger.section(EvaluationSettings, "evaluation").bootstrap_samples
    facts = measure(verdicts, samples, derive(ledger.seed, step.round, "bootstrap")) if verdicts else {}
    counts = {f"evaluation_{name}": value for name, value in judged.counts.items()} | count(verdicts)
    return Measured(counts, {**facts, **judged.facts, "oracle": oracle.identity}, judged.seconds)


def measure_online(ledger: Ledger, step: Step, answered: Answered, oracle: Oracle, spent: float) -> Measured:
    """Let the oracle compare both answers of each duel with the opponent's answer to the same prompt.

    `spent`: what this step's other questions cost.
    """
    duels = from_parquet(step.read("sampling", "duels.parquet"), Duel, "duels.parquet")
    real = [duel for duel in duels if not duel.synthetic]
    prompts = {prompt.prompt_id: prompt for prompt in ledger.plan(step.round).prompts}
    pairings = [
        Pairing(prompts[name], HeldOutAnswer(name, text, 0), answered.online_opponent[name])
        for name, text in ((duel.prompt_id, text) for duel in real for text in (duel.first, duel.second))
    ]
    duels = [as_duel(pairing, ledger.seed) for pairing in pairings]
    judged = judge(step, ONLINE_JUDGEMENTS, oracle, pairings, duels, _labels_of(step), spent)
    # Two of them, one after the other, make a duel; one without both is left out.
    pairs = zip(judged.verdicts[::2], judged.verdicts[1::2], strict=True)
    both = [(first, second) for first, second in pairs if first is not None and second is not None]
    samples = ledger.section(EvaluationSettings, "evaluation").bootstrap_samples
    facts = online_facts(
        [row.policy_wins for pair in both for row in pair], samples, derive(ledger.seed, step.round, "online")
    )
    took = {f"online_{name}" if name != "cost" else name: value for name, value in judged.facts.items()}
    counts = {f"online_{name}": value for name, value in judged.counts.items()} | {"online_prompts": len(both)}
    return Measured(counts, {**took, **facts}, judged.seconds)


def judge(
    step: Step,
    name: str,
    oracle: Oracle,
    pairings: Sequence[Pairing],
    duels: Sequence[Duel],
    known: Mapping[str, Preference],
    spent: float = 0.0,
) -> Judged:
    """Ask the oracle, in batches that are durable one by one, about the pairings' duels that are not `known`."""
    settings = step.ledger.section(LabelingSettings, "labeling")
    interview = Interview(
        oracle,
        settings.oracle_batch_size,
        lambda duel, first_wins: more_probable(first_wins),
        settings.unreadable_limit,
        spent + (spent_before(step.ledger, step.round) if oracle.purse else 0.0),
    )
    asked = interview.conduct(step, name, duels, known, _tell(step.round, len(duels)))
    verdicts = [
        as_verdict(pairing, duel, preference) if preference.clash or preference.first_wins is not None else None
        for pairing, duel, preference in zip(pairings, duels, asked.preferences, strict=True)
    ]
    counts = count_queries(asked.receipts, asked.preferences, known)
    return Judged(verdicts, counts, what_it_took(asked.receipts), asked.seconds)


def _labels_of(step: Step) -> dict[str, Preference]:
    """Return the round's labels by duel: where a member says what the opponent says, its duel is answered already.

    Only where one oracle gives labels and judges, that is.
    """
    if step.ledger.section(EvaluationSettings, "evaluation").eval_oracle:
        return {}
    return answers_of(join(step.read_parts("labeling", "preferences")))


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
