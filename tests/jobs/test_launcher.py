"""The launcher against a cluster's API: what it asks for, what it makes of the answers, and what it says."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from oatflow.components.errors import ClusterError, SettingsError, TrainingFailed
from oatflow.components.jobs import cluster, launcher, watch
from oatflow.components.jobs.launcher import ClusterJobs
from oatflow.components.jobs.run_in_cluster import pod_troubles

from .kubernetes_api_double.server import RIGHTS

pytestmark = pytest.mark.slow

NAME = "oatflow-0123456789ab-r00007-t3"
LEDGER = "s3://bucket/experiment"
# In one piece, as workers speak at once.
SAY = """
import os, sys
os.write(1, f"worker {os.environ['RANK']} of {os.environ['WORLD_SIZE']} {sys.argv[1:]}\\n".encode())
"""
# Training ends on all workers or on none: a job is done when rank 0 is, and its other pods are stopped.
TOGETHER = """
import pathlib, time
pathlib.Path(f"said-{os.environ['RANK']}").touch()
while len(list(pathlib.Path().glob("said-*"))) < int(os.environ["WORLD_SIZE"]): time.sleep(0.01)
"""
# A program whose workers know how often they were started, and wait for each other.
COUNTED = """
import os, pathlib, signal, sys, time
rank, world = os.environ["RANK"], int(os.environ["WORLD_SIZE"])
here = pathlib.Path(f"started-{rank}")
count = len(here.read_text()) + 1 if here.exists() else 1
here.write_text("x" * count)
while sum(len(one.read_text()) >= count for one in pathlib.Path().glob("started-*")) < world: time.sleep(0.01)
"""


def run(settings, job):
    ClusterJobs.open(settings).run(job)


@pytest.mark.parametrize("backend", ["pytorchjob", "trainjob"])
def test_a_job_runs_to_its_end_on_all_of_its_pods(double, settings, job, backend, capfd):
    run(settings(train_backend=backend, train_pods=2), job(SAY + TOGETHER, LEDGER, "7", workers=4))
    said = capfd.readouterr().out
    assert f"worker 0 of 4 ['{LEDGER}', '7']" in said and "worker 2" not in said
    assert f"{NAME} is created in namespace team-a" in said and f"{NAME} is done after" in said
    other = double.runs[0].pods[1]
    assert {line for _, line in other.logs[0].lines} == {f"worker {rank} of 4 ['{LEDGER}', '7']" for rank in (2, 3)}


@pytest.fixture
def without_news_of_pods(monkeypatch):
    """A cluster whose watch of pods sends nothing, as on a busy server before the job has ended."""
    changes = cluster.Cluster.changes

    def withhold(self, resource, stopped, *given, **selectors):
        if resource is cluster.PODS:
            stopped.wait()
        else:
            yield from changes(self, resource, stopped, *given, **selectors)

    monkeypatch.setattr(cluster.Cluster, "changes", withhold)


def test_a_job_that_is_done_before_the_news_of_its_pods_has_its_log_passed_on(
    double, settings, job, without_news_of_pods, capfd
):
    run(settings(), job(SAY, LEDGER))
    assert f"worker 0 of 1 ['{LEDGER}']" in capfd.readouterr().out


def test_a_training_that_is_done_does_not_fail_because_its_log_cannot_be_had(
    double, settings, job, without_news_of_pods, capfd
):
    double.fail("GET", r"/pods\?", 403, times=100)
    run(settings(), job(SAY, LEDGER))
    said = capfd.readouterr().out
    assert "is done; the end of its log cannot be read: " in said and f"{NAME} is done after" in said


def test_a_pods_keys_come_from_the_secret(double, settings, job, capfd):
    run(settings(), job("import os; print(os.environ['AWS_SECRET_ACCESS_KEY'], 'HF_TOKEN' in os.environ)"))
    assert "a-secret-key False" in capfd.readouterr().out
    assert "a-secret-key" not in json.dumps(double.job())


@pytest.mark.parametrize("backend", ["pytorchjob", "trainjob"])
def test_a_failure_comes_with_its_reason_and_its_last_lines(double, settings, job, backend):
    program = "print('nearly there', flush=True); raise SystemExit(3)"
    with pytest.raises(TrainingFailed, match=rf"{NAME} failed after \d+ s: exit status 3 on worker 0 ") as failure:
        run(settings(train_backend=backend), job(program))
    assert "Last lines of rank 0:\nnearly there" in str(failure.value)


def test_a_hundred_lines_are_kept_and_all_are_passed_on(double, settings, job, capfd):
    with pytest.raises(TrainingFailed) as failure:
        run(settings(), job("for number in range(150): print('line', number)\nraise SystemExit(1)"))
    assert "line 50\n" in str(failure.value) and "line 49\n" not in str(failure.value)
    assert capfd.readouterr().out.count("line ") == 150


@pytest.mark.parametrize("backend", ["pytorchjob", "trainjob"])
def test_the_programs_own_sentence_is_the_reason_also_where_its_log_is_lost(double, settings, job, backend):
    double.fail("GET", "/log", 403, times=10**9)
    program = """
    from oatflow.components.errors import ClaimLost
    from oatflow.components.step_ending import explain_failure
    with explain_failure(""):
        raise ClaimLost("round 7 is held by run 'b'")
    """
    with pytest.raises(TrainingFailed, match=r"failed after \d+ s: round 7 is held by run 'b'\.\nLast lines of rank 0"):
        run(settings(train_backend=backend), job(textwrap.dedent(program)))


def test_the_programs_own_sentence_in_its_log_is_the_reason(double, settings, job):
    said = "oatflow: round 7 is held by run 'b'"
    with pytest.raises(TrainingFailed, match=r"failed after \d+ s: round 7 is held by run 'b'\.\nLast lines"):
        run(settings(), job(f"import sys; sys.exit({said!r})"))


def test_a_worker_without_memory_is_named_with_its_last_lines_though_rank_0_failed_because_of_it(double, settings, job):
    program = COUNTED + (
        "if rank == '1': print('it grows', flush=True); time.sleep(0.3); os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(0.6); print('lost my peer', flush=True); sys.exit(1)"
    )
    with pytest.raises(
        TrainingFailed, match=r": OOMKilled on worker 1 \(pod .*-worker-0\); .*train_pod_memory"
    ) as failure:
        run(settings(train_pods=2), job(program, workers=2))
    assert "Last lines of worker 1:\nit grows" in str(failure.value)


@pytest.mark.parametrize("backend", ["pytorchjob", "trainjob"])
def test_a_worker_without_memory_is_restarted_with_its_peers_as_often_as_allowed(double, settings, job, backend, capfd):
    program = COUNTED + (
        "if count == 3: sys.exit()\n"
        "if rank == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
        # As a GPU's collective does, whose peer is gone.
        "time.sleep(600)"
    )
    run(settings(train_backend=backend, train_pods=2, train_restarts=2), job(program, workers=2))
    said = capfd.readouterr().out.splitlines()
    told = [line.partition(" begins again as a new job ")[2] for line in said if "begins again" in line]
    assert [one.partition(" (pod")[0] for one in told] == [
        "(1 of 2): OOMKilled on worker 1", "(2 of 2): OOMKilled on worker 1",
    ]  # fmt: skip
    assert len(double.runs) == 3


def test_restarts_have_an_end(double, settings, job, capfd):
    with pytest.raises(TrainingFailed, match="OOMKilled on worker"):
        run(settings(train_restarts=1), job("import os; print('again', flush=True); os.kill(os.getpid(), 9)"))
    assert len(double.runs) == 2 and capfd.readouterr().out.count("again\n") == 2


def test_what_no_restart_can_mend_is_not_begun_again(double, settings, job):
    with pytest.raises(TrainingFailed, match="not done after 1 s"):
        run(settings(train_restarts=2), job("import time; time.sleep(600)", seconds=1.0))
    assert len(double.runs) == 1


@pytest.mark.parametrize("backend", ["pytorchjob", "trainjob"])
def test_a_job_that_takes_too_long_is_ended_by_the_cluster(double, settings, job, backend):
    with pytest.raises(TrainingFailed, match=r"not done after 1 s \(policy.train_timeout_seconds\)") as failure:
        run(settings(train_backend=backend), job("import time; print('still at it', flush=True); time.sleep(600)",
                                                 seconds=1.0))  # fmt: skip
    assert "still at it" in str(failure.value)


def test_a_job_that_the_cluster_does_not_end_is_ended_from_here(double, settings, job, monkeypatch):
    monkeypatch.setattr(watch, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr("kubernetes_api_double.operators.PyTorchJobRun._deadline", 600)
    with pytest.raises(TrainingFailed, match="the cluster did not end it; it is deleted"):
        run(settings(), job("import time; time.sleep(600)", seconds=0.3))
    assert double.job() is None


def test_a_job_that_finds_no_node_is_given_up_and_deleted(double, settings, job, capfd):
    double.unschedulable = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    with pytest.raises(TrainingFailed, match=r"did not start within 1 s .* finds no node: Unschedulable: 0/3 nodes"):
        run(settings(train_start_timeout_seconds=1.0), job(SAY))
    assert double.job() is None
    assert capfd.readouterr().out.count("finds no node") == 1


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ({"image_problem": 'Back-off pulling image "x"'}, "cannot pull the image ghcr.io/oatflow/trainer"),
        ({"secrets": {}}, 'CreateContainerConfigError: secret "mlpipeline-minio-artifact" not found'),
    ],
)
def test_what_a_pod_waits_for_is_told(double, settings, job, capfd, problem, words):
    vars(double).update(problem)
    with pytest.raises(TrainingFailed, match="did not start"):
        run(settings(train_start_timeout_seconds=0.5), job(SAY))
    assert words in capfd.readouterr().out


def test_a_worker_in_its_init_container_is_waited_for_and_what_that_wrote_last_is_said(double, settings, job, capfd):
    double.master_unreachable = True
    with pytest.raises(
        TrainingFailed, match=r"did not start within 2 s .* init-pytorch .it wrote last: waiting for master"
    ):
        run(settings(train_pods=2, train_start_timeout_seconds=2.0), job("import time; time.sleep(600)", workers=2))
    said = capfd.readouterr().out
    assert "worker-0 waits for its init container init-pytorch" in said and "runs on all of its pods" not in said
    assert double.job() is None


class Clock:
    """The watch's clock, which a test may put forward."""

    ahead = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(watch, "time", made)
    return made


@pytest.fixture
def said(capfd):
    """Return what the launcher has said so far."""
    lines = []

    def read():
        lines.append(capfd.readouterr().out)
        return "".join(lines)

    return read


def test_what_a_job_waits_for_is_said_again_after_a_minute_and_then_every_ten(
    double, settings, job, launch, wait_until, clock, said
):
    double.unschedulable = "no GPU"
    running = launch(settings(), job(SAY))
    for seconds, times in ((0, 1), (61, 2), (610, 2), (700, 3)):
        clock.ahead = seconds
        wait_until(lambda times=times: said().count("finds no node: Unschedulable: no GPU") == times)
    clock.ahead = 3700
    with pytest.raises(TrainingFailed, match=r"did not start within 60 min .* finds no node"):
        running.result()


@pytest.mark.parametrize(("pods", "hint"), [(2, "look for a NetworkPolicy"), (1, "hangs before it begins")])
def test_a_job_that_runs_and_reports_nothing_is_given_up_and_deleted(
    double, settings, job, launch, wait_until, clock, said, pods, hint
):
    # As torchrun does while it waits for its peers.
    program = "import time; print('no peer yet', flush=True); time.sleep(600)"
    running = launch(settings(train_pods=pods, train_restarts=2), job(program, workers=pods, seconds=10_000.0))
    wait_until(lambda: "runs on all of its pods" in said() and "no peer yet" in said())
    assert "has reported nothing" not in said()
    for seconds, times in ((130, 1), (700, 1), (740, 2)):
        clock.ahead = seconds
        wait_until(lambda times=times: said().count("since all of its pods started: ") == times)
    clock.ahead = 3700
    with pytest.raises(TrainingFailed, match=r"reported nothing within 60 min .*wrote last: no peer yet") as failure:
        running.result()
    assert hint in str(failure.value).partition("\n")[0] and hint in said()
    assert double.job() is None and len(double.runs) == 1


REPORTS = """
import pathlib, time
from oatflow.components.progress import report_event
report_event("train", 7, "start")
while not pathlib.Path("go").exists(): time.sleep(0.01)
"""


def test_a_job_that_has_reported_once_may_take_its_time(double, settings, job, launch, wait_until, clock, said):
    running = launch(settings(), job(REPORTS, seconds=10_000.0))
    wait_until(lambda: "runs on all of its pods" in said() and '"event": "start"' in said())
    clock.ahead = 5000
    # The watch looks at its clock more often than that.
    time.sleep(0.2)
    (double.folder / "go").touch()
    running.result()
    assert "has reported nothing" not in said()


def test_a_log_that_cannot_be_read_is_not_taken_for_silence(double, settings, job, launch, wait_until, clock, said):
    double.fail("GET", "/log", 403, times=10**9)
    running = launch(settings(), job(REPORTS, seconds=10_000.0))
    wait_until(lambda: "runs on all of its pods" in said() and "cannot be read" in said())
    clock.ahead = 5000
    time.sleep(0.2)
    (double.folder / "go").touch()
    running.result()
    assert "has reported nothing" not in said()


@pytest.mark.parametrize(("backend", "plural"), [("pytorchjob", "pytorchjobs"), ("trainjob", "trainjobs")])
def test_a_job_waits_in_its_queue_until_it_is_admitted(
    double, settings, job, launch, wait_until, capfd, backend, plural
):
    running = launch(settings(train_backend=backend, train_queue="gpus"), job(SAY))
    said = ""

    def told():
        nonlocal said
        said += capfd.readouterr().out
        return "waits: suspended, until queue 'gpus' of Kueue admits it" in said

    wait_until(told)
    assert not double.runs[0].pods
    double.admit(plural, NAME)
    running.result()
    assert "worker 0 of 1" in capfd.readouterr().out


def test_a_job_that_its_queue_takes_the_nodes_from_is_waited_for_as_at_the_beginning(
    double, settings, job, launch, wait_until, clock, said
):
    waits = "waits: suspended, until queue 'gpus' of Kueue admits it"
    program = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"
    running = launch(settings(train_queue="gpus", train_pods=2), job(program, workers=2, seconds=4000.0))
    wait_until(lambda: waits in said())
    double.admit("pytorchjobs", NAME)
    wait_until(lambda: said().count("runs on all of its pods") == 1)
    clock.ahead = 3000
    before = said().count(waits)
    double.suspend("pytorchjobs", NAME)
    # Kueue lets a job in again when its pods are gone.
    wait_until(lambda: said().count(waits) > before and not double.objects.list("pods")[0])
    clock.ahead = 6000
    double.admit("pytorchjobs", NAME)
    wait_until(lambda: said().count("runs on all of its pods") == 2)
    clock.ahead = 9000
    # The watch looks at its clock more often than that.
    time.sleep(0.2)
    (double.folder / "go").touch()
    running.result()
    assert len(double.runs) == 1


WAITING = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\nprint('gone on')"


@pytest.fixture
def in_step(double, monkeypatch):
    """Return what makes this process the step of a pod, of a Workflow if one is named."""

    def become(name, workflow=""):
        made = double.add_step(name, workflow)
        monkeypatch.setenv("POD_NAME", name)
        monkeypatch.setenv("POD_UID", made["metadata"]["uid"])

    return become


def owner_of(double, plural="pytorchjobs"):
    (owner,) = double.job(plural)["metadata"]["ownerReferences"]
    assert owner["controller"] is False and owner["blockOwnerDeletion"] is False
    return owner["kind"], owner["name"]


@pytest.mark.parametrize(("backend", "plural"), [("pytorchjob", "pytorchjobs"), ("trainjob", "trainjobs")])
def test_a_step_whose_pod_is_evicted_is_carried_on_by_the_next_pod_and_nothing_is_trained_again(
    double, settings, job, launch, in_step, wait_until, capfd, backend, plural
):
    waiting = job("open('began', 'a').write('x')\n" + WAITING)
    in_step("step-1", "oatflow-alignment-abcde")
    step = in_a_process(waiting, backend)
    wait_until(lambda: (double.folder / "began").exists())
    assert owner_of(double, plural) == ("Workflow", "oatflow-alignment-abcde")
    # As an eviction does, which Argo answers with a new pod.
    step.terminate()
    step.wait()
    double.remove("pods", "step-1")
    assert "deletionTimestamp" not in double.job(plural)["metadata"]
    in_step("step-2", "oatflow-alignment-abcde")
    again = launch(settings(train_backend=backend), waiting)
    wait_until(lambda: double.asked("PATCH", NAME))
    (double.folder / "go").touch()
    again.result()
    assert "gone on" in capfd.readouterr().out
    assert len(double.runs) == 1 and (double.folder / "began").read_text() == "x"


def test_a_job_goes_with_the_workflow_of_its_run(double, settings, job, launch, in_step, wait_until):
    in_step("step", "oatflow-alignment-abcde")
    running = launch(settings(), job("import time; time.sleep(600)"))
    wait_until(lambda: double.runs and double.runs[0].pods and double.runs[0].pods[0].is_running)
    double.remove("workflows", "oatflow-alignment-abcde")
    with pytest.raises(TrainingFailed, match="it was deleted: by a person, by a newer run, or with the run that made"):
        running.result()
    assert double.job() is None


def test_a_job_that_a_later_run_adopts_outlives_the_run_that_made_it(
    double, settings, job, launch, in_step, wait_until, capfd
):
    waiting = job(WAITING)
    in_step("step-1", "first")
    first = launch(settings(), waiting)
    wait_until(lambda: double.job() is not None)
    in_step("step-2", "second")
    second = launch(settings(), waiting)
    wait_until(lambda: owner_of(double) == ("Workflow", "second"))
    double.remove("workflows", "first")
    (double.folder / "go").touch()
    first.result()
    second.result()
    assert len(double.runs) == 1 and capfd.readouterr().out.count("gone on") == 2


@pytest.mark.parametrize(
    ("workflow", "status", "why"),
    [
        ("", 0, "pod step in namespace team-a belongs to no Workflow"),
        ("oatflow-alignment-abcde", 403, "does not let this service account list pods"),
    ],
)
def test_a_job_belongs_to_the_steps_pod_where_its_workflow_cannot_be_read_and_the_log_says_so(
    double, settings, job, launch, in_step, wait_until, capfd, workflow, status, why
):
    in_step("step", workflow)
    if status:
        double.fail("GET", r"pods\?fieldSelector", status, times=10**9)
    running = launch(settings(), job("import time; time.sleep(600)"))
    wait_until(lambda: double.runs and double.runs[0].pods and double.runs[0].pods[0].is_running)
    assert owner_of(double) == ("Pod", "step")
    said = capfd.readouterr().out
    assert "will belong to this step's pod, and will end if that pod is evicted" in said and why in said
    double.remove("pods", "step")
    with pytest.raises(TrainingFailed, match="it was deleted"):
        running.result()


def test_outside_of_a_pod_a_job_belongs_to_nobody(double, settings, job):
    run(settings(), job(SAY))
    assert "ownerReferences" not in double.job()["metadata"]


def test_two_that_race_make_one_job(double, settings, job, launch):
    both = [launch(settings(), job(SAY)) for _ in range(2)]
    for one in both:
        one.result()
    assert len(double.runs) == 1 and double.asked("POST", "pytorchjobs") == 2


LAUNCHER = """
import json, sys
from oatflow.components.jobs.job import TrainingJob
from oatflow.components.jobs.launcher import ClusterJobs
from oatflow.components.jobs.settings import JobSettings
job = json.loads(sys.argv[1])
ClusterJobs.open(JobSettings.parse({"train_backend": sys.argv[2]})).run(TrainingJob(**job))
"""


def in_a_process(job, backend="pytorchjob"):
    fields = {name: getattr(job, name) for name in job.__dataclass_fields__}
    return subprocess.Popen([sys.executable, "-c", LAUNCHER, json.dumps(fields), backend], env=dict(os.environ))


def test_a_step_that_is_killed_and_run_again_adopts_its_job(double, settings, job, launch, wait_until, capfd):
    waiting = job("import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\nprint('gone on')")
    step = in_a_process(waiting)
    wait_until(lambda: double.runs and double.runs[0].pods and double.runs[0].pods[0].is_running)
    step.send_signal(signal.SIGKILL)
    step.wait()
    again = launch(settings(), waiting)
    wait_until(lambda: double.asked("PATCH", NAME))
    (double.folder / "go").touch()
    again.result()
    assert "gone on" in capfd.readouterr().out
    assert len(double.runs) == 1


def test_a_step_that_is_told_to_stop_deletes_its_job(double, job, wait_until):
    step = in_a_process(job("import time; time.sleep(600)"))
    wait_until(lambda: double.runs and double.runs[0].pods and double.runs[0].pods[0].is_running)
    process = double.runs[0].pods[0]._process
    step.send_signal(signal.SIGINT)
    assert step.wait(120) != 0
    assert double.job() is None
    wait_until(lambda: process.poll() is not None)


def test_a_job_that_has_succeeded_is_not_done_again(double, settings, job):
    done = job("open('ran', 'a').write('x')")
    run(settings(), done)
    run(settings(), done)
    assert len(double.runs) == 1 and (double.folder / "ran").read_text() == "x"


def test_a_job_that_has_failed_is_made_anew_once_the_old_one_is_gone(double, settings, job):
    double.deletion_seconds = 0.3
    broken = job("import pathlib, sys\nhere = pathlib.Path('ran')\nif not here.exists(): here.touch(); sys.exit(1)")
    with pytest.raises(TrainingFailed):
        run(settings(), broken)
    run(settings(), broken)
    assert len(double.runs) == 2


def test_a_job_that_is_being_deleted_is_waited_for(double, settings, job):
    run(settings(), job(SAY))
    double.deletion_seconds = 0.3
    double.delete("pytorchjobs", NAME)
    run(settings(), job(SAY))
    assert len(double.runs) == 2


def test_a_job_that_does_not_go_is_the_clusters_fault(double, settings, job, monkeypatch):
    run(settings(), job(SAY))
    double.deletion_seconds = 600.0
    double.delete("pytorchjobs", NAME)
    monkeypatch.setattr(launcher, "GOING_SECONDS", 0.2)
    with pytest.raises(ClusterError, match="is being deleted, and still there"):
        run(settings(), job(SAY))


def test_the_job_of_another_ledger_is_left_alone(double, settings, job):
    run(settings(), job(SAY))
    with pytest.raises(ClusterError, match="belongs to the ledger 's3://bucket/private/team-a/oatflow/test', not to"):
        run(settings(), job(SAY, ledger="s3://elsewhere"))


def test_a_job_that_somebody_deletes_has_failed(double, settings, job, launch, wait_until):
    running = launch(settings(), job("import time; print('here', flush=True); time.sleep(600)"))
    wait_until(lambda: double.runs and double.runs[0].pods and double.runs[0].pods[0].is_running)
    double.delete("pytorchjobs", NAME)
    with pytest.raises(TrainingFailed, match="it was deleted"):
        running.result()


def test_a_job_that_is_deleted_before_it_is_watched_has_failed(double, settings, job, launch, wait_until):
    double.fail("GET", "pytorchjobs\\?fieldSelector", 503, times=5)
    running = launch(settings(), job("import time; time.sleep(600)"))
    wait_until(lambda: double.runs)
    double.delete("pytorchjobs", NAME)
    with pytest.raises(TrainingFailed, match="it was deleted"):
        running.result()
    assert double.asked("GET", "pytorchjobs\\?fieldSelector") > 5


@pytest.mark.parametrize(
    ("method", "path", "status", "headers"),
    [
        ("POST", "pytorchjobs", 429, {"Retry-After": "0"}),
        ("POST", "pytorchjobs", 500, {}),
        ("GET", "pytorchjobs.*watch", 503, {}),
        ("GET", "pytorchjobs.*watch", 410, {}),
        ("GET", r"pods\?labelSelector=[^&]*$", 500, {}),
        ("GET", "/log", 500, {}),
    ],
)
def test_a_server_that_fails_for_a_moment_is_asked_again(double, settings, job, method, path, status, headers, capfd):
    double.fail(method, path, status, times=3, headers=headers)
    run(settings(), job(SAY + "import time; time.sleep(1)"))
    assert double.asked(method, path) >= 4 and "worker 0 of 1" in capfd.readouterr().out


def test_a_server_that_goes_on_failing_is_not_the_jobs_failure(double, settings, job, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.2)
    double.fail("POST", "pytorchjobs", 500, times=10**9)
    with pytest.raises(ClusterError, match="cannot create pytorchjobs in namespace team-a: the API server still fails"):
        run(settings(), job(SAY))


def test_a_server_that_is_not_there_is_said_to_be_out_of_reach(double, settings, job, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.2)
    jobs = ClusterJobs.open(settings())
    double.close()
    with pytest.raises(ClusterError, match=r"the API server http://127.0.0.1:\d+ cannot be reached"):
        jobs.run(job(SAY))


def test_watches_that_break_or_expire_miss_nothing(double, settings, job, launch, wait_until):
    double.drop("watch", times=3, after=0)
    running = launch(settings(), job("import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"))
    wait_until(lambda: double.runs and double.runs[0].pods and double.runs[0].pods[0].is_running)
    double.objects.forget()
    (double.folder / "go").touch()
    running.result()


def test_a_log_that_breaks_is_taken_up_where_it_broke(double, settings, job, capfd):
    double.drop("log", times=3, after=4)
    run(settings(), job("import time\nfor number in range(20): print('line', number, flush=True); time.sleep(0.05)"))
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("line")]
    assert lines == [f"line {number}" for number in range(20)]


def test_a_log_that_may_not_be_read_stops_nothing(double, settings, job, capfd):
    double.fail("GET", "/log", 403, times=10**9)
    run(settings(), job(SAY))
    assert "cannot be read: the API server does not let this service account get pods/log" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("POST", "pytorchjobs", "create pytorchjobs"),
        ("GET", r"pytorchjobs\?field[^&]*$", "list pytorchjobs"),
        ("GET", "pytorchjobs.*watch", "watch pytorchjobs"),
        ("GET", "pods.*watch", "watch pods"),
    ],
)
def test_what_is_forbidden_is_named_with_who_grants_it(double, settings, job, method, path, action):
    double.fail(method, path, 403, times=10**9, message="exceeded quota")
    with pytest.raises(
        ClusterError, match=rf"{action} in namespace team-a; the Role in manifests/base grants it\. .*quota"
    ):
        run(settings(), job("import time; time.sleep(2)"))


def test_a_cluster_without_the_operator_says_what_to_install(double, settings, job):
    del double.schemas["pytorchjobs"]
    with pytest.raises(ClusterError, match="has no pytorchjobs: install the Kubeflow training operator, or choose"):
        run(settings(), job(SAY))


def test_a_field_that_the_cluster_does_not_know_is_refused_and_not_dropped(double, settings, job, monkeypatch):
    kind = launcher.KINDS["trainjob"]

    def old(*args):
        made = kind.manifest(*args)
        made["spec"]["podTemplateOverrides"] = made["spec"].pop("runtimePatches")
        return made

    changed = type(kind)(**{name: getattr(kind, name) for name in kind.__slots__} | {"manifest": old})
    monkeypatch.setitem(launcher.KINDS, "trainjob", changed)
    with pytest.raises(ClusterError, match=r'refuses it with 400: .*unknown field "spec.podTemplateOverrides"'):
        run(settings(train_backend="trainjob"), job(SAY))


def test_without_a_cluster_the_letter_says_what_to_do(double, settings, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(ClusterError, match=r"no cluster: .*jobs.train_backend=local"):
        ClusterJobs.open(settings())


def test_workers_that_cannot_be_shared_are_refused_before_anything_is_asked(double, settings, job):
    with pytest.raises(SettingsError, match=r"jobs.train_pods=2: policy.train_workers=3 cannot be shared evenly"):
        run(settings(train_pods=2), job(SAY, workers=3))
    assert not double.requests


def test_the_reaper_ends_older_jobs_of_the_experiment_alone(double, settings, job, launch, wait_until):
    program = "import time; time.sleep(600)"
    running = [
        launch(settings(train_backend=backend), job(program, token=token))
        for backend, token in (("pytorchjob", 1), ("trainjob", 2), ("pytorchjob", 3))
    ]
    wait_until(lambda: sum(pod.is_running for one in double.runs for pod in one.pods) == 3)
    jobs = ClusterJobs.open(settings())
    assert jobs.reap("f" * 64, 9) == []
    assert sorted(jobs.reap("0123456789abcdef" * 4, 3)) == [NAME[:-1] + "1", NAME[:-1] + "2"]
    for one in running[:2]:
        with pytest.raises(TrainingFailed, match="it was deleted"):
            one.result()
    assert running[2].is_alive()


def test_the_reaper_leaves_what_has_ended_for_its_logs(double, settings, job):
    run(settings(), job(SAY, token=1))
    assert ClusterJobs.open(settings()).reap("0123456789abcdef" * 4, 9) == []
    assert ClusterJobs.open(settings(train_keep_seconds=0)).reap("0123456789abcdef" * 4, 9) == [NAME[:-1] + "1"]


def test_the_reaper_needs_the_kind_in_use_alone(double, settings):
    del double.schemas["pytorchjobs"]
    double.fail("GET", "trainjobs", 403, times=10**9)
    assert ClusterJobs.open(settings()).reap("f" * 64, 9) == []
    with pytest.raises(ClusterError, match="does not let"):
        ClusterJobs.open(settings(train_backend="trainjob")).reap("f" * 64, 9)


@pytest.mark.parametrize("workflow", ["", "oatflow-alignment-abcde"])
def test_what_a_run_waits_for_includes_the_pods_of_its_jobs(
    double, settings, job, launch, in_step, wait_until, workflow
):
    double.unschedulable = "no GPU"
    in_step("step", workflow)
    launch(settings(), job(SAY))
    wait_until(lambda: pod_troubles("team-a", "run-1") == [f"pod {NAME}-master-0 finds no node: Unschedulable: no GPU"])
    assert pod_troubles("", "run-2") == []


@pytest.mark.parametrize("backend", ["pytorchjob", "trainjob"])
def test_the_role_in_the_manifests_grants_what_is_used_and_nothing_else(
    double, settings, job, launch, wait_until, backend
):
    chosen = settings(train_backend=backend)
    waiting = job("import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\nprint('gone on')")
    first = launch(chosen, waiting)
    wait_until(lambda: double.runs and double.runs[0].pods and double.runs[0].pods[0].is_running)
    second = launch(chosen, waiting)
    # Both follow the job and its pods.
    wait_until(lambda: double.asked("PATCH", NAME) and double.asked("GET", "watch=true") >= 4)
    ClusterJobs.open(chosen).reap(waiting.experiment, waiting.token + 1)
    for one in (first, second):
        with pytest.raises(TrainingFailed, match="it was deleted"):
            one.result()
    mine = f"{backend}s"
    assert {right for right in double.used if right[2] in (mine, "pods", "pods/log")} == {
        right for right in RIGHTS if right[2] in (mine, "pods", "pods/log")
    }
