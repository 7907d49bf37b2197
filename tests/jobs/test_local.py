"""Jobs as real processes under torchrun, and the letters about those that fail."""

import os
import signal
import subprocess
import sys
import time

import pytest
from oatflow.components.errors import TrainingFailed
from oatflow.components.jobs.failure_messages import explain_exit
from oatflow.components.jobs.job import TrainingJob
from oatflow.components.jobs.local import LocalJobs
from oatflow.components.step_ending import BUG, LOST_PEER

TORCHRUN_SAYS = """
Root Cause (first observed failure):
[0]:
  time      : 2026-01-01_00:00:00
  rank      : 1 (local_rank: 1)
  exitcode  : {} (pid: 4711)
"""


@pytest.mark.parametrize(
    ("returncode", "output", "expected"),
    [
        (1, TORCHRUN_SAYS.format(-9), "killed by SIGKILL, most likely for want of memory"),
        (1, TORCHRUN_SAYS.format(-15), "killed by SIGTERM"),
        (1, TORCHRUN_SAYS.format(3), "exit status 3"),
        (-9, "", "killed by SIGKILL, most likely for want of memory"),
        (1, "oatflow: round 3 is b's\n" + TORCHRUN_SAYS.format(1), "round 3 is b's"),
        # As images of older versions write it.
        (1, "oatflow.components.errors.ClaimLost: round 3 is b's\n" + TORCHRUN_SAYS.format(1), "round 3 is b's"),
        # What the other workers say then is no cause.
        (
            1,
            f"oatflow: {BUG}: KeyError: 'a'\noatflow: the cause\noatflow: {LOST_PEER} (gloo)\noatflow: {BUG}: b\n",
            "the cause",
        ),
        (1, f"oatflow: {LOST_PEER} (gloo)\noatflow: {BUG}: KeyError: 'a'\n", f"exit status 1 ({BUG}: KeyError: 'a')"),
        (2, "usage: ...", "exit status 2"),
    ],
)
def test_the_reason_is_the_programs_own_or_how_its_worker_ended(returncode, output, expected):
    assert explain_exit(returncode, output).startswith(expected)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Return a maker of jobs that run a piece of Python."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def make(program, *arguments, workers=1, seconds=60.0):
        (tmp_path / "a_program.py").write_text(program)
        return TrainingJob("ab" * 32, 7, 3, "file:///ledger", "a_program", arguments, workers, seconds)

    return make


@pytest.mark.slow
def test_every_worker_runs_the_program_with_its_arguments_and_its_share_of_the_cores(job, capfd):
    program = (
        "import os, sys; "
        "said = f\"worker {os.environ['RANK']} {sys.argv[1:]} {os.environ['OMP_NUM_THREADS']}\\n\"; "
        "os.write(1, said.encode())"  # in one piece, as two workers speak at once
    )
    LocalJobs().run(job(program, "s3://bucket/name", "7", workers=2))
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert sorted(line for line in capfd.readouterr().out.splitlines() if line.startswith("worker")) == [
        f"worker {rank} ['s3://bucket/name', '7'] {threads}" for rank in (0, 1)
    ]


@pytest.mark.slow
def test_a_failure_comes_with_its_reason_and_its_last_lines(job):
    with pytest.raises(
        TrainingFailed, match=r"^oatflow-abababababab-r00007-t3 failed after \d+ s: exit status 3\.\nIts last lines:\n"
    ) as failure:
        LocalJobs().run(job("print('nearly there', flush=True); raise SystemExit(3)"))
    assert "nearly there" in str(failure.value)


@pytest.mark.slow
def test_a_killed_worker_fails_the_job_and_takes_the_others_along(job, tmp_path):
    program = (
        "import os, signal, sys, time\n"
        "open(f'{sys.argv[1]}/{os.environ[\"RANK\"]}', 'w').write(str(os.getpid()))\n"
        "while len(os.listdir(sys.argv[1])) < 2: time.sleep(0.01)\n"
        "if os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(600)\n"
    )
    (tmp_path / "pids").mkdir()
    with pytest.raises(TrainingFailed, match="killed by SIGKILL, most likely for want of memory"):
        LocalJobs().run(job(program, str(tmp_path / "pids"), workers=2))
    assert not alive(int((tmp_path / "pids" / "0").read_text()))


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_ended(job):
    with pytest.raises(TrainingFailed, match="not done after 5 s"):
        LocalJobs().run(job("import time; time.sleep(600)", seconds=5.0))


@pytest.mark.slow
def test_a_job_dies_with_the_process_that_waits_for_it(job, tmp_path):
    program = (
        "import os, sys, time\n"
        "from oatflow.components.jobs.orphans import die_with_parent\n"
        "die_with_parent(os.getppid())\n"
        "open(sys.argv[1] + '.new', 'w').write(str(os.getpid())); os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
        "time.sleep(600)\n"
    )
    job(program)
    waiting = (
        "from oatflow.components.jobs.local import LocalJobs\nfrom oatflow.components.jobs.job import TrainingJob\n"
        f"LocalJobs().run(TrainingJob('t', 0, 1, 'l', 'a_program', ({str(tmp_path / 'pid')!r},), 1, 60.0))"
    )
    waiter = subprocess.Popen([sys.executable, "-c", waiting])
    wait_until((tmp_path / "pid").exists)
    worker = int((tmp_path / "pid").read_text())
    assert alive(worker)
    waiter.send_signal(signal.SIGKILL)
    waiter.wait()
    wait_until(lambda: not alive(worker))


def wait_until(truth, seconds=60):
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
