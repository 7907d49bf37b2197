"""The whole pipeline as users start it, on scripted rooms: the compiled YAML under kfp.local, a directory as store."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter

import pytest
from oatflow.components.records.records import Receipt
from oatflow.components.records.table import from_parquet
from oatflow.pipelines.alignment.config import gather
from oatflow.pipelines.alignment.form import form_arguments
from oatflow.pipelines.alignment.pipeline import compile_pipeline

COMMAND = [sys.executable, "-m", "oatflow.pipelines.cli"]
# Every test needs whole runs of the command, which are many processes each.
pytestmark = pytest.mark.slow

BATCH = 6
STEPS = ("open", "sample", "label", "train", "evaluate", "close")


def oatflow(folder, *arguments, **options):
    environment = {**os.environ, "OATFLOW_HOME": str(folder / "home"), "OATFLOW_ORACLE_LOG": str(folder / "asked")}
    store = ["--ledger", f"file://{folder}/ledger"]
    return subprocess.run(
        [*COMMAND, *arguments, *store],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        check=False,
        **options,
    )


def align(folder, *flags):
    return oatflow(folder, "align", "--preset", "scripted", "--rollout-batch-size", "8", "--max-queries", "16", *flags)


def status(folder):
    return json.loads(oatflow(folder, "status", "demo", "--json").stdout)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    first = align(folder, "--rounds", "1")
    assert first.returncode == 0, first.stderr
    between = status(folder)
    second = align(folder)
    assert second.returncode == 0, second.stderr
    return folder, between, second.stdout


def test_a_run_does_the_rounds_it_was_asked_for_and_the_next_run_carries_on(finished):
    folder, between, _ = finished
    assert (between["rounds_done"], between["rounds_planned"]) == (1, 3)
    # Its clashes have saved queries, which pay for a third round.
    done = status(folder)
    assert (done["rounds_done"], done["rounds_planned"], done["queries"]) == (3, 3, 16)
    assert "16 of 16 queries are spent" in done["ended"]


def test_status_reports_what_was_measured_from_the_ledger_alone(finished):
    report = status(finished[0])
    assert report["queries"] <= report["max_queries"] == 16
    for row in report["rounds"]:
        assert 0 <= row["low"] <= row["win_rate"] <= row["high"] <= 1
    assert report["head"]["round"] == 2 and len(report["head"]["digest"]) == 64


def test_the_report_is_one_page_that_needs_no_network(finished):
    page = (finished[0] / "home" / "reports" / "demo.html").read_text()
    assert "<svg" in page and 'http-equiv="refresh"' not in page
    assert 'src="http' not in page and 'href="http' not in page


def test_the_last_lines_show_the_rounds_and_the_reports_path(finished):
    out = finished[2]
    assert "Report: " in out and str(finished[0]) in out.replace("\n", "")


def test_a_finished_experiment_says_so_and_does_nothing_more(finished):
    folder = finished[0]
    before = status(folder)["head"]
    again = align(folder)
    assert again.returncode == 0 and status(folder)["head"] == before


def test_an_existing_name_is_no_new_experiment(finished):
    again = align(finished[0], "--new", "demo")
    assert again.returncode == 2 and "that experiment exists" in again.stderr


def test_every_object_is_intact(finished):
    out = oatflow(finished[0], "status", "demo", "--verify")
    assert out.returncode == 0 and "each is what was written" in out.stdout


def test_changed_settings_on_an_existing_experiment_are_listed(finished):
    changed = align(finished[0], "--beta", "0.3")
    assert changed.returncode == 2 and "policy.beta was 0.1 and is now 0.3" in changed.stderr


def test_a_pipeline_with_more_rounds_than_the_budget_pays_for_ends_well_and_does_nothing(finished, tmp_path):
    folder = finished[0]
    compile_pipeline(1, tmp_path / "alignment.yaml")
    before = status(folder)
    settings = gather("scripted", None, {"rollout_batch_size": "8", "max_queries": "16"})
    arguments = form_arguments(before["ledger"], settings)
    command = [sys.executable, "-m", "oatflow.pipelines.laptop.local_run"]
    command += ["--pipeline", str(tmp_path / "alignment.yaml"), "--arguments", json.dumps(arguments)]
    command += ["--outputs", str(tmp_path)]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd=tmp_path)
    assert run.wait(timeout=240) == 0
    assert status(folder)["head"] == before["head"]


# Offline: a preference set in the place of sampling and asking.


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("offline")
    run = align(folder, "--prompt-data", "oatflow:review-preferences", "--chosen-key", "chosen", "--rejected-key",
                "rejected", "--eval-every", "0", "--max-queries", "12")  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


def test_offline_both_rounds_learn_from_the_set_and_nobody_is_asked(offline):
    folder, _ = offline
    report = status(folder)
    assert (report["rounds_done"], report["rounds_planned"]) == (2, 2)
    assert (report["queries"], report["preferences"], report["max_queries"]) == (0, 12, 12)
    assert [(row["labels"], row["pairs"], row["generated_tokens"]) for row in report["rounds"]] == [
        (8, 8, 0),
        (4, 4, 0),
    ]
    assert not (folder / "asked").exists()


def test_offline_no_query_and_no_win_rate_is_shown_as_if_it_were(offline):
    folder, out = offline
    assert "8 preferences" in out and "Preferences" in out
    page = (folder / "home" / "reports" / "demo.html").read_text()
    assert "After 12 preferences nothing has been evaluated yet" in page
    for never in ("win rate", "Win rate", "of 12 queries", "Queries"):
        assert never not in out
    assert 'id="win-rate"' not in page and "Oracle queries" not in page


def test_offline_status_says_what_was_learned_from_and_every_object_is_intact(offline):
    out = oatflow(offline[0], "status", "demo", "--verify")
    assert out.returncode == 0 and "each is what was written" in out.stdout
    assert "learned  from 12 of 12 preferences of the set" in out.stdout and "queries  " not in out.stdout


def start(folder):
    environment = {**os.environ, "OATFLOW_HOME": str(folder / "home"), "OATFLOW_ORACLE_LOG": str(folder / "asked")}
    command = [*COMMAND, "align", "--preset", "scripted", "--rollout-batch-size", "8", "--max-queries", "16",
               "--ledger", f"file://{folder}/ledger"]  # fmt: skip
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def truth(folder):
    root = folder / "ledger" / "demo"
    found = [
        path for pattern in ("plan.json", "duels.parquet", "preferences-*.parquet") for path in root.rglob(pattern)
    ]
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def with_receipts(folder):
    parts = (folder / "ledger" / "demo").rglob("receipts-*.parquet")
    return {row.duel_id for part in parts for row in from_parquet(part.read_bytes(), Receipt, part.name)}


@pytest.mark.parametrize("step", STEPS)
def test_killed_in_any_step_and_started_again_it_ends_the_same(finished, tmp_path, step, wait_for):
    running = start(tmp_path)
    wait_for(tmp_path, step, "start")
    running.send_signal(signal.SIGKILL)
    running.wait()
    answered = with_receipts(tmp_path)
    again = align(tmp_path)
    assert again.returncode == 0, again.stderr
    assert truth(tmp_path) == truth(finished[0])
    asked = Counter((tmp_path / "asked").read_text().split())
    twice = {duel for duel, times in asked.items() if times > 1}
    # One batch may have been in flight. Its answers died with the process and cost nothing, so it is asked again.
    assert not twice & answered and len(twice) <= BATCH
    assert max(asked.values()) <= 2


def test_of_two_at_once_one_works_and_the_other_says_who_and_until_when(tmp_path, wait_for):
    running = start(tmp_path)
    wait_for(tmp_path, "open", "end")
    second = align(tmp_path)
    assert second.returncode == 3
    assert f"process {running.pid}" in second.stderr and "holds until" in second.stderr
    assert running.wait(timeout=120) == 0, running.stderr.read()


def test_ctrl_c_stops_everything_that_was_started(tmp_path, wait_for):
    running = start(tmp_path)
    wait_for(tmp_path, "sample", "start")
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=120) == 130
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout.split()
    assert left == []


def test_a_machines_own_store_that_is_killed_ends_the_command_with_the_cause(tmp_path, wait_for):
    """Whatever step meets it: also one that has not read yet how long its run wants to wait."""
    command = [*COMMAND, "align", "--preset", "scripted", "--store-patience-seconds", "3"]
    running = subprocess.Popen(
        command, env={**os.environ, "OATFLOW_HOME": str(tmp_path / "home")}, cwd=tmp_path, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for(tmp_path, "open", "end")
    server = json.loads((tmp_path / "home" / "s3" / "server.json").read_text())["pid"]
    os.kill(server, signal.SIGKILL)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 1
    last = said.strip().splitlines()[-1]
    assert re.search(r"no answer from http://127.0.0.1:\d+ for 3 s \(.*; check that the server runs", last)
    assert "Run the same command again to continue" in last


def test_five_experiments_may_begin_at_once_in_one_home(tmp_path):
    flags = ("align", "--preset", "scripted", "--rollout-batch-size", "4", "--max-queries", "4", "--max-eval", "2")
    home = {**os.environ, "OATFLOW_HOME": str(tmp_path / "home")}
    command = [*COMMAND, *flags, "--ledger", f"file://{tmp_path}/ledger"]
    runs = [
        subprocess.Popen(
            [*command, "--new", f"demo-{number}"], env=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for number in range(5)
    ]
    said = [run.communicate(timeout=600)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 5, said
    assert len(list((tmp_path / "home" / "reports").glob("demo-?.html"))) == 5
    assert not list((tmp_path / "home").glob("alignment-*")) and not list((tmp_path / "home" / "tmp").glob("run-*"))


def test_of_four_starts_of_one_experiment_one_works_and_the_others_say_who(tmp_path):
    flags = ("align", "--preset", "scripted", "--rollout-batch-size", "4", "--max-queries", "4", "--max-eval", "2")
    home = {**os.environ, "OATFLOW_HOME": str(tmp_path / "home")}
    command = [*COMMAND, *flags, "--ledger", f"file://{tmp_path}/ledger", "--experiment", "demo"]
    runs = [
        subprocess.Popen(command, env=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(4)
    ]
    said = [run.communicate(timeout=600)[0] for run in runs]
    worked = [text for run, text in zip(runs, said, strict=True) if run.returncode == 0]
    assert worked, said
    for text in (text for run, text in zip(runs, said, strict=True) if run.returncode):
        assert "Traceback" not in text and re.search(r"is being worked on|another run", text), text
