"""What is read of a closed round is what the round was closed with, and costs the same in every round."""

import shutil
from collections import Counter

import pytest
from oatflow.components.errors import DamagedObject, LedgerError
from oatflow.components.ledger import layout
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.records.keep import walk_answers
from oatflow.components.records.sealed import digest_of, seal_document, unseal_document
from oatflow.components.records.tables import JUDGEMENTS, PREFERENCES
from oatflow.components.reporting.page import write_report
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import open_next_round, open_round
from oatflow.components.rounds.running_state import State, extend_state, read_state
from oatflow.components.rounds.steps import run_evaluation, run_labeling, run_sampling, run_train
from oatflow.components.store.local import LocalStore
from oatflow.pipelines.alignment.config import gather

STEPS = (run_sampling, run_labeling, run_train, run_evaluation)


def settings(rounds):
    flags = {
        "rollout_batch_size": "4", "max_queries": str(4 * rounds), "max_eval": "4", "max_train": "8",
        "reward": "length",
    }  # fmt: skip
    return gather("scripted", None, flags).model_dump(mode="json")


def play(uri, wanted, round_):
    assert open_round(uri, wanted, "run") == round_
    for step in STEPS:
        step(Ledger.open(uri), round_, "run")
    close_round(uri, round_, "run")


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Three closed rounds of an experiment that has four."""
    folder = tmp_path_factory.mktemp("chain") / "experiment"
    for round_ in range(3):
        play(folder.as_uri(), settings(4), round_)
    return folder


@pytest.fixture
def uri(played, tmp_path):
    """A copy of it, to be damaged."""
    shutil.copytree(played, tmp_path / "experiment")
    return (tmp_path / "experiment").as_uri()


def go_on(uri):
    play(uri, settings(4), 3)


def test_an_undamaged_experiment_goes_on(uri):
    go_on(uri)
    assert Ledger.open(uri).read_head().round == 3


@pytest.mark.parametrize("room", ["sampling", "labeling", "policy", "evaluation"])
def test_a_mark_of_another_round_in_its_place_is_noticed(uri, room):
    store = Ledger.open(uri).store
    store.put(layout.done_key(2, room), store.get(layout.done_key(1, room)).data)
    with pytest.raises(DamagedObject, match=f"rounds/00002/{room}/done.json: its SHA-256 is .* was closed with"):
        Ledger.open(uri).find_done(2, room)


@pytest.mark.parametrize("room", ["labeling", "policy"])
def test_a_round_is_not_begun_from_marks_that_are_not_the_last_rounds(uri, room):
    store = Ledger.open(uri).store
    store.put(layout.done_key(2, room), store.get(layout.done_key(1, room)).data)
    with pytest.raises(DamagedObject, match="another document is in its place; restore it from a backup"):
        go_on(uri)


@pytest.mark.parametrize("key", [layout.done_key(2, "labeling"), layout.plan_key(2), layout.round_record_key(2)])
def test_a_document_of_a_closed_round_that_is_gone_is_missed_by_name(uri, key):
    Ledger.open(uri).store.delete(key)
    with pytest.raises(DamagedObject, match=f"{key} is missing, and its round is closed: restore"):
        go_on(uri)


def test_an_earlier_round_is_checked_against_the_chain_too(uri):
    store = Ledger.open(uri).store
    store.put(layout.plan_key(0), store.get(layout.plan_key(1)).data)
    with pytest.raises(DamagedObject, match=layout.plan_key(0)):
        Ledger.open(uri).read_plan(0)


def test_a_head_that_names_another_record_is_noticed(uri):
    ledger = Ledger.open(uri)
    head = unseal_document(ledger.store.get(layout.HEAD).data, layout.HEAD)
    ledger.store.put(layout.HEAD, seal_document(head | {"digest": "0" * 64}))
    with pytest.raises(DamagedObject, match=layout.round_record_key(2)):
        go_on(uri)


@pytest.mark.parametrize("round_", [0, 1, 2])
def test_a_damaged_claim_of_a_closed_round_is_named_and_is_no_obstacle(uri, round_):
    store = Ledger.open(uri).store
    claim = store.get(layout.claim_key(round_)).data
    store.put(layout.claim_key(round_), claim[:-20] + b"x" + claim[-19:])
    with pytest.raises(DamagedObject, match=layout.claim_key(round_)):
        list(Ledger.open(uri).verify_objects())
    close_round(uri, 2, "run")
    assert open_next_round(uri, "run") == 3
    go_on(uri)


# The running state.


def test_the_running_state_says_of_all_rounds_what_they_say_themselves(uri):
    ledger = Ledger.open(uri)
    assert ledger.find_running() is not None
    assert ledger.read_marks() == [ledger.gather_marks(round_) for round_ in range(3)]
    for table in (PREFERENCES, JUDGEMENTS):
        asked = {duel for duel in walk_answers(ledger, table, AllDuels(), 3)}
        found, truth = (find(table, asked, 3) for find in (ledger.find_answers, lambda *a: walk_answers(ledger, *a)))
        assert {name: row.first_wins for name, row in found.items()} == {n: r.first_wins for n, r in truth.items()}
        assert len(asked) > 3
    assert ledger.find_record(1).parent == ledger.find_running().records[0]


class AllDuels(set):
    """A set that has every duel."""

    def __contains__(self, duel):
        return True


def test_a_running_state_is_made_again_from_the_rounds_to_the_same(uri):
    ledger, state = Ledger.open(uri), State()
    for round_ in range(3):
        state = extend_state(ledger, state, round_)
    assert state == read_state(ledger)


def test_an_experiment_without_a_running_state_goes_on_and_has_one_then(uri):
    ledger = Ledger.open(uri)
    kept = read_state(ledger)
    parent = digest_of(ledger.store.get(layout.EXPERIMENT).data)
    for round_ in range(3):
        for entry in list(ledger.store.list(layout.running_key(round_, ""))):
            ledger.store.delete(entry.key)
        body = unseal_document(ledger.store.get(layout.round_record_key(round_)).data, "")
        body = {name: value for name, value in body.items() if name != "running"} | {"parent": parent}
        ledger.store.put(layout.round_record_key(round_), seal_document(body))
        parent = digest_of(seal_document(body))
    ledger.store.put(layout.HEAD, seal_document({"round": 2, "digest": parent, "token": ledger.read_head().token}))
    assert Ledger.open(uri).find_running() is None
    go_on(uri)
    after = read_state(Ledger.open(uri))
    assert after.round == 3 and after.marks.startswith(kept.marks)
    assert len(list(Ledger.open(uri).verify_objects())) > 30


def test_a_damaged_running_state_is_noticed(uri):
    store = Ledger.open(uri).store
    key = layout.running_key(2, "preferences.parquet")
    store.put(key, store.get(layout.running_key(2, "judgements.parquet")).data)
    with pytest.raises((DamagedObject, LedgerError), match=key):
        go_on(uri)
    with pytest.raises(DamagedObject, match=key):
        list(Ledger.open(uri).verify_objects())


def test_a_late_round_and_its_report_need_as_many_store_operations_as_early_ones(tmp_path, monkeypatch):
    counted = Counter()
    for name in ("get", "put", "put_if_absent", "replace", "list", "delete", "upload", "download"):
        original = getattr(LocalStore, name)

        def count(self, *given, name=name, original=original):
            counted[name] += 1
            return original(self, *given)

        monkeypatch.setattr(LocalStore, name, count)
    uri, rounds, reports = f"file://{tmp_path}/experiment", [], []
    for round_ in range(14):
        counted.clear()
        play(uri, settings(14), round_)
        rounds.append(counted.total())
        counted.clear()
        write_report(Ledger.open(uri))
        reports.append(counted.total())
    assert max(rounds[8:]) <= 1.1 * min(rounds[3:8]), rounds
    assert max(reports[8:]) <= 1.1 * min(reports[3:8]), reports
