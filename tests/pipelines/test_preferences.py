"""Preferences out of an experiment: what is in them, and that datasets, TRL and Argilla's format take them."""

import json
import math
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from oatflow.components.errors import RefusedInput
from oatflow.components.records.plan import Plan, PolicyPointer
from oatflow.components.records.records import Duel, Preference, Prompt, duel_id
from oatflow.components.records.table import to_parquet
from oatflow.pipelines.data.preferences import TEXTS, Preferred, export_preferences, gather

TRL = "trl==1.16.0"
ORACLE = "simulated/vader-3.3.2/T=0.1"


def duel(number, strategy=None, **more):
    texts = f"Say {number}", f"good {number}", f"bad {number}"
    return Duel(duel_id(*texts), f"p{number}", *texts, 0, 1, False, strategy, **more)


def answer(of, wins=0.9, **more):
    chosen = "first" if wins > 0.5 else "second"
    told = {"first_wins": wins, "chosen": chosen, "first_reward": 0.8, "second_reward": 0.1, "oracle": ORACLE}
    return Preference(of.duel_id, of.prompt_id, **{"clash": False, **told, **more})


NOTHING = {"first_wins": None, "chosen": None, "first_reward": None, "second_reward": None}
MEMBERS = duel(3, "EnnBAITS", synthetic=True, member=7, member_first_wins=1.0, predicted=0.6, uncertainty=0.1)
CLASH = replace(duel(4), second="good 4", clash=True)
ROUND_0 = [
    (duel(0), answer(duel(0))),
    (duel(1), answer(duel(1), 0.2, orders="both")),
    # The oracle's probability says first; noise made it second.
    (duel(2), answer(duel(2), chosen="second")),
    (MEMBERS, answer(MEMBERS, 1.0, oracle="ensemble", synthetic=True, first_reward=None, second_reward=None)),
    (CLASH, answer(CLASH, **NOTHING, clash=True)),
    (duel(5), answer(duel(5), **NOTHING, unreadable=True)),
    (duel(6), answer(duel(6), **NOTHING, undecided=True)),
    (duel(7), None),
]
ROUND_1 = [(duel(8, "XPO"), answer(duel(8, "XPO"))), (duel(9), answer(duel(9)))]
OUTSIDE = Prompt("000000-aa", "Say what", None, "this", "that")


@pytest.fixture
def ledger(begin_ledger):
    """Two rounds; the second learns from a preference made elsewhere, too."""
    settings = {
        "prompts": {}, "labeling": {}, "policy": {"pretrain": "org/start"}, "ledger": {"seed": 7},
        "outside": {"outside_preferences": "org/elsewhere"},
    }  # fmt: skip
    policies = [PolicyPointer(-1, "start"), PolicyPointer(0, "after-0")]
    plans = [Plan(0, 2, (), policies[0], policies[0], 0, 9),
             Plan(1, 2, (), policies[1], policies[1], 3, 6, outside=(OUTSIDE,))]  # fmt: skip
    ledger, _ = begin_ledger("kinder", settings, plans)
    for round_, rows in enumerate((ROUND_0, ROUND_1)):
        answers = [answer for _, answer in rows if answer is not None]
        with ledger.open_step(round_, "sampling", "a") as step:
            step.write_output("duels.parquet", to_parquet([duel for duel, _ in rows], Duel))
            step.mark_done({}, {})
        with ledger.open_step(round_, "labeling", "a") as step:
            step.write_output("preferences-0000.parquet", to_parquet(answers[:2], Preference))
            step.write_output("preferences-0001.parquet", to_parquet(answers[2:], Preference))
            step.mark_done({}, {})
    return ledger


def test_chosen_and_rejected_are_as_they_were_labelled_whatever_side_and_noise(ledger):
    rows = gather(ledger, [0]).rows
    assert [(row.prompt, row.chosen, row.rejected) for row in rows[:3]] == [
        ("Say 0", "good 0", "bad 0"), ("Say 1", "bad 1", "good 1"), ("Say 2", "bad 2", "good 2"),
    ]  # fmt: skip
    assert [(row.first_wins, row.chosen_side, row.orders) for row in rows[:3]] == [
        (0.9, "first", None), (0.2, "second", "both"), (0.9, "second", None),
    ]  # fmt: skip
    assert (rows[1].chosen_reward, rows[1].rejected_reward) == (0.1, 0.8)


def test_what_has_no_label_is_left_out_and_counted(ledger):
    found = gather(ledger, [0])
    assert len(found.rows) == 4
    assert found.left_out == {"clashes": 1, "unreadable": 1, "undecided": 1, "not asked": 1}
    assert str(found) == (
        "4 preferences (1 ensemble, 3 oracle); left out: 1 clashes, 1 not asked, 1 undecided, 1 unreadable"
    )


def test_every_row_says_where_it_is_from(ledger):
    rows = gather(ledger, [0, 1]).rows
    assert [(row.round, row.origin) for row in rows] == [
        (0, "oracle"), (0, "oracle"), (0, "oracle"), (0, "ensemble"), (1, "oracle"), (1, "oracle"), (1, "outside"),
    ]  # fmt: skip
    of_member = rows[3]
    assert (of_member.synthetic, of_member.member, of_member.strategy) == (True, 7, "EnnBAITS")
    assert (of_member.predicted, of_member.uncertainty) == (0.6, 0.1)
    assert {row.experiment for row in rows} == {"kinder"}
    assert rows[6].oracle == "org/elsewhere" and rows[6].prompt_id == OUTSIDE.prompt_id


def test_every_answer_says_which_policy_wrote_it(ledger):
    rows = gather(ledger, [0, 1]).rows
    assert (rows[0].chosen_policy, rows[0].rejected_policy) == ("start", "start")
    assert (rows[4].chosen_policy, rows[4].rejected_policy) == ("after-0", "start"), "the reference drew XPO's second"
    assert (rows[5].chosen_policy, rows[5].rejected_policy) == ("after-0", "after-0")
    assert rows[6].chosen_policy is None


@pytest.mark.parametrize(("format_", "messages"), [("parquet", False), ("parquet", True), ("jsonl", True),
                                                   ("argilla", False)])  # fmt: skip
def test_the_same_rounds_give_the_same_bytes(ledger, tmp_path, format_, messages):
    for name in ("once", "again"):
        export_preferences(ledger, [0, 1], tmp_path / name, format_, messages)
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("once", "again")]
    assert files[0] == files[1] and len(files[0]) == 2


def test_datasets_loads_the_folder_with_the_types_of_its_columns(ledger, tmp_path):
    datasets = pytest.importorskip("datasets")
    export_preferences(ledger, [0, 1], tmp_path / "out", "parquet", messages=False)
    where = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    loaded = datasets.load_dataset("parquet", data_files=str(tmp_path / "out/preferences.parquet"), **where)
    types = {name: feature.dtype for name, feature in loaded.features.items()}
    assert list(types)[:3] == ["prompt", "chosen", "rejected"] and types["prompt"] == "string"
    assert (types["round"], types["first_wins"], types["synthetic"]) == ("int64", "float64", "bool")
    assert [Preferred(**row) for row in loaded] == list(gather(ledger, [0, 1]).rows)
    by_folder = datasets.load_dataset(str(tmp_path / "out"), **where)
    assert by_folder.to_list() == loaded.to_list()


def test_messages_are_what_trl_puts_into_a_chat_template(ledger, tmp_path):
    export_preferences(ledger, [0], tmp_path / "table", "parquet", messages=True)
    export_preferences(ledger, [0], tmp_path / "lines", "jsonl", messages=True)
    row = pq.read_table(tmp_path / "table/preferences.parquet").to_pylist()[0]
    assert row["prompt"] == [{"role": "user", "content": "Say 0"}]
    assert row["chosen"] == [{"role": "assistant", "content": "good 0"}]
    lines = (tmp_path / "lines/preferences.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == row and len(lines) == 4


def test_argillas_records_show_the_duel_as_it_was_and_suggest_the_label(ledger, tmp_path):
    export_preferences(ledger, [0, 1], tmp_path / "out", "argilla", messages=False)
    records = [json.loads(line) for line in (tmp_path / "out/records.jsonl").read_text().splitlines()]
    assert len({record["id"] for record in records}) == 7
    second = records[1]
    assert second["fields"] == {"prompt": "Say 1", "response_left": "good 1", "response_right": "bad 1"}
    assert second["suggestions"] == {"preference": {"value": "right", "agent": ORACLE, "score": 0.8}}
    assert second["metadata"]["orders"] == "both" and None not in second["metadata"].values()
    assert "score" not in records[6]["suggestions"]["preference"]


def test_the_card_says_what_is_in_it_and_what_is_not(ledger, tmp_path):
    export_preferences(ledger, [0, 1], tmp_path / "out", "parquet", messages=False)
    text = (tmp_path / "out/README.md").read_text()
    assert "7 preferences (1 ensemble, 5 oracle, 1 outside)" in text and ORACLE in text and "`org/start`" in text
    assert all(f"- `{name}`" in text for name in Preferred.__slots__)
    assert str(tmp_path) not in text


def test_rounds_without_a_label_are_refused_and_leave_nothing(begin_ledger, tmp_path):
    ledger, _ = begin_ledger("none", {"prompts": {}, "ledger": {"seed": 1}},
                             [Plan(0, 1, (), *[PolicyPointer(-1, "start")] * 2, 0, 9)])  # fmt: skip
    with ledger.open_step(0, "sampling", "a") as step:
        step.write_output("duels.parquet", to_parquet([CLASH], Duel))
        step.mark_done({}, {})
    with ledger.open_step(0, "labeling", "a") as step:
        step.write_output("preferences-0000.parquet", to_parquet([answer(CLASH, **NOTHING, clash=True)], Preference))
        step.mark_done({}, {})
    with pytest.raises(RefusedInput, match="round 0 have no preference with a label"):
        export_preferences(ledger, [0], tmp_path / "out", "parquet", messages=False)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_not_written_into(ledger, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RefusedInput, match="there are files in that folder"):
        export_preferences(ledger, [0], tmp_path, "parquet", messages=False)


@pytest.mark.slow
@pytest.mark.parametrize("messages", [False, True], ids=["text", "messages"])
def test_trl_trains_a_step_on_them(ledger, make_model, trl, tmp_path, messages):
    export_preferences(ledger, [0, 1], tmp_path / "out", "parquet", messages)
    model = make_model(tmp_path / "model", 0, "float32")
    program = Path(__file__).with_name("train_with_trl.py")
    alone = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [trl, program, model, tmp_path / "out/preferences.parquet", tmp_path / "trained"],
        capture_output=True, text=True, timeout=240, env=alone,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["steps"] == 1 and math.isfinite(told["loss"])
    assert {*TEXTS} <= set(told["columns"])


@pytest.fixture(scope="module")
def trl(tmp_path_factory):
    """The Python of an environment of its own, that has TRL and sees what this one has."""
    folder = tmp_path_factory.mktemp("trl")
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    theirs = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    Path(theirs.stdout.strip(), "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet", TRL]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.fail(f"{TRL} cannot be installed; this test needs a package index. {done.stderr.strip()[-500:]}")
    return python
