"""Experiments that an older version began, and was killed in the middle of, are carried on to the same bytes.

`tests/golden/begun-before-round-program/` has each experiment as commit 55d4f45 left it: one round closed, and the next
one killed while the oracle was asked. Beside it are the digests of what that commit made of it in the end. That commit
ended an experiment after a number of rounds; today it goes on until its budget is spent.
"""

import hashlib
import json
import re
import tarfile
from pathlib import Path

import pytest
import torch
from oatflow.components.ledger import layout
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.records.sealed import digest_of, seal_document
from oatflow.components.rounds.opening import NOTHING_TO_DO, open_next_round, open_round

from .round_by_step import play_steps

BEGUN = Path(__file__).parents[1] / "golden" / "begun-before-round-program"
TIMES = re.compile(
    r"done\.json|claim\.json|round\.json|HEAD|receipts-|asking-|\.oatflow-lock|/running/|buffer\.safetensors|/digests/"
)


def objects_of(folder):
    """The digests of all objects but those that hold times, and those that are newer than that commit."""
    return {
        re.sub(r"policy/\d{4}-\w{6}/", "policy/", key): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not TIMES.search(key := path.relative_to(folder).as_posix())
    }


@pytest.mark.parametrize(
    "given_again", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["by its name", "with its settings"]
)
@pytest.mark.parametrize("name", ["passive", "EnnBAITS", "APL"])
def test_an_experiment_of_an_older_version_is_carried_on_to_the_same_bytes(tmp_path, name, given_again):
    with tarfile.open(BEGUN / f"{name}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    golden = json.loads((BEGUN / f"{name}.json").read_text())
    uri = f"file://{tmp_path}/{name}"

    def open_again():
        return open_round(uri, golden["settings"], "before") if given_again else open_next_round(uri, "before")

    while (round_ := open_again()) != NOTHING_TO_DO:
        play_steps(uri, round_, "before")

    ledger = Ledger.open(uri)
    made, before = objects_of(tmp_path / name), golden["objects"]
    # That version ended with what clashes had saved left over. Today more rounds spend it, and later plans count them.
    rounds = 1 + max(int(key.split("/")[1]) for key in before if key.startswith("rounds/"))
    for key in [key for key in made if key.startswith("rounds/") and int(key.split("/")[1]) >= rounds]:
        del made[key]
    for round_ in range(rounds):
        plan = ledger.read_document(layout.plan_key(round_))
        made[layout.plan_key(round_)] = digest_of(seal_document(plan | {"rounds": rounds}))
    asked = [ledger.find_done(number, "labeling").counts["queries"] for number in range(ledger.read_head().round + 1)]
    assert sum(asked) == golden["settings"]["labeling"]["max_queries"]
    assert made.keys() == before.keys()
    if golden["cpu"] == torch.backends.cpu.get_cpu_capability():
        assert made == before
    else:
        # Another processor may round the reward model's numbers otherwise; all else is exact everywhere.
        exact = [key for key in before if not re.search(r"safetensors|sampling/duels", key)]
        assert {key: made[key] for key in exact} == {key: before[key] for key in exact}
    assert len(list(ledger.verify_objects())) > 30
