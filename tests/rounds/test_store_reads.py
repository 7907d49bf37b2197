"""How often a round reads from its store: each read is a request to a server."""

import threading
from collections import Counter

import pytest
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import open_round
from oatflow.components.rounds.steps import run_evaluation, run_fit, run_labeling, run_sampling, run_train
from oatflow.components.store.local import LocalStore
from oatflow.pipelines.alignment.config import gather

SMALL = {"rollout_batch_size": "6", "max_queries": "12", "max_eval": "4", "reward": "length"}
READS_BEFORE = 138
"""Reads of round 0 before a step passed values on; measured on the first version of this pipeline."""


@pytest.fixture
def reads(monkeypatch):
    """The keys that have been read from a store since the counter was cleared, and how often."""
    counter, inside = Counter(), threading.local()

    def counted(read):
        def count(store, key, *more):
            # A store's own look at an object, in the middle of a compare-and-swap, is no request.
            if getattr(inside, "store", None):
                return read(store, key, *more)
            inside.store = store
            counter[key] += 1
            try:
                return read(store, key, *more)
            finally:
                inside.store = None

        return count

    def quiet(write):
        def call(store, *given):
            before, inside.store = getattr(inside, "store", None), store
            try:
                return write(store, *given)
            finally:
                inside.store = before

        return call

    for name in ("get", "list", "download"):
        monkeypatch.setattr(LocalStore, name, counted(getattr(LocalStore, name)))
    for name in ("put", "put_if_absent", "replace", "upload"):
        monkeypatch.setattr(LocalStore, name, quiet(getattr(LocalStore, name)))
    return counter


def steps_of(uri, settings, round_):
    """Yield each step of a round as a function that does it, as a process of its own would."""
    yield lambda: open_round(uri, settings, "run")
    learns = "EnnBAITS" in str(settings["exploration"])
    for step in (run_sampling, run_labeling, run_train, *((run_fit,) if learns else ()), run_evaluation):
        yield lambda step=step: step(Ledger.open(uri), round_, "run")
    yield lambda: close_round(uri, round_, "run")


@pytest.mark.parametrize("flags", [{}, {"exp_method": "EnnBAITS", "num_ensemble": "3"}], ids=["passive", "EnnBAITS"])
def test_a_step_reads_each_object_once_but_for_the_claim(tmp_path, reads, flags):
    settings = gather("scripted", None, SMALL | flags).model_dump(mode="json")
    for round_ in (0, 1):
        for step in steps_of(f"file://{tmp_path}/experiment", settings, round_):
            reads.clear()
            step()
            often = {
                key: times
                for key, times in reads.items()
                # HEAD may move while an experiment begins; the proof that the store is safe is read by design.
                if times > 1 and "claim.json" not in key and key != "HEAD.json" and not key.startswith("_proof")
            }
            assert often == {}


def test_a_round_reads_two_fifths_of_what_it_used_to_and_its_answers_once_more_for_the_running_state(tmp_path, reads):
    settings = gather("scripted", None, SMALL).model_dump(mode="json")
    for step in steps_of(f"file://{tmp_path}/experiment", settings, 0):
        step()
    assert reads.total() <= 0.4 * READS_BEFORE + 2
