"""Whatever ends a command: at most one line on the screen, never a traceback, and an exit code that says which end."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from oatflow.components.errors import EngineError
from oatflow.components.rounds.opening import open_round
from oatflow.pipelines.alignment.config import gather
from oatflow.pipelines.cli import main
from oatflow.pipelines.command_ending import end_threads_in_one_line
from oatflow.pipelines.laptop import align as align_module
from oatflow.pipelines.laptop.align import _explain_failure

COMMAND = [sys.executable, "-m", "oatflow.pipelines.cli"]


@pytest.fixture
def ends(monkeypatch, capsys, tmp_path):
    """Run a command whose work raises an error; returns its exit code and what it said on standard error."""
    monkeypatch.setenv("OATFLOW_HOME", str(tmp_path / "home"))

    def run(error):
        def fail(*_):
            raise error

        monkeypatch.setattr("oatflow.pipelines.command_table._compile", fail)
        with pytest.raises(SystemExit) as end:
            main(["compile"])
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and said.startswith("oatflow: ") and "Traceback" not in said
        return end.value.code, said

    return run


def run_ending(work, **options):
    """Run some Python as a command in a process of its own."""
    program = f"import sys; from oatflow.pipelines.command_ending import run_to_end; sys.exit(run_to_end({work}))"
    return subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, check=False, **options)


def test_a_reader_that_has_seen_enough_of_a_status_is_no_failure(tmp_path):
    uri = f"file://{tmp_path}/ledger"
    open_round(f"{uri}/demo", gather("scripted", None, {}).model_dump(mode="json"), "a-run")
    for command in (["status", "--ledger", uri, "--json"], ["align", "--help-all"]):
        reader, writer = os.pipe()
        os.close(reader)
        ended = subprocess.run([*COMMAND, *command], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, ""), command


def test_a_bug_is_said_to_be_ours_and_its_traceback_is_in_the_file_that_the_line_names(ends, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "top-secret-key")
    code, said = ends(KeyError("top-secret-key"))
    assert code == 1 and "this is a bug in oatflow, please report it with the file" in said
    log = Path(said.split("the file ")[1].split(": KeyError")[0])
    assert "Traceback" in log.read_text() and "KeyError" in log.read_text()
    assert "top-secret-key" not in said + log.read_text()
    assert log.stat().st_mode & 0o077 == 0, "it is for its user alone"


def test_the_log_of_a_bug_is_in_the_home_folder_if_there_is_one(ends, tmp_path):
    (tmp_path / "home" / "logs").mkdir(parents=True)
    assert str(tmp_path / "home" / "logs") in ends(ZeroDivisionError("division by zero"))[1]


def test_a_bug_is_one_line_even_if_no_log_can_be_written(ends, monkeypatch):
    def refuse(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert "this is a bug in oatflow, please report it with what you did: KeyError" in ends(KeyError("x"))[1]


def test_a_bug_in_a_thread_is_one_line(capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("OATFLOW_HOME", str(tmp_path))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    end_threads_in_one_line()
    thread = threading.Thread(target=lambda: {}["missing"])
    thread.start()
    thread.join()
    said = capfd.readouterr().err
    assert "this is a bug in oatflow" in said and said.count("\n") == 1


def test_an_error_with_the_end_of_a_log_is_its_first_line_and_the_file_with_the_rest(ends):
    code, said = ends(EngineError("the engine did not start; the end of its log:\ngoroutine 1\npanic"))
    assert code == 1 and "goroutine" not in said
    log = Path(said.split("(more: ")[1].rstrip(")\n"))
    assert "goroutine 1\npanic" in log.read_text()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/home/x"), "no space left on the disk for /home/x"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/home/x"), "no space left on the disk for /home/x"),
        (PermissionError(errno.EACCES, "Permission denied", "/home/x"), "/home/x: Permission denied"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/file/x"), "/file/x: Not a directory"),
        (OSError(errno.EROFS, "Read-only file system", "/home/x"), "/home/x: Read-only file system"),
        (MemoryError(), "out of memory"),
        (ModuleNotFoundError("No module named 'kubernetes'", name="kubernetes"), "the package kubernetes is not inst"),
    ],
)
def test_what_is_wrong_with_the_machine_is_no_bug(ends, error, words):
    code, said = ends(error)
    assert code == 1 and said.startswith(f"oatflow: {words}") and "bug" not in said


def test_a_broken_pipe_that_is_not_the_output_is_a_failure(ends):
    assert "BrokenPipeError" in ends(BrokenPipeError(errno.EPIPE, "Broken pipe"))[1]


def test_a_stopped_command_is_one_line_whatever_it_was_doing(ends):
    assert ends(KeyboardInterrupt()) == (130, "oatflow: stopped; run the same command again to continue\n")


def test_an_output_that_is_full_is_named(tmp_path):
    with open("/dev/full", "w") as full:
        ended = run_ending("lambda: print('x' * 100_000) or 0", stdout=full)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("oatflow: no space left on the disk")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_a_character_gets_its_number(encoding):
    ended = run_ending(
        r"lambda: print('5 → 6 \udcff') or 0", stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": encoding}
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout in ("5 \\u2192 6 \\udcff\n", "5 → 6 \\udcff\n")


def test_without_an_output_a_command_does_its_work():
    ended = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m oatflow.pipelines.cli align --help >&-"], stderr=subprocess.PIPE, check=False
    )
    assert ended.returncode == 0


def test_what_the_parser_refuses_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        main(["compile", "--rounds", "many"])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said == "oatflow: argument --rounds: invalid int value: 'many'; see oatflow compile --help\n"


# A pipeline that failed, by what its steps and its log say.

INNER = "RuntimeError: Pipeline 'oatflow-alignment' finished with status FAILURE. Inner task failed: 'label'."


@pytest.fixture
def explained(tmp_path):
    def explain(*events, log="", uri=f"file://{tmp_path}/ledger/demo"):
        (tmp_path / "progress").write_text(
            "".join(json.dumps({"at": 0, "round": 2, **event}) + "\n" for event in events)
        )
        (tmp_path / "log").write_text(f"{log}\n{INNER}\n")
        return str(_explain_failure(tmp_path / "progress", tmp_path / "log", 1, uri))

    return explain


STARTED = {"step": "label", "event": "start"}


def test_a_store_that_is_gone_is_the_cause_of_a_step_that_could_say_nothing(explained, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
    said = explained(STARTED, uri="s3://bucket/demo?endpoint=http://127.0.0.1:9")
    assert said.startswith("the store is gone: ") and "127.0.0.1:9" in said and "Inner task" not in said


def test_a_step_that_was_killed_is_named(explained, monkeypatch):
    monkeypatch.setattr(align_module.Ledger, "read_head", lambda ledger: None)
    said = explained({"step": "open", "event": "end"}, STARTED)
    assert said.startswith("label of round 2 was killed; was the machine out of memory?") and "Inner task" not in said


def test_a_bug_in_a_step_is_said_to_be_ours(explained):
    failed = {"step": "label", "event": "failed", "error": "KeyError: 'x'"}
    said = explained(
        STARTED,
        failed,
        log="oatflow: this is a bug in oatflow, please report it with the traceback above: KeyError: 'x'",
    )
    assert said.startswith("label failed in round 2: this is a bug in oatflow, please report it with the log: KeyError")
