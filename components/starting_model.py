"""The model that an experiment begins with, on this machine."""

from __future__ import annotations

from pathlib import Path

from .ledger.ledger import Ledger
from .model_folder import resolve_pretrain


def starting_folder(ledger: Ledger) -> Path:
    """Return the starting model's folder on this machine."""
    policy = ledger.experiment.settings["policy"]
    return resolve_pretrain(
        str(policy["pretrain"]),
        trust_remote_code=trusts_remote_code(ledger),
        allow_pickled_weights=unpickles_weights(ledger),
        stores=ledger.setting_stores,
    )


def trusts_remote_code(ledger: Ledger) -> bool:
    """Whether the code that the starting model brings along may be run."""
    return bool(ledger.experiment.settings["policy"].get("trust_remote_code", False))


def unpickles_weights(ledger: Ledger) -> bool:
    """Whether the starting model's weights may be pickles."""
    return bool(ledger.experiment.settings["policy"].get("allow_pickled_weights", False))
