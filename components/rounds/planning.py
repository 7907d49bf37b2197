"""Decide what a round does, from the experiment and its finished rounds alone."""

from __future__ import annotations

from ..ledger import layout
from ..ledger.ledger import Ledger
from ..prompts.schedule import prompts_of_round
from ..records.plan import STARTING_MODEL, Plan
from ..records.records import Prompt
from ..seeds import derive
from .experiment import ExperimentSettings


def write_plan(ledger: Ledger, round_: int, settings: ExperimentSettings) -> Plan:
    """Write the round's plan, or adopt the one that an earlier attempt wrote."""
    plan = make_plan(ledger, round_, settings)
    return Plan.from_json(ledger.write_document(layout.plan_key(round_), plan.to_json()))


def make_plan(ledger: Ledger, round_: int, settings: ExperimentSettings) -> Plan:
    """Decide what a round does, from the experiment and its finished rounds alone."""
    spent = queries_before(ledger, round_)
    left = settings.labeling.max_queries - spent
    prompts = ledger.train_prompts()
    size = settings.prompts.rollout_batch_size
    # Offline no query is ever spent: the budget is a number of the set's preferences, one of which each prompt brings.
    most = left - round_ * size if settings.prompts.offline else left
    is_affordable = left >= settings.exploration.count_duels(size)
    if not settings.prompts.offline and (is_affordable or round_ >= settings.rounds):
        # In APL not every prompt costs a query. A round beyond those that were planned asks what clashes have saved:
        # of all its prompts, so that few rounds do it.
        most = size
    order = prompts_of_round(len(prompts), round_, size, derive(ledger.seed, "prompts"))[:most]
    return Plan(
        round=round_,
        rounds=settings.plan_rounds(round_, left),
        prompts=tuple(prompts[index] for index in order),
        sampler=ledger.policy_after(refreshed_after(round_, settings.policy.sync_params_every)),
        policy=ledger.policy_after(round_ - 1),
        queries_spent=spent,
        queries_left=left,
        rooms=settings.rooms,
        duels=settings.exploration.count_duels(size),
        outside=outside_of_round(ledger, round_, settings),
    )


def outside_of_round(ledger: Ledger, round_: int, settings: ExperimentSettings) -> tuple[Prompt, ...]:
    """Return the preferences made elsewhere that a round learns from: a seeded walk, each once before any twice."""
    found, size = ledger.outside_preferences(), settings.outside.per_round(settings.prompts.rollout_batch_size)
    order = prompts_of_round(len(found), round_, size, derive(ledger.seed, "outside")) if found else []
    return tuple(found[index] for index in order)


def refreshed_after(round_: int, every: int) -> int:
    """Return the round whose policy answers in this one: it is refreshed after every so many rounds.

    1 is online learning, more is iterative; where it is never refreshed, the starting model answers for good.
    """
    return round_ // every * every - 1


def keep_raised_budget(ledger: Ledger, settings: ExperimentSettings) -> ExperimentSettings:
    """Return the settings with the largest budget that the experiment has had: once raised, it stays raised.

    A run that gives a smaller one, such as a schedule from before, is told so. The plans say what the budget was.
    """
    round_, given = ledger.head_etag[0].round + 1, settings.labeling.max_queries
    raised = _read_budget(ledger, round_ - 1)
    spent = round_ * settings.prompts.rollout_batch_size if settings.prompts.offline else queries_before(ledger, round_)
    if round_ and spent >= max(given, raised):
        # Another run may have raised it, and planned the next round.
        raised = _read_budget(ledger, round_)
    if given >= raised:
        return settings
    if given != ledger.experiment.settings["labeling"]["max_queries"]:
        print(f"labeling.max_queries={given}: it was raised to {raised} before, and stays so", flush=True)
    labeling = settings.labeling.model_copy(update={"max_queries": raised})
    return settings.model_copy(update={"labeling": labeling})


def _read_budget(ledger: Ledger, round_: int) -> int:
    """Return the budget that a round was planned with; 0 where it has no plan."""
    plan = ledger.read_document(layout.plan_key(round_)) if round_ >= 0 else None
    return int(plan["queries_spent"] + plan["queries_left"]) if plan else 0


def queries_before(ledger: Ledger, round_: int) -> int:
    """Count the queries spent in the rounds before."""
    if round_ == STARTING_MODEL + 1:
        return 0
    done = ledger.find_done(round_ - 1, "labeling")
    return ledger.read_plan(round_ - 1).queries_spent + (done.counts["queries"] if done else 0)
