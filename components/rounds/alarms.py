"""What stops a run after a round whose labels teach nothing, or cannot be trusted."""

from __future__ import annotations

from ..errors import LabelsInDoubt
from ..labeling.alarms import ALARMS
from ..ledger.ledger import Ledger
from .experiment import ExperimentSettings, read_settings


def find_alarm(ledger: Ledger, round_: int, settings: ExperimentSettings) -> str | None:
    """Return what is wrong with the labels of a finished round, and how to go on; None where nothing is, or it may be.

    A round of a version that checked nothing has no alarm.
    """
    done = ledger.find_done(round_, "labeling") if round_ >= 0 else None
    alarms = done.facts.get(ALARMS) if done else None
    if not alarms or round_ <= settings.labeling.accepted_alarms:
        return None
    return (
        f"round {round_} is done, and its labels are in doubt: {' '.join(alarms)} No further round is begun. To go on "
        f"all the same, set labeling.accepted_alarms to {round_} (--accepted_alarms {round_})"
    )


def stop_in_doubt(ledger: Ledger, round_: int) -> None:
    """Raise `LabelsInDoubt` after a round with an alarm that its run does not accept."""
    claim = ledger.find_readable_claim(round_)
    settings = read_settings(ledger.experiment.settings, claim.operational if claim else {})
    if alarm := find_alarm(ledger, round_, settings):
        raise LabelsInDoubt(alarm)
