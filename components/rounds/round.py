"""One round of online alignment, from prompts to a measured policy. Read this page first.

    prompts -> candidates -> duels -> preferences -> policy, reward model -> win rate

Each function below is one step of the round. It reads what earlier steps kept, calls the stations that do the work,
and keeps what comes out; an output that a killed attempt kept is used again. A KFP component runs one step on the
ledger (`steps.py`); `play_round` runs all of them in one process, on the ledger or in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..evaluation.answering import AnswerJob, count_tokens, generate_answers, reference_answers
from ..evaluation.diagnostics import diagnose_round
from ..evaluation.match import Match, join_reports
from ..evaluation.pairings import find_earlier_round, is_evaluated, make_duel, pair_answers
from ..exploration.choice import choose_duels
from ..exploration.registry import STRATEGIES
from ..labeling.asking import Interview, answers_of, open_duels, report_asked
from ..labeling.budget import within_budget
from ..labeling.given import PREFERENCE_SET, given_preference
from ..labeling.labels import choose_labeler, pick_likelier
from ..labeling.queries import count_labels, count_queries, measure_answers, name_reached_limit
from ..oracles.oracle import Oracle
from ..prompts.template import Tokenizer, encode_prompts
from ..records.keep import StepOutputs, StepReport, keep_bytes, keep_table, read_table, write_table
from ..records.plan import Plan, PolicyPointer
from ..records.records import Candidate, Duel, KnownReward, Prompt
from ..records.tables import (
    ANSWERS,
    CANDIDATES,
    DUELS,
    ENSEMBLE,
    FEATURES,
    JUDGEMENTS,
    KNOWN_REWARDS,
    ONLINE_OPPONENT_ANSWERS,
    OPPONENT_ANSWERS,
    OUTSIDE_FEATURES,
    PAIR_FEATURES,
    PREFERENCES,
    VERDICTS,
)
from ..sampling.engine import Decoding, Engine, Policy
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
from .experiment import ExperimentSettings

if TYPE_CHECKING:
    from torch import Tensor

    from ..reward_model.encoder import Encoder


@dataclass(frozen=True)
class Round:
    """What a round is given, decided before it begins.

    Attributes:
        plan: Its number and prompts, the policies, and what is left of the budget.
        settings: The experiment's settings.
        starting_model: The policy before the first round; it is also the reference of the loss.
        read_prompt_set: Returns all training prompts. Few steps need them.
        read_held_out: Returns the held-out prompts.
    """

    plan: Plan
    settings: ExperimentSettings
    starting_model: PolicyPointer
    read_prompt_set: Callable[[], Sequence[Prompt]]
    read_held_out: Callable[[], Sequence[Prompt]]

    @property
    def number(self) -> int:
        """The round's number, counted from 0."""
        return self.plan.round

    @property
    def seed(self) -> int:
        """The experiment's seed, from which everything random derives."""
        return self.settings.ledger.seed


@dataclass(frozen=True)
class Tools:
    """What does the work. Each field is called only when its tool is needed.

    Attributes:
        load_tokenizer: Returns the tokenizer of the policies.
        open_policy: Opens a policy of the experiment.
        open_engine: Opens an engine with a policy loaded.
        open_encoder: Returns the frozen encoder of the reward model.
        open_oracle: Returns the oracle that answers these duels, and what is known of its answers as a whole. It is
            the one of the name that is given, or the one that gives the labels if the name is empty.
        train_policy: Trains the policy on the round's preferences and keeps it.
        find_trained_policy: Returns the policy that this round's training made.
    """

    load_tokenizer: Callable[[], Tokenizer]
    open_policy: Callable[[PolicyPointer], AbstractContextManager[Policy]]
    open_engine: Callable[[Policy], AbstractContextManager[Engine]]
    open_encoder: Callable[[], Encoder]
    open_oracle: Callable[[Sequence[Duel], str], tuple[Oracle, Mapping[str, Any]]]
    train_policy: Callable[[Round, StepOutputs], StepReport]
    find_trained_policy: Callable[[], PolicyPointer]


def sample_duels(given: Round, tools: Tools, kept: StepOutputs) -> StepReport:
    """Draw candidates from the policy, and pick two of each prompt's to duel."""
    plan, settings, begun = given.plan, given.settings, kept.begin_work()

    def draw() -> list[Candidate]:
        nonlocal begun
        tokens = encode_prompts(tools.load_tokenizer(), plan.prompts, settings.prompts.apply_chat_template)
        if settings.prompts.offline:
            return given_candidates(plan.prompts, tokens, tools.load_tokenizer(), settings.sampling.generate_max_length)
        strategy, chosen = STRATEGIES[settings.exploration.exp_method], settings.sampling
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


def predict_rewards(given: Round, tools: Tools, kept: StepOutputs, candidates: Sequence[Candidate]) -> Tensor:
    """Return every member's reward of each candidate, before the ensemble has learned from their duels, (E, K)."""
    from ..reward_model import beliefs, checkpoint

    def encode() -> bytes:
        prompts = {prompt.prompt_id: prompt.text for prompt in given.plan.prompts}
        texts = [(prompts[candidate.prompt_id], candidate.response) for candidate in candidates]
        known = history.known_features(given, kept, frozenset(texts))
        return checkpoint.features_to_bytes(beliefs.encode_texts(texts, tools.open_encoder, known))

    def encode_outside() -> bytes:
        texts = [(row.text, str(row.chosen)) for row in given.plan.outside]
        texts += [(row.text, str(row.rejected)) for row in given.plan.outside]
        return checkpoint.features_to_bytes(beliefs.encode_texts(texts, tools.open_encoder))

    features = checkpoint.features_from_bytes(keep_bytes(kept, FEATURES.name, encode))
    if given.plan.outside:
        keep_bytes(kept, OUTSIDE_FEATURES.name, encode_outside)
    ensemble = history.ensemble_before(given, kept, features.shape[1])
    return beliefs.predict_rewards(ensemble, features, given.settings.reward_model)


def label_duels(given: Round, tools: Tools, kept: StepOutputs) -> StepReport:
    """Ask the oracle who wins each duel that the budget pays for, in batches that are durable one by one.

    Offline, the preference set has the labels, and no query is made.
    """
    kept.begin_work()
    settings, duels = given.settings.labeling, read_table(kept, DUELS, given.number)
    if given.settings.prompts.offline:
        preferences = [given_preference(duel) for duel in duels]
        kept.write_output(PREFERENCES.name_part(0), PREFERENCES.to_bytes(preferences))
        return StepReport(count_labels(preferences), {"oracle": PREFERENCE_SET}, {"ask": 0.0})
    known = history.answered_before(given, kept, duels)
    affordable = within_budget(duels, given.plan.queries_left, known)
    oracle, facts = tools.open_oracle(open_duels(affordable.duels, known), "")
    interview = Interview(
        oracle,
        settings.oracle_batch_size,
        choose_labeler(settings, given.seed, given.number),
        settings.unreadable_limit,
        history.spent_before(kept, given.number) if oracle.spending else 0.0,
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
    }
    facts = {
        "oracle": oracle.identity,
        **measure_answers(asked.receipts),
        **name_reached_limit(oracle, asked.preferences),
        **facts,
    }
    return StepReport(counts, facts, {"ask": asked.seconds})


def train_policy(given: Round, tools: Tools, kept: StepOutputs) -> StepReport:
    """Train the policy on the round's preferences, and those in its buffer."""
    return tools.train_policy(given, kept)


def evaluate_policy(given: Round, tools: Tools, kept: StepOutputs) -> StepReport:
    """Let the oracle compare the new policy's answers to held-out prompts with the opponent's, and measure the duels.

    What is measured depends on `eval_every` and the objective. Its queries are counted apart from the budget.
    """
    kept.begin_work()
    settings, number, prompts = given.settings.evaluation, given.number, given.plan.prompts
    measures_held_out = is_evaluated(number, settings.eval_every, given.plan.last)
    measures_duels = given.settings.exploration.objective == "explore_and_exploit"
    held_out = given.read_held_out() if measures_held_out else ()
    past = find_earlier_round(number, settings.eval_every)
    jobs = []
    if settings.opponent == "pretrain":
        if measures_held_out and past is None:
            jobs.append(AnswerJob(OPPONENT_ANSWERS, given.starting_model, held_out))
        if measures_duels:
            jobs.append(AnswerJob(ONLINE_OPPONENT_ANSWERS, given.starting_model, prompts))
    if measures_held_out:
        jobs.append(AnswerJob(ANSWERS, tools.find_trained_policy(), held_out, settings.num_bon))

    def choose_best(texts: Sequence[tuple[str, str]], best_of: int) -> list[int]:
        from ..exploration.strategies import pick_best_of_n
        from ..reward_model import beliefs, checkpoint

        ensemble = checkpoint.from_bytes(kept.read_output(ENSEMBLE.step, ENSEMBLE.name, number))
        features = beliefs.encode_texts(texts, tools.open_encoder)
        rewards = beliefs.predict_rewards(ensemble, features, given.settings.reward_model)
        best: list[int] = pick_best_of_n(rewards.reshape(len(rewards), -1, best_of)).tolist()
        return best

    chat_template, begun = given.settings.prompts.apply_chat_template, time.monotonic()
    answers = generate_answers(jobs, tools, kept, settings, chat_template, given.seed, number, choose_best)
    generate_seconds = time.monotonic() - begun
    reports = []
    if measures_held_out or measures_duels:
        oracle, _ = tools.open_oracle((), settings.eval_oracle)
        spent = history.spent_before(kept, number) if oracle.spending else 0.0
        if measures_held_out:
            opponent = answers.get(OPPONENT_ANSWERS.name) or history.opponent_answers(given, tools, kept, past)
            pairings = pair_answers(held_out, answers[ANSWERS.name], opponent)
            duels = [make_duel(pairing, given.seed) for pairing in pairings]
            known = history.earlier_answers(kept, JUDGEMENTS, range(number), duels)
            match = start_match(given, oracle, spent)
            reports.append(match.measure_held_out(kept, pairings, known))
            spent += reports[0].facts.get("cost", 0.0)
        if measures_duels:
            opponent = answers.get(ONLINE_OPPONENT_ANSWERS.name) or reference_answers(prompts, tools.load_tokenizer())
            # An oracle that gives the labels, too, has compared some of these answers already.
            known = {} if settings.eval_oracle else answers_of(read_table(kept, PREFERENCES, number))
            match = start_match(given, oracle, spent)
            reports.append(match.measure_online(kept, read_table(kept, DUELS, number), prompts, opponent, known))
    if not measures_held_out:
        kept.write_output(VERDICTS.name, VERDICTS.to_bytes([]))
    seed = derive(given.seed, number, "regret")
    diagnosed = diagnose_round(kept, number, settings.bootstrap_samples, seed)
    report = join_reports(diagnosed, reports, count_tokens(answers))
    return StepReport(report.counts, report.facts, {"generate": generate_seconds, **report.timings})


def start_match(given: Round, oracle: Oracle, spent: float) -> Match:
    """Return a match that the oracle judges; `spent`: what it has cost so far."""
    labeling = given.settings.labeling
    interview = Interview(
        oracle,
        labeling.oracle_batch_size,
        lambda duel, first_wins: pick_likelier(first_wins),
        labeling.unreadable_limit,
        spent,
    )
    return Match(interview, given.seed, given.number, given.settings.evaluation.bootstrap_samples)


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
    before = history.ensemble_before(given, kept, new.chosen.shape[1])
    report = kept.read_report("labeling", given.number)
    queries = given.plan.queries_spent + (report.counts["queries"] if report else 0)
    after, learned = fitting.fit_ensemble(before, replay, settings, queries, derive(given.seed, given.number, "fit"))
    kept.write_output(ENSEMBLE.name, checkpoint.to_bytes(after))
    counts = {"pairs": int(new.kept.sum()), "left_out": int((~new.kept).sum()), "buffer": len(replay)}
    return StepReport(counts, {f"rm_{name}": value for name, value in asdict(learned).items()} if learned else {})
