"""A training whose store goes away: worker 0 waits for it, the other one waits for worker 0."""

import pytest

from ..rounds.absent_store import KEYS, AbsentStore, Memory

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kind", "written"), [("refuses", "reference.parquet"), ("500", "model.safetensors")])
def test_two_workers_train_on_when_the_store_was_away_for_several_leases(new_trial, monkeypatch, kind, written):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    store = AbsentStore(Memory())
    trial = new_trial(train_workers=2)
    trial.uri = f"s3://bucket/trial?endpoint={store.endpoint}"
    trial.settings["ledger"] |= {"lease_seconds": 2.0}
    trial.open(0)
    store.leave(kind, 8.0, lambda method, path: method == "PUT" and written in path)
    assert trial.train(0).counts["pairs"] == 5
    assert store.outages == 1
    trial.close(0)
    assert len(list(trial.ledger.verify_objects())) > 10
    store.close()
