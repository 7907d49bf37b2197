"""The evaluation step: the round's policy and its duels against the opponent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from ..evaluation.answering import (
    Answering,
    AnswerJob,
    count_tokens,
    read_opponent_answers,
    read_reference_answers,
)
from ..evaluation.diagnostics import diagnose_round
from ..evaluation.match import Match, merge_measured
from ..evaluation.pairings import Answers, find_earlier_round, is_evaluated, make_duel, pair_answers, pair_duels
from ..evaluation.settings import EvaluationSettings
from ..exploration.settings import ExplorationSettings
from ..labeling.asking import Interview, answers_of
from ..labeling.labels import more_probable
from ..labeling.settings import LabelingSettings
from ..labeling.whom import earlier_answers, oracle_of, spent_before
from ..ledger.done import Done
from ..ledger.ledger import Ledger
from ..ledger.owner import process_start
from ..ledger.plan import STARTING_MODEL, Plan, PolicyPointer
from ..ledger.step import Step
from ..records.keep import read_table
from ..records.records import HeldOutAnswer
from ..records.tables import (
    ANSWERS,
    DUELS,
    JUDGEMENTS,
    ONLINE_OPPONENT_ANSWERS,
    OPPONENT_ANSWERS,
    PREFERENCES,
    VERDICTS,
    Table,
)
from ..sampling.engine import Policy, open_engine
from ..sampling.generation import encode_prompts, policy_folder, policy_tokenizer, teller
from ..sampling.settings import SamplingSettings
from ..seeds import derive
from ..starting_model import trusts_remote_code

if TYPE_CHECKING:
    from torch import Tensor


def run_evaluation(ledger: Ledger, round_: int, run: str) -> Done:
    """Measure the round's policy, where `eval_every` says so, and its duels, where the objective asks for good ones.

    Queries for both are counted apart from the budget. Answers and preferences of an interrupted attempt are reused.
    """
    with ledger.step(round_, "evaluation", run) as step:
        if step.done is not None:
            return step.done
        settings = ledger.section(EvaluationSettings, "evaluation")
        plan = ledger.plan(round_)
        held_out = is_evaluated(round_, settings.eval_every, plan.last)
        online = ledger.section(ExplorationSettings, "exploration").objective == "explore_and_exploit"
        answers, tokens, begun = answer_prompts(ledger, step, plan, settings, held_out, online)
        answered = time.time()
        found = []
        if held_out or online:
            match = open_match(ledger, step, settings)
        if held_out:
            pairings = pair_answers(ledger.eval_prompts(), answers[ANSWERS], answers[OPPONENT_ANSWERS])
            duels = [make_duel(pairing, ledger.seed) for pairing in pairings]
            known = earlier_answers(step, JUDGEMENTS.step, JUDGEMENTS.name, range(round_), duels)
            found.append(match.measure_held_out(pairings, known))
        if online:
            # A duel against an equal answer is labelled already, if the oracle that gives labels is the one asked here.
            known = {} if settings.eval_oracle else answers_of(read_table(step, PREFERENCES, round_))
            pairings = pair_duels(read_table(step, DUELS, round_), plan.prompts, answers[ONLINE_OPPONENT_ANSWERS])
            found.append(match.measure_online(pairings, known, sum(row.facts.get("cost", 0.0) for row in found)))
        if not held_out:
            step.write_output(VERDICTS.name, VERDICTS.to_bytes([]))
        diagnosed = diagnose_round(step, round_, settings.bootstrap_samples, derive(ledger.seed, round_, "regret"))
        counts, facts = merge_measured(found, diagnosed)
        generated = {"generated_tokens": tokens} if found else {}
        timings = {
            "startup": begun - process_start(),
            "generate": answered - begun,
            "judge": sum(measured.seconds for measured in found),
            "work": time.time() - begun,
        }
        return step.mark_done({"prompts": 0, **generated, **counts}, timings, facts)


def answer_prompts(
    ledger: Ledger, step: Step, plan: Plan, settings: EvaluationSettings, held_out: bool, online: bool
) -> tuple[dict[Table[HeldOutAnswer], Answers], int, float]:
    """Let the round's policy answer held-out prompts, and get the opponent's answers.

    Returns the answers by their table, how many tokens this round generated for them, and when that began.

    The starting model, where it is the opponent, answers the held-out prompts in the first measured round only; later
    rounds read what it said then. It answers the round's own prompts in every round whose duels are measured.
    """
    is_model, past = settings.opponent == "pretrain", find_earlier_round(plan.round, settings.eval_every)
    sampling, trusts = ledger.section(SamplingSettings, "sampling"), trusts_remote_code(ledger)
    answering = Answering(
        keep=step,
        settings=settings,
        seed=ledger.seed,
        round=plan.round,
        open_engine=lambda policy: closing(open_engine(sampling, policy.fetch_folder, policy.digest, trusts)),
        encode_prompts=lambda prompts: encode_prompts(ledger, prompts),
        score_texts=lambda texts: score_texts(ledger, step, texts),
        on_progress=teller("evaluate", plan.round),
    )
    with ExitStack() as stack:

        def find_policy(pointer: PolicyPointer) -> Policy:
            return Policy(pointer.digest, stack.enter_context(policy_folder(ledger, step, pointer)))

        jobs = []
        # The starting model comes first: a warm engine may still hold it.
        starting = find_policy(ledger.policy_after(STARTING_MODEL))
        if held_out and is_model and past is None:
            jobs.append(AnswerJob(OPPONENT_ANSWERS, starting, ledger.eval_prompts()))
        if online and is_model:
            jobs.append(AnswerJob(ONLINE_OPPONENT_ANSWERS, starting, plan.prompts))
        if held_out:
            policy = find_policy(ledger.policy_after(plan.round))
            jobs.append(AnswerJob(ANSWERS, policy, ledger.eval_prompts(), settings.num_bon))
        begun = answering.generate_answers(jobs)
    answers = {job.table: answering.read_answers(job) for job in jobs}
    generated = count_tokens(answers.values())
    if held_out and is_model and past is not None:
        answers[OPPONENT_ANSWERS] = read_opponent_answers(step, past)
    elif held_out and not is_model:
        answers[OPPONENT_ANSWERS] = read_reference_answers(ledger.eval_prompts(), policy_tokenizer(ledger))
    if online and not is_model:
        answers[ONLINE_OPPONENT_ANSWERS] = read_reference_answers(plan.prompts, policy_tokenizer(ledger))
    return answers, generated, begun


def score_texts(ledger: Ledger, step: Step, texts: Sequence[tuple[str, str]]) -> Tensor:
    """Return every member's reward of K prompts with an answer, (E, K), after the ensemble learned from the round."""
    from ..reward_model.beliefs import believed_rewards, encode, ensemble_after

    return believed_rewards(ledger, encode(ledger, texts), ensemble_after(step))


def open_match(ledger: Ledger, step: Step, settings: EvaluationSettings) -> Match:
    """Open the oracle that compares answers, and return what asks it."""
    oracle = oracle_of(ledger, "evaluation", step.round, settings.eval_oracle)
    labeling = ledger.section(LabelingSettings, "labeling")
    interview = Interview(
        oracle=oracle,
        batch_size=labeling.oracle_batch_size,
        label=lambda duel, first_wins: more_probable(first_wins),
        unreadable_limit=labeling.unreadable_limit,
        spent=spent_before(ledger, step.round) if oracle.purse else 0.0,
    )
    return Match(step, interview, step.round, ledger.seed, settings.bootstrap_samples)
