"""Tracking, with the real wandb: offline, killed, hanging, without a network, without itself."""

import json
import os
import signal
import struct
import sys
import threading
import time
from pathlib import Path

import pytest
from oatflow.components import progress
from oatflow.components.ledger import layout
from oatflow.components.ledger.claim import Claim
from oatflow.components.ledger.owner import Owner
from oatflow.components.reporting.curves import metrics_of, read_rounds
from oatflow.components.reporting.report import with_answers
from oatflow.components.reporting.settings import TrackingSettings
from oatflow.components.reporting.tracked import DUELS, VERDICTS, run_id, settings_of, tracked_rounds
from oatflow.components.reporting.tracking import track_round

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """What was told while a test ran."""
    file = tmp_path / "progress"
    file.touch()
    monkeypatch.setenv(progress.PROGRESS_FILE, str(file))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return lambda: [json.loads(line)["text"] for line in file.read_text().splitlines()]


@pytest.fixture
def offline(tmp_path):
    return TrackingSettings(track="wandb", wandb_mode="offline", wandb_dir=str(tmp_path / "tracked"))


def runs(settings):
    return sorted(Path(settings.wandb_dir, "wandb").glob("offline-run-*"), key=lambda folder: folder.stat().st_mtime_ns)


def records(folder):
    """Everything in W&B's own file, in its own words."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    found = []
    for data in frames(file.read_bytes()):
        found.append(Record())
        found[-1].ParseFromString(data)
    return found


def frames(data):
    """Cut LevelDB's log format: blocks of 32 KiB, in them chunks of checksum, length and kind, after 7 bytes of W&B."""
    assert data[:4] == b":W&B"
    place, parts = 7, []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last of its parts
            yield b"".join(parts)
            parts = []


def history(folder):
    """The logged values, by step."""
    rows = [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in one.history.item}
        for one in records(folder)
        if one.WhichOneof("record_type") == "history"
    ]
    return {row["_step"]: row for row in rows}


def artifacts(folder):
    """The policies' artifacts; W&B makes others of the tables."""
    found = [one.artifact if one.HasField("artifact") else one.request.log_artifact.artifact for one in records(folder)]
    return [artifact for artifact in found if artifact.type == "model"]


def test_nothing_is_sent_unless_it_is_asked_for(ledger, notes):
    track_round(ledger, 1, TrackingSettings())
    assert notes() == []


def test_the_run_has_one_name_in_all_pipeline_runs_and_another_in_another_experiment(ledger):
    again = type(ledger).open(ledger.store.uri)
    assert run_id(again) == run_id(ledger)
    body = ledger.read_document(layout.EXPERIMENT)
    moved = type(ledger).open(ledger.store.uri + "-other")
    moved.write_document(layout.EXPERIMENT, body)
    assert run_id(moved) != run_id(ledger)


def test_the_settings_are_those_of_the_run_that_did_the_round(ledger):
    owner = Owner("here")
    for round_, tracker in ((0, "wandb"), (1, "mlflow")):
        claim = Claim("run", owner, 1, 60.0, 2e9, {"tracking": {"track": tracker}})
        ledger.write_document(layout.claim_key(round_), claim.to_json())
    assert [settings_of(ledger, round_).track for round_ in (0, 1, 2)] == ["wandb", "mlflow", "none"]


def test_rounds_that_a_tracker_has_are_not_sent_again_and_missed_ones_are(ledger):
    assert [found.number for found in tracked_rounds(ledger, sent=0)] == [0, 1]
    assert [found.number for found in tracked_rounds(ledger, sent=1)] == [1]
    assert list(tracked_rounds(ledger, sent=2)) == []


def test_a_policy_is_told_by_its_place_and_digest(ledger):
    first, _ = tracked_rounds(ledger, sent=0)
    assert first.policy.uri.endswith("first-light/rounds/00000/policy/model")
    assert first.policy.digest == ledger.policy_digest(0)


def test_a_round_that_was_not_judged_has_no_table_of_verdicts(ledger):
    first, second = tracked_rounds(ledger, sent=0)
    assert set(first.tables) == {DUELS, VERDICTS} and set(second.tables) == {DUELS}
    assert len(first.tables[DUELS].rows) == 2, "a clash was not answered"


def test_without_wandb_one_line_says_so(ledger, notes, offline, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    track_round(ledger, 1, offline)
    assert notes() == [
        "round 1 is done, but not tracked (wandb): wandb is not installed here; pip install wandb, or set "
        "tracking.track=none"
    ]


def test_without_a_key_one_line_says_so(ledger, notes, offline):
    track_round(ledger, 1, offline.model_copy(update={"wandb_mode": "online"}))
    assert notes() == [
        "round 1 is done, but not tracked (wandb): wandb_mode='online' takes a key in WANDB_API_KEY, which is not set; "
        "set it, or wandb_mode=offline"
    ]


@pytest.mark.slow
def test_an_offline_folder_holds_every_metric_of_every_round_tables_and_the_policys_place(
    explored_ledger, notes, offline
):
    track_round(explored_ledger, 1, offline)
    assert notes() == []
    (folder,) = runs(offline)
    logged = history(folder)
    assert sorted(logged) == [0, 1]
    for row in with_answers(explored_ledger, read_rounds(explored_ledger)):
        metrics = metrics_of(row)
        assert {name: logged[row.round][name] for name in metrics} == pytest.approx(metrics)
    assert logged[0]["duel_regret"] == 0.5 and logged[1]["seconds_sample"] == 5.0
    table = json.loads((folder / "files" / logged[0][f"{DUELS}.path"]).read_text())
    assert table["columns"][:3] == ["round", "duel_id", "prompt"] and len(table["data"]) == 2
    assert f"{DUELS}.path" in logged[1] and f"{VERDICTS}.path" not in logged[1]
    found = artifacts(folder)
    assert [json.loads(one.metadata)["sha256"] for one in found] == [
        explored_ledger.policy_digest(round_) for round_ in (0, 1)
    ]
    assert [entry.ref for one in found for entry in one.manifest.contents] == [
        policy.policy.uri for policy in tracked_rounds(explored_ledger, sent=0)
    ]
    assert all(not entry.local_path for one in found for entry in one.manifest.contents), "nothing is uploaded"
    metrics = [one.metric for one in records(folder) if one.WhichOneof("record_type") == "metric"]
    assert {metric.step_metric for metric in metrics if metric.step_metric} == {"queries_total"}


@pytest.mark.slow
def test_a_retry_leaves_a_folder_of_the_same_run_with_the_same_rows(ledger, notes, offline):
    track_round(ledger, 1, offline)
    time.sleep(1.1)  # W&B names folders by the second
    track_round(ledger, 1, offline)
    first, second = runs(offline)
    assert first.name.endswith(run_id(ledger)) and second.name.endswith(run_id(ledger))
    of_metrics = [
        {step: {name: row[name] for name in ("win_rate", "loss", "queries_total") if name in row}
         for step, row in history(folder).items()}
        for folder in (first, second)
    ]  # fmt: skip
    assert of_metrics[0] == of_metrics[1] and sorted(of_metrics[0]) == [0, 1]


@pytest.mark.slow
def test_without_a_network_one_line_says_so(ledger, notes, offline, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", NOBODY)
    track_round(ledger, 1, offline.model_copy(update={"wandb_mode": "online", "track_seconds": 12.0}))
    (line,) = notes()
    assert line.startswith("round 1 is done, but not tracked (wandb): ") and "k" * 40 not in line


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
def test_an_end_of_wandbs_process_in_the_middle_is_told_and_disturbs_nothing(ledger, notes, offline, how):
    with struck(how, lambda: any(Path(offline.wandb_dir).glob("wandb/offline-run-*/*.wandb"))) as hit:
        track_round(ledger, 1, offline.model_copy(update={"track_seconds": 12.0}))
    assert hit, "wandb-core never ran"
    (line,) = notes()
    assert line.startswith("round 1 is done, but not tracked (wandb): ")


class struck:
    """Sends the first wandb-core below this process a signal as soon as something is so."""

    def __init__(self, how, when):
        self.how, self.when, self.hit, self.over = how, when, [], threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.over.is_set() and not self.hit:
            for pid in cores() if self.when() else ():
                os.kill(pid, self.how)
                self.hit.append(pid)
            time.sleep(0.005)

    def __enter__(self):
        self.thread.start()
        return self.hit

    def __exit__(self, *error):
        self.over.set()
        self.thread.join()
        for pid in self.hit:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)


def cores():
    """The wandb-cores that this process' children started."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name = (entry / "comm").read_text().strip()
            if name == "wandb-core" and is_ours(int(entry.name)):
                yield int(entry.name)
        except (FileNotFoundError, ProcessLookupError):
            continue


def is_ours(pid):
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if pid == os.getpid():
            return True
    return False
