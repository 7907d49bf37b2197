"""A round from the outside, on a directory store and with scripted rooms."""

import time
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from oatflow.components.errors import ClaimHeld, ClaimLost, DamagedObject, LedgerError, ObjectChanged, SettingsChanged
from oatflow.components.jobs.local import LocalJobs
from oatflow.components.ledger import layout
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.ledger.sealed import seal
from oatflow.components.rounds import opening
from oatflow.components.rounds.closing import close_round, commit
from oatflow.components.rounds.opening import NOTHING_TO_DO, open_round
from oatflow.components.store.local import LocalStore
from oatflow.pipelines.alignment.config import gather


@pytest.fixture
def uri(tmp_path):
    return f"file://{tmp_path}/experiment"


def settings(**flags):
    return gather("scripted", None, flags).model_dump(mode="json")


def fill(uri, round_, run, queries=16):
    """Mark every step of a round done, as its rooms would."""
    ledger = Ledger.open(uri)
    for room in layout.WITHOUT_REWARD_MODEL:
        with ledger.step(round_, room, run) as step:
            if room == "policy":
                step.write("model/weights", f"policy {round_}".encode())
            step.finish(counts={"queries": queries} if room == "labeling" else {}, timings={})


def test_rounds_follow_each_other_until_the_budget_is_spent(uri):
    for expected in (0, 1):
        assert open_round(uri, settings(), "run") == expected
        fill(uri, expected, "run")
        close_round(uri, expected, "run")
    assert open_round(uri, settings(), "run") == NOTHING_TO_DO
    assert Ledger.open(uri).plan(1).queries_left == 16


def test_a_retried_open_adopts_its_own_claim_and_plan(uri):
    open_round(uri, settings(), "run")
    before = Ledger.open(uri).plan(0)
    assert open_round(uri, settings(), "run") == 0
    assert Ledger.open(uri).plan(0) == before


def test_another_run_is_told_who_holds_the_round(uri):
    open_round(uri, settings(), "run-a")
    with pytest.raises(ClaimHeld, match="run-a"):
        open_round(uri, settings(), "run-b")


def test_a_claim_that_could_only_be_written_after_its_lease_is_renewed_at_once(uri, monkeypatch):
    # The claim is made, and the store is away for 1000 seconds before it is written.
    monkeypatch.setattr(opening, "time", SimpleNamespace(time=lambda: time.time() - 1000.0))
    open_round(uri, settings(), "run")
    assert not Ledger.open(uri).claim(0).has_lapsed


def test_numbers_that_kfp_turned_into_floats_mean_the_same(uri):
    open_round(uri, settings(), "run")
    floats = {
        room: {name: float(value) if type(value) is int else value for name, value in section.items()}
        for room, section in settings().items()
    }
    assert open_round(uri, floats, "run") == 0


def test_changed_settings_are_refused_with_every_difference_listed(uri):
    open_round(uri, settings(), "run")
    with pytest.raises(
        SettingsChanged,
        match=r"policy\.beta was 0\.1 and is now 0\.2.*temperature was 1\.0 and is now 0\.5|"
        r"temperature was 1\.0 and is now 0\.5.*policy\.beta was 0\.1 and is now 0\.2",
    ):
        open_round(uri, settings(beta="0.2", temperature="0.5"), "run")


def test_operational_settings_may_change_and_reach_the_steps(uri):
    from oatflow.components.labeling.settings import LabelingSettings

    open_round(uri, settings(), "run")
    open_round(uri, settings(oracle_batch_size="3"), "run")
    assert Ledger.open(uri).section(LabelingSettings, "labeling").oracle_batch_size == 3


def test_a_round_is_committed_in_at_most_ten_store_operations(uri, monkeypatch):
    open_round(uri, settings(), "run")
    fill(uri, 0, "run")
    ledger, operations = Ledger.open(uri), []
    for name in ("get", "put", "put_if_absent", "replace", "list", "delete"):
        original = getattr(LocalStore, name)

        def counted(self, *given, name=name, original=original):
            operations.append(name)
            return original(self, *given)

        monkeypatch.setattr(LocalStore, name, counted)
    commit(ledger, 0, "run")
    assert len(operations) <= 10, operations
    assert ledger.head().round == 0


def test_a_round_with_a_missing_step_is_not_closed(uri):
    open_round(uri, settings(), "run")
    with pytest.raises(LedgerError, match=r"sampling/done\.json is missing"):
        close_round(uri, 0, "run")


def test_closing_twice_changes_nothing(uri):
    open_round(uri, settings(), "run")
    fill(uri, 0, "run")
    close_round(uri, 0, "run")
    head = Ledger.open(uri).head()
    close_round(uri, 0, "run")
    assert Ledger.open(uri).head() == head


def test_who_was_fenced_off_cannot_move_head_even_after_checking_its_claim(uri, monkeypatch):
    """The narrowest race: the claim is taken over between the owner's last check and its commit."""
    open_round(uri, settings(lease_seconds="2"), "run-a")
    fill(uri, 0, "run-a")
    original = LocalStore.replace

    def overtaken(self, key, data, etag):
        if key == layout.HEAD:
            monkeypatch.setattr(LocalStore, "replace", original)
            claim = Ledger(self).claim(0)
            self.put(layout.claim(0), seal(asdict(claim) | {"expires": 0.0}))
            open_round(uri, settings(), "run-b")
        return original(self, key, data, etag)

    monkeypatch.setattr(LocalStore, "replace", overtaken)
    with pytest.raises(ClaimLost):
        close_round(uri, 0, "run-a")
    assert Ledger.open(uri).head().round == -1
    close_round(uri, 0, "run-b")
    assert Ledger.open(uri).head().round == 0


def test_every_object_of_a_finished_round_is_verified(uri):
    open_round(uri, settings(), "run")
    fill(uri, 0, "run")
    ledger = close_round(uri, 0, "run")
    keys = {entry.key for entry in ledger.store.list("")} - {layout.claim(0)}
    assert set(ledger.verify()) == keys
    for key in sorted(keys):
        intact = ledger.store.get(key).data
        ledger.store.put(key, bytes([intact[0] ^ 1]) + intact[1:])
        with pytest.raises(DamagedObject, match=key):
            list(Ledger.open(uri).verify())
        ledger.store.put(key, intact)
    assert set(Ledger.open(uri).verify()) == keys


def test_optimizer_states_are_kept_as_long_as_asked_and_policies_for_good(uri):
    wanted = settings(max_queries="64", keep_optimizers="2")
    for round_ in range(4):
        open_round(uri, wanted, "run")
        ledger = Ledger.open(uri)
        for room in layout.WITHOUT_REWARD_MODEL:
            with ledger.step(round_, room, "run") as step:
                if room == "policy":
                    step.write("model/weights", b"w")
                    step.write("optimizer/state", b"o")
                step.finish(counts={"queries": 16}, timings={})
        close_round(uri, round_, "run")
    keys = [entry.key for entry in Ledger.open(uri).store.list("rounds/")]
    assert [key for key in keys if key.endswith("optimizer/state")] == [
        "rounds/00002/policy/optimizer/state", "rounds/00003/policy/optimizer/state",
    ]  # fmt: skip
    assert sum(key.endswith("model/weights") for key in keys) == 4


def test_who_moved_head_without_hearing_so_has_closed_the_round_although_another_run_went_on(uri, monkeypatch):
    open_round(uri, settings(), "run-a")
    fill(uri, 0, "run-a")
    original = LocalStore.replace

    def answer_lost(self, key, data, etag):
        original(self, key, data, etag)
        if key == layout.HEAD:
            monkeypatch.setattr(LocalStore, "replace", original)
            open_round(uri, settings(), "run-b")
            raise ObjectChanged(key)

    monkeypatch.setattr(LocalStore, "replace", answer_lost)
    close_round(uri, 0, "run-a")
    assert Ledger.open(uri).head().round == 0


def test_who_takes_a_round_over_ends_the_jobs_of_its_former_owners(uri, monkeypatch):
    reaped = []
    monkeypatch.setattr(LocalJobs, "reap", lambda self, experiment, token: reaped.append((experiment, token)) or [])
    open_round(uri, settings(), "run-a")
    ledger = Ledger.open(uri)
    body = asdict(ledger.claim(0)) | {"expires": 0.0}
    ledger.store.put(layout.claim(0), seal(body))
    open_round(uri, settings(), "run-b")
    assert reaped == [(ledger.identity, 1), (ledger.identity, 2)]


def test_an_experiment_is_the_same_however_its_server_is_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    inside = Ledger.open("s3://bucket/team/demo?endpoint=http://store.kubeflow:9000")
    outside = Ledger.open("s3://bucket/team/demo?endpoint=http://localhost:9000")
    other = Ledger.open("s3://bucket/team/other?endpoint=http://localhost:9000")
    assert inside.identity == outside.identity != other.identity
