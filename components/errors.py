"""Errors are letters to whoever must act: name, value, expectation, next step.

``exit_code`` is what the command line returns: 2 for input that was refused before anything was written,
3 for an experiment that somebody else is working on, 4 for one that waits for people, 1 for everything else.
"""

from __future__ import annotations


class OatflowError(Exception):
    """Base of every error that oatflow raises on purpose."""

    exit_code = 1


class RefusedInput(OatflowError, ValueError):
    """Something the user gave cannot be used; nothing was written."""

    exit_code = 2


class SettingsError(RefusedInput):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class SettingsChanged(RefusedInput):
    """The experiment exists with other settings that give it its meaning."""


class PromptError(RefusedInput):
    """A prompt set is missing, empty, lacks a column, or has no usable prompt."""


class ModelError(RefusedInput):
    """A model folder lacks weights, tokenizer or configuration, or holds what is not allowed."""


class RecordError(RefusedInput):
    """A table does not have the columns, types or values that its records need."""


class StoreError(OatflowError, OSError):
    """The object store failed."""


class ObjectNotFound(StoreError, FileNotFoundError):
    """There is no object under that key."""


class ObjectExists(StoreError, FileExistsError):
    """A create-only write found the key taken."""


class ObjectChanged(StoreError):
    """A compare-and-swap found another version than the one expected."""


class DamagedObject(StoreError):
    """An object does not have the bytes that were recorded when it was written."""


class StoreUnreachable(StoreError, ConnectionError):
    """The store does not answer, after bounded retries."""

    exit_code = 2


class StoreStaysAway(StoreUnreachable):
    """The store was away for longer than the step was to wait."""

    exit_code = 1


class StoreRefused(StoreError, PermissionError):
    """The store answers, and refuses these credentials or this bucket."""

    exit_code = 2


class UnsafeStore(StoreError):
    """The store breaks the promise of conditional writes; it cannot be shared."""

    exit_code = 2


class LedgerError(OatflowError):
    """The ledger does not hold what a step needs."""


class ClaimHeld(LedgerError):
    """Somebody else works on this experiment right now."""

    exit_code = 3


class ClaimLost(LedgerError):
    """This run's claim was taken over; it may commit nothing any more."""


class EngineError(OatflowError, RuntimeError):
    """The sampling engine failed."""


class OracleError(OatflowError, RuntimeError):
    """The oracle failed, or answered something that is not a probability."""


class LabelsInDoubt(OatflowError):
    """A round's labels teach nothing, or cannot be trusted: no further round is begun until the user says so."""


class WaitingForLabels(OatflowError):
    """People have not answered yet. Nothing failed: the next run carries on when their answers are in the ledger."""

    exit_code = 4


class TrainingFailed(OatflowError, RuntimeError):
    """The training job ended without a checkpoint.

    The first line of the message says why, and what to do; the lines after it are the end of the job's log.
    """


class ClusterError(OatflowError, RuntimeError):
    """The cluster's API refuses, fails, or lacks what is needed; it says nothing about the job itself."""
