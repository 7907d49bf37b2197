import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from oatflow.components.errors import ClaimHeld, ClaimLost, StoreUnreachable
from oatflow.components.ledger import layout, owner
from oatflow.components.ledger.claim import (
    Claim,
    ClaimKeeper,
    kept_claim,
    read_claim,
    refuse_while_held,
    release_claim,
    renew_claim,
    take_claim,
    verify_claim,
    watch_claim,
)
from oatflow.components.records.sealed import seal_document
from oatflow.components.store.local import LocalStore
from oatflow.components.store.store import open_store


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}/experiment")


def claim(run, lease=60.0, token=1, who=None):
    return Claim(run, who or owner.Owner("somewhere"), token, lease, time.time() + lease)


def test_a_free_round_is_claimed(store):
    assert take_claim(store, 0, claim("a")).token == 1


def test_a_held_round_names_its_holder_and_the_end_of_the_claim(store):
    until = take_claim(store, 0, claim("run-a")).until[:13]
    with pytest.raises(ClaimHeld, match=rf"run-a.*somewhere.*until {until}"):
        take_claim(store, 0, claim("run-b"))


def test_the_same_run_adopts_its_own_claim_under_the_same_token(store):
    take_claim(store, 0, claim("a", token=7))
    assert take_claim(store, 0, claim("a", token=9)).token == 7


def test_an_expired_claim_is_taken_over_with_a_higher_token(store):
    take_claim(store, 0, claim("a", lease=-1, token=4))
    assert take_claim(store, 0, claim("b", token=4)).token == 5


def test_who_lost_the_claim_can_neither_verify_nor_renew_it(store):
    old = take_claim(store, 0, claim("a", lease=-1))
    take_claim(store, 0, claim("b"))
    with pytest.raises(ClaimLost, match="held by run 'b'"):
        verify_claim(store, 0, "a")
    with pytest.raises(ClaimLost):
        renew_claim(store, 0, "a", old.token)


def test_an_expired_claim_that_nobody_took_can_still_be_renewed(store):
    old = take_claim(store, 0, claim("a", lease=-1))
    assert read_claim(store, 0)[0].has_lapsed
    assert renew_claim(store, 0, "a", old.token).token == old.token


def test_the_claim_of_a_dead_process_on_this_host_is_free_at_once(store):
    child = subprocess.run(
        [sys.executable, "-c",
         "import json, dataclasses; from oatflow.components.ledger import owner; "
         "print(json.dumps(dataclasses.asdict(owner.this_process())))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    dead = owner.Owner(**json.loads(child.stdout))
    assert dead.is_dead
    take_claim(store, 0, claim("a", who=dead))
    assert take_claim(store, 0, claim("b")).run == "b"


def test_a_living_process_and_an_unknown_host_are_not_dead():
    alive = owner.this_process()
    assert not alive.is_dead
    assert not replace(alive, host="elsewhere", pid=2**22).is_dead
    assert not owner.Owner("pod-1").is_dead


def test_between_two_rounds_a_living_process_keeps_its_experiment(store):
    me, other = owner.this_process(), owner.Owner("another-host")
    take_claim(store, 0, claim("a", who=me))
    with pytest.raises(ClaimHeld, match=r"round 0 .*run 'a'"):
        refuse_while_held(store, 1, "b", other)
    refuse_while_held(store, 1, "c", me)


def test_between_two_rounds_a_pod_or_a_dead_process_keeps_nothing(store):
    take_claim(store, 0, claim("a", who=owner.Owner("pod-1")))
    refuse_while_held(store, 1, "b", owner.this_process())
    take_claim(store, 1, claim("a", who=replace(owner.this_process(), started=1.0)))
    refuse_while_held(store, 2, "b", owner.this_process())


def test_of_eight_claimants_one_wins(store):
    for round_ in range(20):
        barrier, winners, losers = threading.Barrier(8), [], []

        def race(run, round_=round_, barrier=barrier, winners=winners, losers=losers):
            barrier.wait()
            try:
                winners.append(take_claim(store, round_, claim(run)).run)
            except ClaimHeld:
                losers.append(run)

        threads = [threading.Thread(target=race, args=(f"run-{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(winners), len(losers)) == (1, 7)
        assert read_claim(store, round_)[0].run == winners[0]


def test_the_keeper_renews_while_a_step_works(store):
    taken = take_claim(store, 0, claim("a", lease=0.3))
    keeper = ClaimKeeper(store, 0, taken)
    keeper.start()
    time.sleep(0.8)
    keeper.stop()
    assert keeper.loss is None
    assert read_claim(store, 0)[0].expires > taken.expires + 0.3


def test_the_keeper_interrupts_a_step_whose_claim_is_taken_over(store):
    keeper = ClaimKeeper(store, 0, take_claim(store, 0, claim("a", lease=0.3)))
    time.sleep(0.4)
    take_claim(store, 0, claim("b"))
    with pytest.raises(KeyboardInterrupt):
        keeper.start()
        time.sleep(5)
    keeper.stop()
    assert isinstance(keeper.loss, ClaimLost)


def test_a_claim_is_kept_alive_while_another_process_only_watches_it(store):
    take_claim(store, 0, claim("a", lease=0.6))
    with kept_claim(store, 0, "a") as kept:
        watcher = ClaimKeeper(store, 0, kept, renews=False)
        watcher.start()
        time.sleep(1.5)
        watcher.stop()
        assert watcher.loss is None


def test_who_watches_a_claim_stops_when_nobody_keeps_it_alive_any_more(store):
    watcher = ClaimKeeper(store, 0, take_claim(store, 0, claim("a", lease=0.5)), renews=False)
    with pytest.raises(KeyboardInterrupt):
        watcher.start()
        time.sleep(5)
    watcher.stop()
    assert "ran out" in str(watcher.loss)


def test_a_job_does_not_begin_under_a_claim_that_has_run_out(store):
    taken = take_claim(store, 0, claim("a", lease=0.05))
    time.sleep(0.1)
    with pytest.raises(ClaimLost, match="the step that kept it alive is gone"):
        watch_claim(store, 0, "a", taken.token)


def test_keeping_a_claim_that_is_taken_over_ends_in_its_loss(store):
    take_claim(store, 0, claim("a", lease=0.5))
    with pytest.raises(ClaimLost, match="held by run 'b'"), kept_claim(store, 0, "a"):
        held, _ = read_claim(store, 0)
        store.put("rounds/00000/claim.json", seal_document(replace(held, run="b", token=held.token + 1).to_json()))
        time.sleep(5)


class Away:
    """A store that waits while it is away, as a patient store does; `back` ends that."""

    def __init__(self, store, fails=None):
        self._store, self.back, self.fails = store, threading.Event(), fails

    def __getattr__(self, name):
        def ask(*given):
            self.back.wait(10)
            if self.fails is not None:
                raise self.fails
            return getattr(self._store, name)(*given)

        return ask

    def patient(self, seconds, before_retry=None):
        return self


def test_a_claim_that_lapsed_while_the_store_was_away_is_renewed_and_the_work_goes_on(store):
    away = Away(store)
    keeper = ClaimKeeper(away, 0, take_claim(store, 0, claim("a", lease=0.3)))
    keeper.start()
    time.sleep(0.8)
    assert read_claim(store, 0)[0].has_lapsed
    away.back.set()
    wait_until(lambda: not read_claim(store, 0)[0].has_lapsed)
    keeper.stop()
    assert keeper.loss is None


def test_a_claim_that_another_run_took_while_the_store_was_away_is_lost(store):
    away = Away(store)
    keeper = ClaimKeeper(away, 0, take_claim(store, 0, claim("a", lease=0.2)))
    with pytest.raises(KeyboardInterrupt):
        keeper.start()
        time.sleep(0.4)
        taken = take_claim(store, 0, claim("b"))
        away.back.set()
        time.sleep(5)
    keeper.stop()
    assert "held by run 'b'" in str(keeper.loss)
    assert read_claim(store, 0)[0] == taken


def test_a_claim_that_lapsed_is_given_up_when_the_store_stays_away(store):
    gone = StoreUnreachable("no answer for 10 min")
    away = Away(store, gone)
    keeper = ClaimKeeper(away, 0, take_claim(store, 0, claim("a", lease=0.2)))
    with pytest.raises(KeyboardInterrupt):
        keeper.start()
        time.sleep(0.4)
        away.back.set()
        time.sleep(5)
    keeper.stop()
    assert "ran out while the store failed: no answer for 10 min" in str(keeper.loss)


def test_a_step_that_ends_while_the_store_is_away_loses_nothing(store):
    away = Away(store, StoreUnreachable("it was told to stop"))
    keeper = ClaimKeeper(away, 0, take_claim(store, 0, claim("a", lease=0.1)))
    keeper.start()
    time.sleep(0.3)
    threading.Timer(0.2, away.back.set).start()
    keeper.stop()
    assert keeper.loss is None


@pytest.mark.slow
def test_who_watches_a_claim_gives_its_keeper_time_after_the_store_was_away(store):
    taken = take_claim(store, 0, claim("a", lease=2.0))
    away = Away(store)
    watcher = ClaimKeeper(away, 0, taken, renews=False)
    watcher.start()
    time.sleep(2.5)
    away.back.set()
    time.sleep(1.2)
    assert read_claim(store, 0)[0].has_lapsed and watcher.loss is None
    renew_claim(store, 0, "a", taken.token)
    time.sleep(1.2)
    watcher.stop()
    assert watcher.loss is None


@pytest.mark.slow
def test_an_outage_while_the_keeper_is_waited_for_gives_it_its_time_again(store):
    taken = take_claim(store, 0, claim("a", lease=0.5))
    looks = []

    def pause(seconds):
        looks.append(seconds)

    class Slow(LocalStore):
        def get(self, key):
            if len(looks) == 5:
                time.sleep(1.1)
            return super().get(key)

    time.sleep(0.6)
    with pytest.raises(ClaimLost, match="the step that kept it alive is gone"):
        watch_claim(Slow(store.folder), 0, "a", taken.token, pause)
    assert len(looks) == 15 and sum(looks) == pytest.approx(0.75)


def test_a_claim_says_how_long_its_run_waits_for_the_store_and_an_older_one_means_the_default():
    assert claim("a").store_patience_seconds == 600
    chosen = replace(claim("a"), operational={"ledger": {"store_patience_seconds": 30, "of_the_future": 1}})
    assert Claim.from_json(chosen.to_json()).store_patience_seconds == 30


def wait_until(truth, seconds=5):
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_claimants_clock_that_is_wrong_robs_no_living_run_and_spares_no_dead_one(store, monkeypatch, hours):
    """The claimant's clock is an hour behind or ahead of the holder's; the store has the right time."""
    right = time.time
    take_claim(store, 0, claim("alive", lease=600.0))
    take_claim(store, 1, claim("dead", lease=600.0))
    os.utime(store.folder / layout.claim_key(1), times=(0, right() - 601))
    monkeypatch.setattr(time, "time", lambda: right() + hours * 3600)
    with pytest.raises(ClaimHeld, match="run 'alive'"):
        take_claim(store, 0, claim("b", lease=600.0))
    with pytest.raises(ClaimHeld, match="run 'alive'"):
        refuse_while_held(store, 0, "b", owner.Owner("elsewhere"))
    assert take_claim(store, 1, claim("b", lease=600.0)).run == "b"
    assert verify_claim(store, 1, "b")[0].expires > right() + hours * 3600, "its own clock, and yet it is held"
    assert not read_claim(store, 1)[0].is_free


def test_a_claim_that_was_given_up_is_free_at_once(store):
    take_claim(store, 0, claim("a", lease=600.0))
    release_claim(store, 0, "a")
    assert take_claim(store, 0, claim("b")).run == "b"


def test_where_the_store_does_not_date_its_objects_a_claim_ends_by_this_machines_clock(store, monkeypatch):
    monkeypatch.setattr(LocalStore, "get", lambda self, key, get=LocalStore.get: replace(get(self, key), age=None))
    take_claim(store, 0, claim("a", lease=600.0))
    with pytest.raises(ClaimHeld):
        take_claim(store, 0, claim("b"))
    take_claim(store, 1, replace(claim("a", lease=600.0), expires=time.time() - 1))
    assert take_claim(store, 1, claim("b")).run == "b"
