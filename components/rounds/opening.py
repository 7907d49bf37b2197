"""Open a round: begin the experiment if it is new, claim the next round, write its plan."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import progress
from ..errors import ClaimHeld, ObjectChanged, ObjectNotFound
from ..jobs.backends import open_jobs
from ..labeling.people import stands_at
from ..labeling.queries import SPENDING_LIMIT
from ..ledger import layout, owner
from ..ledger.claim import Claim, read_claim, refuse_while_held, renew_claim, take_claim
from ..ledger.ledger import Experiment, Head, Ledger
from ..ledger.sealed import digest_of, seal
from ..model_folder import check_lora_targets, check_model_folder, model_digest, resolve_pretrain
from ..oracles.oracle import Circumstances, open_oracle
from ..policy.settings import PolicySettings
from ..prompts.outside import load_outside
from ..prompts.schedule import prompts_of_round
from ..prompts.source import drop_too_long, load_prompts
from ..prompts.template import load_tokenizer
from ..records.plan import STARTING_MODEL, Plan
from ..records.records import Prompt
from ..records.table import to_parquet
from ..seeds import derive
from ..store.proof import prove_conditional_writes
from ..store.setting_stores import SettingStores
from ..store.store import Store
from ..store.transfer import Placed
from .experiment import ExperimentSettings, Sections, refuse_changes, split_operational

NOTHING_TO_DO = -1
# Rounds of one run at most, and so how far back its own last round can be.
LONGEST_RUN = 10


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an experiment begins with, checked: prompts that fit, by split, and the starting model's digest."""

    prompts: Mapping[str, list[Prompt]]
    dropped: Mapping[str, int]
    starting_model: str


def open_round(uri: str, settings: Mapping[str, Any], run: str) -> int:
    """Open the experiment's next round for `run`; returns its number.

    NOTHING_TO_DO when the budget is spent, or when people have been asked and have not answered yet.

    Raises `RefusedInput` for settings, prompts or a model that cannot be used, `SettingsChanged`, `ClaimHeld`.
    """
    begun = owner.process_start()
    wanted = ExperimentSettings.parse(whole_numbers(settings))
    ledger = Ledger.open(uri, wanted.ledger.store_patience_seconds)
    if not has_begun(ledger.store):
        begin(ledger.store, wanted, check_inputs(wanted, ledger.setting_stores))
    refuse_changes(ledger.experiment.settings, wanted, uri)
    round_ = ledger.head().round + 1
    if is_over(ledger, round_, wanted) or waits_for_people(ledger, round_, wanted):
        return NOTHING_TO_DO
    with progress.told("open", round_, begun) as told:
        claim = claim_round(ledger, round_, wanted, run)
        # Jobs of a former owner of this round would train on for nobody.
        open_jobs(wanted.jobs).reap(ledger.identity, claim.token)
        plan = write_plan(ledger, round_, wanted)
        told |= {"queries_spent": plan.queries_spent, "counts": {"prompts": len(plan.prompts)}}
    return round_


def open_next_round(uri: str, run: str) -> int:
    """Open the next round of a run that has opened one before; returns its number.

    NOTHING_TO_DO also where this run never opened a round: then its first round had nothing to do.

    Raises what `open_round` raises.
    """
    settings = settings_of_run(Ledger.open(uri), run)
    return NOTHING_TO_DO if settings is None else open_round(uri, settings, run)


def settings_of_run(ledger: Ledger, run: str) -> Sections | None:
    """Return all settings that a run began its last round with, or None where it never opened a round.

    The experiment has the settings that never change; the run's claim has those that each run chooses for itself.
    """
    newest = ledger.head().round + 1
    # The newest round is this run's own where it waits for people; another run may have done some in between.
    for round_ in range(newest, max(-1, newest - LONGEST_RUN - 1), -1):
        found = read_claim(ledger.store, round_)
        if found is not None and found[0].run == run:
            frozen, chosen = ledger.experiment.settings, found[0].operational
            return {name: {**frozen.get(name, {}), **chosen.get(name, {})} for name in {**frozen, **chosen}}
    return None


def is_over(ledger: Ledger, round_: int, settings: ExperimentSettings) -> bool:
    """Whether the experiment ended with the round before: its queries are spent, or the money, if no more is given."""
    before = ledger.done(round_ - 1, "labeling") if round_ else None
    reached = before.facts.get(SPENDING_LIMIT) if before else None
    limit = settings.judge.judge_spending_limit
    return round_ == settings.rounds or (reached is not None and limit is not None and limit <= reached)


def waits_for_people(ledger: Ledger, round_: int, settings: ExperimentSettings) -> bool:
    """Whether the round has asked people who have not answered yet, so that a run could only wait."""
    if "human" not in settings.oracles or ledger.done(round_, "labeling") is not None:
        return False
    return bool(stands_at(ledger, round_, settings.human).lacking) and not settings.human.human_wait_minutes


def whole_numbers(settings: Any) -> Any:
    """Undo what KFP does to numbers inside a dict: it hands 2 over as 2.0."""
    if isinstance(settings, Mapping):
        return {name: whole_numbers(value) for name, value in settings.items()}
    return int(settings) if isinstance(settings, float) and settings.is_integer() else settings


def has_begun(store: Store) -> bool:
    """Whether there is an experiment in the store."""
    try:
        store.get(layout.HEAD)
    except ObjectNotFound:
        return False
    return True


def check_inputs(settings: ExperimentSettings, stores: SettingStores | None = None) -> Inputs:
    """Load and check everything that the experiment starts from; writes nothing.

    `stores` opens what the settings name, ``s3://bucket/folder``.
    """
    if settings.policy.trainer == "scripted":
        tokenizer, digest = load_tokenizer(None), "scripted"
    else:
        folder = check_starting_model(settings.policy, stores)
        tokenizer, digest = load_tokenizer(folder, settings.policy.trust_remote_code), model_digest(folder)
    kept, dropped = {}, {}
    for split, most in (("train", settings.prompts.max_train), ("eval", settings.prompts.max_eval)):
        prompts = load_prompts(settings.prompts, split, stores)[:most]
        kept[split], dropped[split] = drop_too_long(prompts, tokenizer, settings.prompts)
    if settings.outside.outside_preferences:
        outside = load_outside(settings.outside, stores)
        kept["outside"], dropped["outside"] = drop_too_long(outside, tokenizer, settings.prompts)
    check_oracles(settings, stores)
    return Inputs(kept, dropped, digest)


def check_oracles(settings: ExperimentSettings, stores: SettingStores | None = None) -> None:
    """See that whoever is to be asked is there and can answer. Raises `RefusedInput`, by the setting's name."""
    for name, section in settings.oracles.items():
        # A known reward may be a function that only the oracle's image has.
        if name != "simulated":
            open_oracle(name, section, Circumstances(stores=stores or SettingStores())).check()


def check_starting_model(policy: PolicySettings, stores: SettingStores | None = None) -> Path:
    """Return the folder of the starting model: whole, nothing in it that was not allowed, and fit to be trained."""
    allowed = {"trust_remote_code": policy.trust_remote_code, "allow_pickled_weights": policy.allow_pickled_weights}
    folder = resolve_pretrain(policy.pretrain, **allowed, stores=stores)
    check_model_folder(folder, **allowed)
    if policy.lora_rank:
        check_lora_targets(folder, policy.lora_targets)
    return folder


def begin(store: Store, settings: ExperimentSettings, inputs: Inputs) -> None:
    """Write what an experiment begins with. Of two that begin it at once, one wins and both go on from that."""
    prove_conditional_writes(store)
    everything, _ = split_operational(settings)
    tables = {split: _write_prompts(store, split, prompts) for split, prompts in inputs.prompts.items()}
    experiment = Experiment(everything, inputs.starting_model, tables, inputs.dropped)
    ledger = Ledger(store)
    frozen = ledger.write_document(layout.EXPERIMENT, experiment.to_json())
    ledger.write_document(layout.HEAD, asdict(Head(-1, digest_of(seal(frozen)), 0)))


def claim_round(ledger: Ledger, round_: int, settings: ExperimentSettings, run: str) -> Claim:
    """Take the round's claim, and fence HEAD with its token: the former owner cannot move it any more."""
    _, operational = split_operational(settings)
    lease = settings.ledger.lease_seconds
    token = ledger.head().token + 1
    wanted = Claim(run, owner.current(), token, lease, time.time() + lease, operational)
    refuse_while_held(ledger.store, round_, run, wanted.owner)
    claim = take_claim(ledger.store, round_, wanted)
    if claim.has_lapsed:
        # The store was away for longer than a lease while the claim was written.
        claim = renew_claim(ledger.store, round_, run, claim.token)
    head, etag = ledger.head_etag
    if head.token != claim.token:
        try:
            ledger.store.replace(layout.HEAD, seal(asdict(replace(head, token=claim.token))), etag)
        except ObjectChanged as error:
            raise ClaimHeld(f"round {round_}: another run took it over in this very moment; start again") from error
    ledger.head()
    return claim


def write_plan(ledger: Ledger, round_: int, settings: ExperimentSettings) -> Plan:
    """Write the round's plan, or adopt the one that an earlier attempt wrote."""
    plan = make_plan(ledger, round_, settings)
    return Plan.from_json(ledger.write_document(layout.plan(round_), plan.to_json()))


def make_plan(ledger: Ledger, round_: int, settings: ExperimentSettings) -> Plan:
    """Decide what a round does, from the experiment and its finished rounds alone."""
    spent = queries_before(ledger, round_)
    left = settings.labeling.max_queries - spent
    prompts = ledger.train_prompts()
    size = settings.prompts.rollout_batch_size
    # Offline no query is ever spent: the budget is a number of the set's preferences, one of which each prompt brings.
    most = left - round_ * size if settings.prompts.offline else left
    if not settings.prompts.offline and left >= settings.exploration.duels(size):
        # In APL not every prompt costs a query.
        most = size
    order = prompts_of_round(len(prompts), round_, size, derive(ledger.seed, "prompts"))[:most]
    return Plan(
        round=round_,
        rounds=settings.rounds,
        prompts=tuple(prompts[index] for index in order),
        sampler=ledger.policy_after(refreshed_after(round_, settings.policy.sync_params_every)),
        policy=ledger.policy_after(round_ - 1),
        queries_spent=spent,
        queries_left=left,
        rooms=settings.rooms,
        duels=settings.exploration.duels(size),
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


def queries_before(ledger: Ledger, round_: int) -> int:
    """Count the queries spent in the rounds before."""
    if round_ == STARTING_MODEL + 1:
        return 0
    done = ledger.done(round_ - 1, "labeling")
    return ledger.plan(round_ - 1).queries_spent + (done.counts["queries"] if done else 0)


def _write_prompts(store: Store, split: str, prompts: list[Prompt]) -> Placed:
    data = to_parquet(prompts, Prompt)
    digest = digest_of(data)
    # Named by its content: whoever writes it, writes the same.
    store.put(layout.prompts(split, digest), data)
    return Placed(split, layout.prompts(split, digest), len(data), digest)
