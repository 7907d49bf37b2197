import os
import time
from dataclasses import asdict, replace

import pytest
from oatflow.components.errors import ClaimLost, DamagedObject, LedgerError
from oatflow.components.ledger import layout, owner
from oatflow.components.ledger.claim import Claim, take_claim
from oatflow.components.ledger.ledger import Head, Ledger
from oatflow.components.records.sealed import seal_document
from oatflow.components.store.local import LocalStore
from oatflow.components.store.transfer import download_folder


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger.open(f"file://{tmp_path}/experiment")
    ledger.store.put(layout.HEAD, seal_document(asdict(Head(-1, "0" * 64, 0))))
    claim_for(ledger, "a")
    return ledger


def claim_for(ledger, run, lease=60.0):
    return take_claim(ledger.store, 0, Claim(run, owner.Owner("here"), 1, lease, time.time() + lease))


def lose_claim(ledger, run):
    """Let `run` take the round over although it is held, as after a long pause of the holder."""
    body = asdict(ledger.find_claim(0)) | {"expires": 0.0}
    ledger.store.put(layout.claim_key(0), seal_document(body))
    claim_for(ledger, run)


def let_claim_lapse(ledger):
    """Let the claim be older than its lease."""
    os.utime(ledger.store.folder / layout.claim_key(0), times=(0, time.time() - 65.0))
    assert ledger.find_claim(0).has_lapsed


def sampled(ledger, run="a", data=b"rows"):
    with ledger.open_step(0, "sampling", run) as step:
        if step.done is None:
            step.write_output("duels.parquet", data)
            step.mark_done(counts={"duels": 1}, timings={"work": 0.5})
        return step.done


def test_a_finished_step_is_adopted_when_run_again(ledger):
    first = sampled(ledger)
    again = sampled(ledger, data=b"other rows")
    assert again == first
    assert ledger.read_output("sampling", "duels.parquet", 0) == b"rows"
    with ledger.open_step(0, "sampling", "a") as step:
        assert step.done == first  # before any work is done again


def test_what_a_killed_attempt_wrote_stands_and_is_returned_to_the_next(ledger):
    with pytest.raises(RuntimeError), ledger.open_step(0, "sampling", "a") as step:
        step.write_output("candidates.parquet", b"first attempt")
        raise RuntimeError("killed")
    with ledger.open_step(0, "sampling", "a") as step:
        assert step.write_output("candidates.parquet", b"second attempt") == b"first attempt"


def test_nothing_is_done_without_a_claim(ledger):
    with pytest.raises(ClaimLost, match="held by run 'a'"), ledger.open_step(0, "sampling", "b"):
        pass


def test_who_lost_the_claim_commits_nothing(ledger):
    with pytest.raises(ClaimLost), ledger.open_step(0, "sampling", "a") as step:
        lose_claim(ledger, "b")
        step.write_output("duels.parquet", b"rows")
    with pytest.raises(ClaimLost), ledger.open_step(0, "sampling", "a") as step:
        step.mark_done(counts={}, timings={})
    assert [entry.key for entry in ledger.store.list("rounds/00000/sampling")] == []


def test_who_loses_the_claim_before_the_mark_leaves_the_step_undone(ledger):
    with pytest.raises(ClaimLost), ledger.open_step(0, "sampling", "a") as step:
        step.write_output("duels.parquet", b"rows")
        lose_claim(ledger, "b")
        step.mark_done(counts={}, timings={})
    assert ledger.find_done(0, "sampling") is None


def test_a_step_records_what_it_read(ledger):
    sampled(ledger)
    with ledger.open_step(0, "labeling", "a") as step:
        step.read_output("sampling", "duels.parquet")
        done = step.mark_done(counts={}, timings={})
    assert set(done.inputs) == {layout.done_key(0, "sampling"), layout.output_key(0, "sampling", "duels.parquet")}


def test_an_input_that_is_not_there_is_named(ledger):
    with pytest.raises(LedgerError, match="sampling is not done"), ledger.open_step(0, "labeling", "a") as step:
        step.read_output("sampling", "duels.parquet")


def test_a_flipped_byte_in_an_input_is_noticed_by_name(ledger):
    sampled(ledger)
    key = layout.output_key(0, "sampling", "duels.parquet")
    ledger.store.put(key, b"rowt")
    with pytest.raises(DamagedObject, match=key), ledger.open_step(0, "labeling", "a") as step:
        step.read_output("sampling", "duels.parquet")


def test_folders_of_two_attempts_do_not_mix(ledger, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(RuntimeError), ledger.open_step(0, "policy", "a") as step:
        (folder / "weights").write_bytes(b"killed before the mark")
        step.upload_folder("model", folder)
        raise RuntimeError("killed")
    with ledger.open_step(0, "policy", "a") as step:
        (folder / "weights").write_bytes(b"second attempt")
        step.upload_folder("model", folder)
        step.mark_done(counts={}, timings={})
    with ledger.open_step(0, "evaluation", "a") as step:
        step.download_folder("policy", "model", tmp_path / "fetched")
    assert (tmp_path / "fetched" / "weights").read_bytes() == b"second attempt"


def test_a_failure_is_told_to_whoever_watches(ledger, tmp_path, monkeypatch):
    watched = tmp_path / "progress"
    monkeypatch.setenv("OATFLOW_PROGRESS", str(watched))
    with pytest.raises(RuntimeError), ledger.open_step(0, "sampling", "a"):
        raise RuntimeError("no memory left")
    assert '"event": "failed", "error": "RuntimeError: no memory left"' in watched.read_text()


def test_a_claim_that_lapsed_is_renewed_before_an_act_that_cannot_be_undone(ledger):
    with ledger.open_step(0, "sampling", "a") as step:
        let_claim_lapse(ledger)
        step.write_output("duels.parquet", b"rows")
        assert not ledger.find_claim(0).has_lapsed


def test_a_step_that_begins_after_an_outage_renews_the_claim_first(ledger):
    let_claim_lapse(ledger)
    with ledger.open_step(0, "sampling", "a"):
        assert not ledger.find_claim(0).has_lapsed


def test_a_write_that_is_repeated_after_an_outage_is_not_done_once_another_run_has_the_round(ledger, monkeypatch):
    written = []

    def patient(self, seconds, before_retry=None):
        store = LocalStore(self.folder)
        store.before_retry = before_retry
        return store

    def away(self, key, data):
        lose_claim(Ledger(LocalStore(self.folder)), "b")
        self.before_retry()
        written.append(key)

    monkeypatch.setattr(LocalStore, "patient", patient)
    with pytest.raises(ClaimLost, match="held by run 'b'"), ledger.open_step(0, "sampling", "a") as step:
        monkeypatch.setattr(step._store, "put_if_absent", away.__get__(step._store))
        step.write_output("duels.parquet", b"rows")
    assert written == []


def test_a_step_waits_for_the_store_as_long_as_its_run_chose(ledger, monkeypatch):
    chosen = []
    monkeypatch.setattr(LocalStore, "patient", lambda self, seconds, _=None: chosen.append(seconds) or self)
    body = asdict(ledger.find_claim(0)) | {"operational": {"ledger": {"store_patience_seconds": 77}}}
    ledger.store.put(layout.claim_key(0), seal_document(body))
    with ledger.open_step(0, "sampling", "a"):
        pass
    assert set(chosen) == {77}
    assert ledger.patience_seconds == 77


def test_a_step_on_one_machine_waits_as_its_run_chose_before_it_has_read_its_claim(ledger, monkeypatch):
    assert Ledger.open(ledger.store.uri).patience_seconds == 600
    monkeypatch.setenv("OATFLOW_STORE_PATIENCE", "30.0")
    assert Ledger.open(ledger.store.uri).patience_seconds == 30
    assert Ledger.open(ledger.store.uri, 7).patience_seconds == 7


class SpoiltOnce(LocalStore):
    """Damages the first answer for each key, as a cache or a proxy in between may; `always`: all of them."""

    always = False

    def __init__(self, folder):
        super().__init__(folder)
        self.spoilt = set()

    def get(self, key):
        blob = super().get(key)
        if key in self.spoilt and not self.always:
            return blob
        self.spoilt.add(key)
        return replace(blob, data=blob.data[:-3] + b"???")

    def download(self, key, path):
        path.write_bytes(self.get(key).data)


def test_an_answer_that_was_damaged_on_its_way_is_read_again(ledger, tmp_path):
    sampled(ledger)
    with ledger.open_step(0, "policy", "a") as step:
        (tmp_path / "weights").mkdir()
        (tmp_path / "weights" / "model").write_bytes(b"weights")
        step.upload_folder("model", tmp_path / "weights")
        step.mark_done(counts={}, timings={})
    spoilt = Ledger(SpoiltOnce(ledger.store.folder))
    assert spoilt.read_head().round == -1
    assert spoilt.read_output("sampling", "duels.parquet", 0) == b"rows"
    assert spoilt.find_claim(0).run == "a"
    placed = spoilt.find_done(0, "policy").list_folder("model")
    download_folder(spoilt.store, placed, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "model").read_bytes() == b"weights"
    spoilt.store.always = True
    with pytest.raises(DamagedObject, match="restore"):
        spoilt.read_head()


def test_a_damaged_output_of_a_killed_attempt_is_noticed(ledger):
    with pytest.raises(RuntimeError), ledger.open_step(0, "sampling", "a") as step:
        step.write_output("candidates.parquet", b"first attempt")
        raise RuntimeError("killed")
    key = layout.output_key(0, "sampling", "candidates.parquet")
    ledger.store.put(key, b"first attemqt")
    with ledger.open_step(0, "sampling", "a") as step:
        with pytest.raises(DamagedObject, match="was written; restore it from a backup"):
            step.find_output("candidates.parquet")
        with pytest.raises(DamagedObject, match="the step makes it again"):
            step.write_output("candidates.parquet", b"second attempt")


def test_an_output_whose_attempt_was_killed_before_its_digest_was_written_is_used(ledger):
    ledger.store.put(layout.output_key(0, "sampling", "candidates.parquet"), b"first attempt")
    with ledger.open_step(0, "sampling", "a") as step:
        assert step.find_output("candidates.parquet") == b"first attempt"
