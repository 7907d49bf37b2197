"""Killed anywhere and started again, an experiment ends as if nothing had happened.

A round's steps run in a child process whose directory store kills it with SIGKILL at one chosen write: just before
it, or just after. Every write of two rounds is chosen in turn.
"""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from oatflow.components.ledger import owner
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import NOTHING_TO_DO, open_round
from oatflow.components.rounds.steps import run_evaluation, run_labeling, run_sampling, run_train
from oatflow.components.store.local import LocalStore
from oatflow.pipelines.alignment.config import gather

WRITES = ("put", "put_if_absent", "replace", "upload", "delete")
SETTINGS = gather(
    "scripted",
    None,
    {"rollout_batch_size": "6", "max_queries": "12", "max_eval": "4", "oracle_batch_size": "2", "bt_sample": "true"},
).model_dump(mode="json")


def experiment(folder: Path, run: str) -> None:
    """Do every round that is left, as one pipeline run would."""
    uri = f"file://{folder}/ledger"
    while (round_ := open_round(uri, SETTINGS, run)) != NOTHING_TO_DO:
        ledger = Ledger.open(uri)
        for step in (run_sampling, run_labeling, run_train, run_evaluation):
            step(ledger, round_, run)
        close_round(uri, round_, run)


def in_child(folder: Path, run: str, kill_at: int | None = None, before: bool = True) -> int:
    """Run the experiment in a forked child; returns its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.environ["OATFLOW_ORACLE_LOG"] = str(folder / "asked")
            os.environ["OATFLOW_PROGRESS"] = str(folder / "progress")
            os.environ.update(owner.environment_of(owner.this_process()))
            count_writes(folder / "writes", kill_at, before)
            experiment(folder, run)
            code = 0
        except BaseException as error:
            print(f"run {run}: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def count_writes(log: Path, kill_at: int | None, before: bool) -> None:
    """Note every write of the store, and die at the chosen one."""
    written = 0
    for name in WRITES:
        as_it_is = getattr(LocalStore, name)

        def deadly(self, key, *given, original=as_it_is, name=name):
            nonlocal written
            if key.startswith("_proof/"):
                return original(self, key, *given)
            written += 1
            with log.open("a") as file:
                file.write(f"{name} {key}\n")
            if written == kill_at and before:
                os.kill(os.getpid(), signal.SIGKILL)
            outcome = original(self, key, *given)
            if written == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return outcome

        setattr(LocalStore, name, deadly)


def truth(folder: Path) -> dict[str, bytes]:
    """The bytes of all plans, duels and preferences, by key."""
    root = folder / "ledger"
    found = [
        path for pattern in ("plan.json", "duels.parquet", "preferences-*.parquet") for path in root.rglob(pattern)
    ]
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert in_child(folder, "only") == 0
    return folder


def test_an_undisturbed_experiment_asks_each_duel_once(undisturbed):
    asked = Counter((undisturbed / "asked").read_text().split())
    assert len(asked) > 10 and set(asked.values()) == {1}
    # Two rounds for the budget, and a third for what their clashes saved.
    assert len([key for key in truth(undisturbed) if key.endswith("plan.json")]) == 3


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_some_writes_it_ends_with_the_same_bytes_and_no_duel_is_asked_twice(undisturbed, tmp_path, before):
    for kill_at in range(8, count(undisturbed) + 1, 40):
        kill_and_go_on(undisturbed, tmp_path / str(kill_at), kill_at, before)


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_any_write_it_ends_with_the_same_bytes_and_no_duel_is_asked_twice(undisturbed, tmp_path, before):
    for kill_at in range(1, count(undisturbed) + 1):
        kill_and_go_on(undisturbed, tmp_path / str(kill_at), kill_at, before)


def count(folder: Path) -> int:
    return len((folder / "writes").read_text().splitlines())


def kill_and_go_on(undisturbed: Path, folder: Path, kill_at: int, before: bool) -> None:
    """Kill a run at one write, let another run finish, and compare with a run that was never killed."""
    write = (undisturbed / "writes").read_text().splitlines()[kill_at - 1]
    folder.mkdir()
    assert in_child(folder, "first", kill_at, before) == -signal.SIGKILL, write
    asked_before = (folder / "asked").read_text().split() if (folder / "asked").exists() else []
    assert in_child(folder, "second") == 0, write
    assert truth(folder) == truth(undisturbed), write
    assert len(list(Ledger.open(f"file://{folder}/ledger").verify_objects())) > 20
    twice = [duel for duel, times in Counter((folder / "asked").read_text().split()).items() if times > 1]
    # The one batch whose answers died with the process, in the instant before they were durable.
    in_flight = asked_before[-2:] if before and ("preferences-" in write or "judgements-" in write) else []
    assert set(twice) <= set(in_flight), write
