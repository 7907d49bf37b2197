"""Open a round: begin the experiment if it is new, claim the next round, write its plan."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from .. import progress
from ..errors import ClaimHeld, DamagedObject, LabelsInDoubt, ObjectChanged
from ..jobs.backends import open_jobs
from ..ledger import layout, owner
from ..ledger.claim import Claim, read_claim, refuse_while_held, renew_claim, take_claim
from ..ledger.ledger import Ledger
from ..records.sealed import seal_document
from .alarms import find_alarm
from .annotation_files import is_answered
from .beginning import begin_experiment, check_inputs, has_begun
from .ending import find_end
from .experiment import ExperimentSettings, Sections, read_settings, refuse_changes, split_operational
from .planning import keep_raised_budget, write_plan

NOTHING_TO_DO = -1
# Rounds of one run at most, and so how far back its own last round can be.
LONGEST_RUN = 10


def open_round(uri: str, settings: Mapping[str, Any], run: str) -> int:
    """Open the experiment's next round for `run`; returns its number.

    NOTHING_TO_DO when the experiment has ended, which is printed with its reason, or when people have been asked and
    have not answered yet.

    Raises `RefusedInput` for settings, prompts or a model that cannot be used, `SettingsChanged`, `ClaimHeld`, and
    `LabelsInDoubt` after a round with an alarm that is not accepted.
    """
    begun = owner.process_start()
    wanted = ExperimentSettings.parse(restore_whole_numbers(settings))
    ledger = Ledger.open(uri, wanted.ledger.store_patience_seconds)
    if not has_begun(ledger):
        begin_experiment(ledger, wanted, check_inputs(wanted, ledger.setting_stores))
    refuse_changes(ledger.experiment.settings, wanted, uri)
    wanted = keep_raised_budget(ledger, wanted)
    round_ = ledger.head_etag[0].round + 1
    if end := find_end(ledger, round_, wanted):
        print(end, flush=True)
        return NOTHING_TO_DO
    if alarm := find_alarm(ledger, round_ - 1, wanted):
        raise LabelsInDoubt(alarm)
    if waits_for_people(ledger, round_, wanted):
        return NOTHING_TO_DO
    with progress.report_step("open", round_, begun) as told:
        claim = claim_round(ledger, round_, wanted, run)
        # Jobs of a former owner of this round would train on for nobody.
        open_jobs(wanted.jobs).reap(ledger.identity, claim.token)
        plan = write_plan(ledger, round_, wanted)
        counts = {"prompts": len(plan.prompts)}
        told |= {"queries_spent": plan.queries_spent, "rounds_planned": plan.rounds, "counts": counts}
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
    newest, damaged = ledger.read_head().round + 1, None
    # The newest round is this run's own where it waits for people; another run may have done some in between.
    for round_ in range(newest, max(-1, newest - LONGEST_RUN - 1), -1):
        try:
            found = read_claim(ledger.store, round_)
        except DamagedObject as damage:
            # It may be another run's, or an older one of this run.
            found, damaged = None, damage
        if found is not None and found[0].run == run:
            frozen, chosen = ledger.experiment.settings, found[0].operational
            return {name: {**frozen.get(name, {}), **chosen.get(name, {})} for name in {**frozen, **chosen}}
    if damaged is not None:
        raise damaged
    return None


def find_newest_settings(ledger: Ledger) -> ExperimentSettings:
    """Return the experiment's settings, with its newest budget and what its newest run chose for itself."""
    newest = ledger.read_head().round + 1
    claims = (ledger.find_readable_claim(round_) for round_ in (newest, newest - 1) if round_ >= 0)
    return read_settings(ledger.experiment.settings, next((claim.operational for claim in claims if claim), {}))


def waits_for_people(ledger: Ledger, round_: int, settings: ExperimentSettings) -> bool:
    """Whether the round has asked people who have not answered yet, so that a run could only wait."""
    if not settings.asks_people or ledger.find_done(round_, "labeling") is not None:
        return False
    return not is_answered(ledger, round_, settings.human) and not settings.human.human_wait_minutes


def restore_whole_numbers(settings: Any) -> Any:
    """Undo what KFP does to numbers inside a dict: it hands 2 over as 2.0."""
    if isinstance(settings, Mapping):
        return {name: restore_whole_numbers(value) for name, value in settings.items()}
    return int(settings) if isinstance(settings, float) and settings.is_integer() else settings


def claim_round(ledger: Ledger, round_: int, settings: ExperimentSettings, run: str) -> Claim:
    """Take the round's claim, and fence HEAD with its token: the former owner cannot move it any more."""
    _, operational = split_operational(settings)
    lease = settings.ledger.lease_seconds
    head, etag = ledger.head_etag
    token = head.token + 1
    wanted = Claim(run, owner.current_owner(), token, lease, time.time() + lease, operational)
    refuse_while_held(ledger.store, round_, run, wanted.owner)
    claim = take_claim(ledger.store, round_, wanted)
    if claim.has_lapsed:
        # The store was away for longer than a lease while the claim was written.
        claim = renew_claim(ledger.store, round_, run, claim.token)
    if head.token != claim.token:
        try:
            ledger.store.replace(layout.HEAD, seal_document(asdict(replace(head, token=claim.token))), etag)
        except ObjectChanged as error:
            raise ClaimHeld(f"round {round_}: another run took it over in this very moment; start again") from error
    ledger.forget_head()
    return claim
