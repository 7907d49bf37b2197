"""Folders of runs: each run has its own, and those of killed runs are cleared away, whoever looks."""

import subprocess
import sys

import pytest
from oatflow.pipelines.laptop.scratch import make_scratch

RUN = """
import sys
from pathlib import Path
from oatflow.pipelines.laptop.scratch import make_scratch
with make_scratch(Path(sys.argv[1])) as folder:
    (folder / "weights").write_bytes(b"1")
    print(folder, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def start(tmp_path):
    runs = []

    def start():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        runs.append(subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], **pipes))
        return runs[-1], runs[-1].stdout.readline().strip()

    yield start
    for run in runs:
        run.kill()
        run.communicate()


def folders(tmp_path):
    return {str(path) for path in tmp_path.iterdir() if path.is_dir()}


def test_a_run_has_a_folder_of_its_own_until_it_ends(tmp_path, start):
    run, folder = start()
    with make_scratch(tmp_path) as own:
        assert folders(tmp_path) == {folder, str(own)}
    assert folders(tmp_path) == {folder}
    run.communicate("\n", timeout=60)
    assert folders(tmp_path) == set()


def test_the_folder_of_a_killed_run_is_cleared_away_by_the_next(tmp_path, start):
    run, folder = start()
    run.kill()
    run.wait()
    with make_scratch(tmp_path) as own:
        assert folders(tmp_path) == {str(own)} != {folder}


def test_a_folder_is_in_use_whatever_its_process_is_called_here(tmp_path, start, monkeypatch):
    """As in a container and its host, which share the folder and not the processes."""
    _, folder = start()
    monkeypatch.setattr("os.getpid", lambda: 1)
    with make_scratch(tmp_path):
        assert folder in folders(tmp_path)


def test_folders_of_earlier_versions_are_named_by_their_process(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "999999999").mkdir()
    with make_scratch(tmp_path) as own:
        assert folders(tmp_path) == {str(own), str(tmp_path / "1")}
