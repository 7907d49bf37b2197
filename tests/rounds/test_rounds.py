"""A round from the outside, on a directory store and with scripted rooms."""

import re
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from oatflow.components.errors import ClaimHeld, ClaimLost, DamagedObject, LedgerError, ObjectChanged, SettingsChanged
from oatflow.components.jobs.local import LocalJobs
from oatflow.components.ledger import layout
from oatflow.components.ledger.claim import read_claim, release_claim
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.ledger.windows import check_window, show_folder
from oatflow.components.records.plan import WITHOUT_REWARD_MODEL
from oatflow.components.records.sealed import seal_document
from oatflow.components.rounds import opening
from oatflow.components.rounds.closing import close_round, commit_round
from oatflow.components.rounds.experiment import read_settings
from oatflow.components.rounds.opening import NOTHING_TO_DO, open_next_round, open_round, settings_of_run
from oatflow.components.store.local import LocalStore
from oatflow.pipelines.alignment.config import gather


@pytest.fixture
def uri(tmp_path):
    return f"file://{tmp_path}/experiment"


def settings(**flags):
    return gather("scripted", None, flags).model_dump(mode="json")


def settings_at(ledger, round_):
    """The settings that the steps of a round read."""
    return read_settings(ledger.experiment.settings, ledger.read_claim(round_).operational)


def fill(uri, round_, run, queries=16):
    """Mark every step of a round done, as its rooms would."""
    ledger = Ledger.open(uri)
    for room in WITHOUT_REWARD_MODEL:
        with ledger.open_step(round_, room, run) as step:
            if room == "policy":
                step.write_output("model/weights", f"policy {round_}".encode())
            step.mark_done(counts={"queries": queries} if room == "labeling" else {}, timings={})


def test_rounds_follow_each_other_until_the_budget_is_spent(uri):
    for expected in (0, 1):
        assert open_round(uri, settings(), "run") == expected
        fill(uri, expected, "run")
        close_round(uri, expected, "run")
    assert open_round(uri, settings(), "run") == NOTHING_TO_DO
    assert Ledger.open(uri).read_plan(1).queries_left == 16


# A later round of a run has its settings from the ledger.


def two_rounds(uri, second, **flags):
    """Do a round, open the next one by `second`, and return the ledger."""
    assert open_round(uri, settings(**flags), "run") == 0
    fill(uri, 0, "run")
    close_round(uri, 0, "run")
    assert second(uri) == 1
    return Ledger.open(uri)


def test_a_later_round_of_a_run_is_planned_as_if_the_form_had_been_handed_on(tmp_path):
    flags = {"beta": "0.2", "oracle_batch_size": "3", "sync_params_every": "2"}
    handed_on = two_rounds(f"file://{tmp_path}/a", lambda uri: open_round(uri, settings(**flags), "run"), **flags)
    from_ledger = two_rounds(f"file://{tmp_path}/b", lambda uri: open_next_round(uri, "run"), **flags)
    assert handed_on.read_plan(1) == from_ledger.read_plan(1)
    assert handed_on.read_document(layout.plan_key(1)) == from_ledger.read_document(layout.plan_key(1))


def test_a_later_round_of_a_run_keeps_the_settings_that_the_run_chose_for_itself(uri):

    ledger = two_rounds(uri, lambda uri: open_next_round(uri, "run"), oracle_batch_size="3")
    assert settings_at(ledger, 1).labeling.oracle_batch_size == 3
    claims = [read_claim(ledger.store, round_)[0].operational for round_ in (0, 1)]
    assert claims[0] == claims[1]


def test_a_later_round_has_nothing_to_do_where_its_run_never_opened_one(uri):
    open_round(uri, settings(), "another run")
    assert open_next_round(uri, "run") == NOTHING_TO_DO


def test_a_later_round_has_nothing_to_do_once_the_budget_is_spent(uri):
    two_rounds(uri, lambda uri: open_next_round(uri, "run"))
    fill(uri, 1, "run")
    close_round(uri, 1, "run")
    assert open_next_round(uri, "run") == NOTHING_TO_DO


def test_a_later_round_that_is_opened_again_adopts_its_claim_and_plan(uri):
    before = two_rounds(uri, lambda uri: open_next_round(uri, "run")).read_plan(1)
    assert open_next_round(uri, "run") == 1
    assert Ledger.open(uri).read_plan(1) == before


def test_a_later_round_goes_on_after_another_run_has_done_one_in_between(uri):
    for round_, run in enumerate(("run", "another run")):
        assert open_round(uri, settings(max_queries="48"), run) == round_
        fill(uri, round_, run)
        close_round(uri, round_, run)
        release_claim(Ledger.open(uri).store, round_, run)
    assert open_next_round(uri, "run") == 2


def test_a_later_round_does_not_take_over_what_another_run_holds(uri):
    open_round(uri, settings(), "run")
    fill(uri, 0, "run")
    close_round(uri, 0, "run")
    release_claim(Ledger.open(uri).store, 0, "run")
    assert open_round(uri, settings(), "another run") == 1
    with pytest.raises(ClaimHeld, match="another run"):
        open_next_round(uri, "run")


def test_a_later_round_knows_settings_that_are_younger_than_the_experiment(uri):
    ledger = two_rounds(uri, lambda uri: open_next_round(uri, "run"))
    frozen = dict(ledger.experiment.settings)
    del frozen["resources"]
    found = settings_of_run(replace_experiment(ledger, frozen), "run")
    assert found["resources"]["light_memory_request"] == "512Mi"


def replace_experiment(ledger, frozen):
    """Return the ledger of an experiment that began when fewer settings existed."""
    ledger.__dict__["experiment"] = replace(ledger.experiment, settings=frozen)
    return ledger


def test_a_retried_open_adopts_its_own_claim_and_plan(uri):
    open_round(uri, settings(), "run")
    before = Ledger.open(uri).read_plan(0)
    assert open_round(uri, settings(), "run") == 0
    assert Ledger.open(uri).read_plan(0) == before


def test_another_run_is_told_who_holds_the_round(uri):
    open_round(uri, settings(), "run-a")
    with pytest.raises(ClaimHeld, match="run-a"):
        open_round(uri, settings(), "run-b")


def test_a_claim_that_could_only_be_written_after_its_lease_is_renewed_at_once(uri, monkeypatch):
    # The claim is made, and the store is away for 1000 seconds before it is written.
    monkeypatch.setattr(opening, "time", SimpleNamespace(time=lambda: time.time() - 1000.0))
    open_round(uri, settings(), "run")
    assert not Ledger.open(uri).find_claim(0).has_lapsed


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

    open_round(uri, settings(), "run")
    open_round(uri, settings(oracle_batch_size="3"), "run")
    assert settings_at(Ledger.open(uri), 0).labeling.oracle_batch_size == 3


class Window:
    """An artifact as KFP hands it to a step."""

    def __init__(self, path):
        self.path, self.metadata = str(path), {}


def test_the_artifact_of_the_policy_names_the_checkpoint_where_it_lies(uri, tmp_path):
    open_round(uri, settings(), "run")
    fill(uri, 0, "run")
    ledger, window = Ledger.open(uri), Window(tmp_path / "policy")
    show_folder(window, ledger, 0, "policy", "model")
    (weights,) = ledger.find_done(0, "policy").list_folder("model")
    assert window.metadata["uri"] + "/weights" == f"{uri}/{weights.key}"
    assert (window.metadata["round"], window.metadata["ledger"]) == (0, ledger.store.uri)
    assert re.fullmatch("[0-9a-f]{64}", window.metadata["digest"])
    # KFP stores plain values alone.
    assert {type(value) for value in window.metadata.values()} <= {str, int}
    check_window(window, ledger, 0, "policy")
    assert weights.sha256 in (tmp_path / "policy").read_text()


def test_a_round_is_committed_in_at_most_fourteen_store_operations(uri, monkeypatch):
    open_round(uri, settings(), "run")
    fill(uri, 0, "run")
    ledger, operations = Ledger.open(uri), []
    for name in ("get", "put", "put_if_absent", "replace", "list", "delete"):
        original = getattr(LocalStore, name)

        def counted(self, *given, name=name, original=original):
            operations.append(name)
            return original(self, *given)

        monkeypatch.setattr(LocalStore, name, counted)
    commit_round(ledger, 0, "run")
    assert len(operations) <= 14, operations
    assert ledger.read_head().round == 0


def test_a_round_with_a_missing_step_is_not_closed(uri):
    open_round(uri, settings(), "run")
    with pytest.raises(LedgerError, match=r"sampling/done\.json is missing"):
        close_round(uri, 0, "run")


def test_closing_twice_changes_nothing(uri):
    open_round(uri, settings(), "run")
    fill(uri, 0, "run")
    close_round(uri, 0, "run")
    head = Ledger.open(uri).read_head()
    close_round(uri, 0, "run")
    assert Ledger.open(uri).read_head() == head


def test_what_a_killed_proof_of_the_store_left_behind_is_gone_after_the_first_round(uri):
    Ledger.open(uri).store.put("_proof/0011223344556677", b"create-only 3")
    open_round(uri, settings(), "run-a")
    fill(uri, 0, "run-a")
    close_round(uri, 0, "run-a")
    assert list(Ledger.open(uri).store.list("_proof/")) == []
    assert Ledger.open(uri).read_output("policy", "model/weights", 0) == b"policy 0"


def test_who_was_fenced_off_cannot_move_head_even_after_checking_its_claim(uri, monkeypatch):
    """The narrowest race: the claim is taken over between the owner's last check and its commit."""
    open_round(uri, settings(lease_seconds="2"), "run-a")
    fill(uri, 0, "run-a")
    original = LocalStore.replace

    def overtaken(self, key, data, etag):
        if key == layout.HEAD:
            monkeypatch.setattr(LocalStore, "replace", original)
            claim = Ledger(self).find_claim(0)
            self.put(layout.claim_key(0), seal_document(asdict(claim) | {"expires": 0.0}))
            open_round(uri, settings(), "run-b")
        return original(self, key, data, etag)

    monkeypatch.setattr(LocalStore, "replace", overtaken)
    with pytest.raises(ClaimLost):
        close_round(uri, 0, "run-a")
    assert Ledger.open(uri).read_head().round == -1
    close_round(uri, 0, "run-b")
    assert Ledger.open(uri).read_head().round == 0


def test_every_object_of_a_finished_round_is_verified(uri):
    open_round(uri, settings(), "run")
    fill(uri, 0, "run")
    ledger = close_round(uri, 0, "run")
    keys = {entry.key for entry in ledger.store.list("") if "/digests/" not in entry.key}
    assert set(ledger.verify_objects()) == keys
    for key in sorted(keys):
        intact = ledger.store.get(key).data
        ledger.store.put(key, bytes([intact[0] ^ 1]) + intact[1:])
        with pytest.raises(DamagedObject, match=key):
            list(Ledger.open(uri).verify_objects())
        ledger.store.put(key, intact)
    assert set(Ledger.open(uri).verify_objects()) == keys


def test_optimizer_states_are_kept_as_long_as_asked_and_policies_for_good(uri):
    wanted = settings(max_queries="64", keep_optimizers="2")
    for round_ in range(4):
        open_round(uri, wanted, "run")
        ledger = Ledger.open(uri)
        for room in WITHOUT_REWARD_MODEL:
            with ledger.open_step(round_, room, "run") as step:
                if room == "policy":
                    step.write_output("model/weights", b"w")
                    step.write_output("optimizer/state", b"o")
                step.mark_done(counts={"queries": 16}, timings={})
        close_round(uri, round_, "run")
    keys = [entry.key for entry in Ledger.open(uri).store.list("rounds/") if "/digests/" not in entry.key]
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
    assert Ledger.open(uri).read_head().round == 0


def test_who_takes_a_round_over_ends_the_jobs_of_its_former_owners(uri, monkeypatch):
    reaped = []
    monkeypatch.setattr(LocalJobs, "reap", lambda self, experiment, token: reaped.append((experiment, token)) or [])
    open_round(uri, settings(), "run-a")
    ledger = Ledger.open(uri)
    body = asdict(ledger.find_claim(0)) | {"expires": 0.0}
    ledger.store.put(layout.claim_key(0), seal_document(body))
    open_round(uri, settings(), "run-b")
    assert reaped == [(ledger.identity, 1), (ledger.identity, 2)]


def test_an_experiment_is_the_same_however_its_server_is_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    inside = Ledger.open("s3://bucket/team/demo?endpoint=http://store.kubeflow:9000")
    outside = Ledger.open("s3://bucket/team/demo?endpoint=http://localhost:9000")
    other = Ledger.open("s3://bucket/team/other?endpoint=http://localhost:9000")
    assert inside.identity == outside.identity != other.identity
