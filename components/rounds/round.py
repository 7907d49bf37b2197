"""One round of online alignment, from prompts to a measured policy. Read this page first.

    prompts -> candidates -> duels -> preferences -> policy, reward model -> win rate

Each function below is one step of the round. It reads what earlier steps kept, calls the stations that do the work,
and keeps what comes out; an output that a killed attempt kept is used again. A KFP component runs one step on the
ledger (`steps.py`); `play_round` runs all of them in one process, on the ledger or in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

from ..evaluation.diagnostics import diagnose_round
from ..evaluation.match import join_reports
from ..evaluation.pairings import make_duel, pair_answers, pair_duels
from ..exploration.choice import choose_duels
from ..labeling.alarms import count_answers, find_alarms
from ..labeling.asking import Interview, answers_of, open_duels, report_asked
from ..labeling.budget import within_budget
from ..labeling.given import PREFERENCE_SET, given_preference
from ..labeling.labels import choose_labeler
from ..labeling.queries import count_labels, count_queries, measure_answers, name_reached_limit
from ..prompts.template import encode_prompts
from ..records.keep import Memory, StepOutputs, StepReport, keep_table, read_table, write_table
from ..records.records import Candidate, KnownReward
from ..records.tables import (
    CANDIDATES,
    DUELS,
    ENSEMBLE,
    FEATURES,
    JUDGEMENTS,
    KNOWN_REWARDS,
    OUTSIDE_FEATURES,
    PAIR_FEATURES,
    PREFERENCES,
    REPLAY_BUFFER,
    VERDICTS,
)
from ..sampling.engine import Decoding
from ..sampling.generation import (
    count_sampled,
    draw_candidates,
    report_progress,
    request_candidates,
    score_candidates,
)
from ..sampling.offline import given_candidates
from ..seeds import derive
from . import history
from .answers import answer_prompts, start_match
from .candidate_rewards import predict_rewards, recall_rewards
from .inputs import Round, Tools


def sample_duels(given: Round, tools: Tools, kept: StepOutputs) -> StepReport:
    """Draw candidates from the policy, and pick two of each prompt's to duel."""
    plan, settings, begun = given.plan, given.settings, kept.begin_work()

    def draw() -> list[Candidate]:
        nonlocal begun
        tokens = encode_prompts(tools.load_tokenizer(), plan.prompts, settings.prompts.apply_chat_template)
        if settings.prompts.offline:
            return given_candidates(plan.prompts, tokens, tools.load_tokenizer(), settings.sampling.generate_max_length)
        strategy, chosen = settings.exploration.strategy, settings.sampling
        requests = request_candidates(plan.prompts, tokens, chosen.num_samples, given.seed, given.number)
        decoding = Decoding(chosen.temperature, chosen.top_p, chosen.generate_max_length)
        progress = report_progress("sample", given.number)
        with (
            tools.open_policy(plan.sampler) as policy,
            tools.open_policy(given.starting_model) as reference,
            tools.open_engine(policy) as engine,
        ):
            begun = kept.begin_work()
            beside = reference if strategy.draws_from_reference else None
            candidates = draw_candidates(engine, plan.prompts, requests, decoding, progress, beside)
            if strategy.scores_candidates:
                candidates = score_candidates(engine, candidates, requests, reference, progress)
            return candidates

    candidates = keep_table(kept, CANDIDATES, draw)
    seconds = time.monotonic() - begun
    rewards = predict_rewards(given, tools, kept, candidates) if plan.learns_rewards else None
    chosen = choose_duels(plan.prompts, given.number, candidates, settings.exploration, given.seed, rewards)
    duels = write_table(kept, DUELS, chosen.duels)
    counts = count_sampled(candidates, duels, generated=not settings.prompts.offline)
    return StepReport(counts, chosen.facts, {"generate": seconds})


def label_duels(given: Round, tools: Tools, kept: StepOutputs) -> StepReport:
    """Ask the oracle who wins each duel that the budget pays for, in batches that are durable one by one.

    Offline, the preference set has the labels, and no query is made.
    """
    kept.begin_work()
    settings, duels = given.settings.labeling, read_table(kept, DUELS, given.number)
    if given.settings.prompts.offline:
        preferences = [given_preference(duel) for duel in duels]
        kept.write_output(PREFERENCES.name_part(0), PREFERENCES.to_bytes(preferences))
        counts = count_labels(preferences) | {"learnable": count_answers(preferences)["learnable"]}
        return StepReport(
            counts, {"oracle": PREFERENCE_SET} | find_alarms(counts, {}, settings.undecided_limit), {"ask": 0.0}
        )
    known = history.answered_before(given, kept, duels)
    affordable = within_budget(duels, given.plan.queries_left, known)
    oracle, facts = tools.open_oracle(open_duels(affordable.duels, known), "")
    interview = Interview(
        oracle,
        settings.oracle_batch_size,
        choose_labeler(settings, given.seed, given.number),
        settings.unreadable_limit,
        settings.lost_limit,
        history.spent_before(kept, given.number) if oracle.spending else 0.0,
        ties_are_undecided=settings.ties == "undecided",
    )
    watch = report_asked("label", given.number, len(affordable.duels))
    asked = interview.collect_preferences(kept, PREFERENCES, affordable.duels, known, watch)
    if (reward := oracle.known_reward) is not None:
        prompts = {prompt.prompt_id: prompt.text for prompt in given.plan.prompts}
        rewards = [
            KnownReward(row.prompt_id, row.candidate, reward(prompts[row.prompt_id], row.response))
            for row in read_table(kept, CANDIDATES, given.number)
        ]
        write_table(kept, KNOWN_REWARDS, rewards)
    counts = {
        "duels": len(duels),
        "clashes": sum(duel.clash for duel in duels),
        "over_budget": len(duels) - len(affordable.duels),
        "first_chosen": sum(preference.chosen == "first" for preference in asked.preferences),
        **count_queries(asked.receipts, asked.preferences, known),
        **count_answers(asked.preferences),
    }
    facts = {
        "oracle": oracle.identity,
        **measure_answers([*asked.receipts, *asked.unanswered]),
        **name_reached_limit(oracle, asked.preferences),
        **facts,
    }
    facts |= find_alarms(counts, facts, settings.undecided_limit)
    return StepReport(counts, facts, {"ask": asked.seconds})


def train_policy(given: Round, tools: Tools, kept: StepOutputs) -> StepReport:
    """Train the policy on the round's preferences, and those in its buffer."""
    return tools.train_policy(given, kept)


def evaluate_policy(given: Round, tools: Tools, kept: StepOutputs) -> StepReport:
    """Let the oracle compare the new policy's answers to held-out prompts with the opponent's, and measure the duels.

    What is measured depends on `eval_every` and the objective. Its queries are counted apart from the budget.
    """
    kept.begin_work()
    settings = given.settings.evaluation
    answered = answer_prompts(given, tools, kept)
    reports = []
    if answered.policy is not None or answered.online_opponent is not None:
        match = start_match(given, tools, kept)
    if answered.policy is not None:
        pairings = pair_answers(given.read_held_out(), answered.policy, answered.opponent)
        duels = [make_duel(pairing, given.seed) for pairing in pairings]
        known = kept.find_answers(JUDGEMENTS, {duel.duel_id for duel in duels}, given.number)
        reports.append(match.measure_held_out(kept, pairings, known))
    else:
        write_table(kept, VERDICTS, [])
    if answered.online_opponent is not None:
        # An oracle that gives the labels, too, has compared some of these answers already.
        known = {} if settings.eval_oracle else answers_of(read_table(kept, PREFERENCES, given.number))
        pairings = pair_duels(read_table(kept, DUELS, given.number), given.plan.prompts, answered.online_opponent)
        spent = sum(report.facts.get("cost", 0.0) for report in reports)
        reports.append(match.measure_online(kept, pairings, known, spent))
    believed = recall_rewards(given, kept) if given.settings.learns_rewards else None
    diagnosed = diagnose_round(kept, given.number, derive(given.seed, given.number, "calibrated"), believed)
    return join_reports(diagnosed, reports, answered.tokens, answered.seconds)


def fit_reward_model(given: Round, tools: Tools, kept: StepOutputs) -> StepReport:
    """Let the ensemble learn from the round's preferences, and from those in its buffer."""
    from ..reward_model import checkpoint, fitting, learning

    kept.begin_work()
    settings = given.settings.reward_model
    features = checkpoint.features_from_bytes(kept.read_output(FEATURES.step, FEATURES.name, given.number))
    new = learning.pair_features(
        read_table(kept, PREFERENCES, given.number),
        read_table(kept, DUELS, given.number),
        read_table(kept, CANDIDATES, given.number),
        features,
    )
    if given.plan.outside:
        data = kept.read_output(OUTSIDE_FEATURES.step, OUTSIDE_FEATURES.name, given.number)
        outside = learning.pair_outside_features(given.plan.outside, checkpoint.features_from_bytes(data))
        new = outside.extended(new, len(outside) + len(new))
    new = checkpoint.replay_from_bytes(kept.write_output(PAIR_FEATURES.name, checkpoint.replay_to_bytes(new)))
    replay = history.replay_buffer(kept, given.number, new, settings.r_buffer_maxlen)
    kept.write_output(REPLAY_BUFFER.name, checkpoint.replay_to_bytes(replay))
    before = history.ensemble_before(given, kept, new.chosen.shape[1])
    report = kept.read_report("labeling", given.number)
    queries = given.plan.queries_spent + (report.counts["queries"] if report else 0)
    after, learned = fitting.fit_ensemble(before, replay, settings, queries, derive(given.seed, given.number, "fit"))
    kept.write_output(ENSEMBLE.name, checkpoint.to_bytes(after))
    counts = {"pairs": int(new.kept.sum()), "left_out": int((~new.kept).sum()), "buffer": len(replay)}
    return StepReport(counts, {f"rm_{name}": value for name, value in asdict(learned).items()} if learned else {})


STEP_PROGRAMS: dict[str, Callable[[Round, Tools, StepOutputs], StepReport]] = {
    "sampling": sample_duels,
    "labeling": label_duels,
    "policy": train_policy,
    "reward_model": fit_reward_model,
    "evaluation": evaluate_policy,
}
"""The steps of a round, in the order of the data; a round that learns no reward model has no such step."""


def play_round(given: Round, tools: Tools, memory: Memory) -> Memory:
    """Play all steps of a round in this process; returns the memory that holds what they made and measured."""
    for step in given.plan.rooms:
        memory.reports[given.number, step] = STEP_PROGRAMS[step](given, tools, memory.open_step(step, given.number))
    return memory
