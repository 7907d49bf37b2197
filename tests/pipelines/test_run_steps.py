"""Our steps of a run, out of the nodes that a real cluster recorded."""

import copy
import json

import pytest
from kfp_server_api import ApiClient
from oatflow.pipelines.cluster.kubeflow_client import read_run
from oatflow.pipelines.cluster.run_steps import STEPS, find_failed_nodes, find_failed_steps, read_steps

from .recorded_runs import as_of, moment, recorded


class Answer:
    def __init__(self, body):
        self.data = json.dumps(body)


def run_of(body):
    return read_run(ApiClient().deserialize(Answer(body), "V2beta1Run"))


def states(body, round_=1):
    return {step.name: step.state for step in read_steps(run_of(body)) if step.round == round_}


def step(body, name, round_=1):
    return next(step for step in read_steps(run_of(body)) if (step.name, step.round) == (name, round_))


def succeeded_at(clock):
    return as_of(recorded("run-succeeded"), moment(f"2026-11-30T{clock}Z"))


def renamed(run, suffix):
    """Return the nodes of a run under the names of a later round of it, as compiled pipelines give them."""
    tasks = copy.deepcopy(run["run_details"]["task_details"])
    for task in tasks:
        base, _, attempt = task["display_name"].partition("(")
        base, _, driver = base.partition("-driver") if base.endswith("-driver") else (base, "", None)
        if base in STEPS or base == "round" or base.startswith("condition"):
            ending = "-driver" if driver is not None else ""
            task["display_name"] = f"{base}{suffix}{ending}" + (f"({attempt}" if attempt else "")
    return tasks


@pytest.mark.parametrize("name", ["succeeded", "running", "terminated", "waiting-for-people", "importer-failed"])
def test_every_recorded_run_has_our_seven_steps_in_the_order_of_the_round(name):
    assert [step.name for step in read_steps(run_of(recorded(f"run-{name}")))] == list(STEPS)


def test_a_step_takes_from_the_start_of_its_driver_to_its_own_end():
    train = step(recorded("run-succeeded"), "train")
    assert (str(train.began.time()), str(train.ended.time())) == ("19:38:34", "19:39:35")


def test_a_step_whose_driver_runs_is_starting():
    sample = step(recorded("run-running"), "sample")
    assert (sample.state, sample.note, sample.ended) == ("starting", "Kubeflow prepares its pod", None)


@pytest.mark.parametrize(
    ("clock", "state", "note"),
    [
        ("19:36:58", "to come", ""),
        ("19:37:00", "starting", "Kubeflow prepares its pod"),
        ("19:37:10", "starting", "its pod waits to run"),
        ("19:37:30", "running", ""),
        ("19:38:06", "done", ""),
    ],
)
def test_a_step_is_followed_from_its_driver_to_its_end(clock, state, note):
    sample = step(succeeded_at(clock), "sample")
    assert (sample.state, sample.note) == (state, note)


def test_two_steps_at_work_at_once_are_told_apart_where_kfp_can_tell_them():
    now = succeeded_at("19:39:10")
    assert (step(now, "train").state, step(now, "fit-reward-model").state) == ("running", "done")


def test_each_step_has_its_own_pod_though_all_nodes_are_called_executor():
    run = recorded("run-terminated")
    assert step(run, "train").pod == "oatflow-alignment-jm52l-retry-system-container-impl-1864892529"
    assert step(run, "fit-reward-model").pod == "oatflow-alignment-jm52l-retry-system-container-impl-528121208"
    assert len({found.pod for found in read_steps(run_of(recorded("run-succeeded")))}) == len(STEPS)


def test_a_retried_step_is_in_its_second_attempt():
    run = succeeded_at("19:37:30")
    tasks = run["run_details"]["task_details"]
    first = "oatflow-alignment-27zqr-2152429950"
    # The id of the node ...sample(0).executor(1), as Argo makes it.
    second = "oatflow-alignment-27zqr-" + str(fnv("oatflow-alignment-27zqr" + SAMPLE + ".executor(1)"))
    executor = next(task for task in tasks if {"pod_name": first} in task.get("child_tasks", []))
    executor["child_tasks"].append({"pod_name": second})
    attempt = next(task for task in tasks if task["start_time"] == executor["start_time"]
                   and task["display_name"] == "executor(0)")  # fmt: skip
    attempt["state"] = "FAILED"
    tasks.append({**attempt, "display_name": "executor(1)", "state": "RUNNING", "start_time": "2026-11-30T19:37:20Z"})
    sample = step(run, "sample")
    assert (sample.state, sample.attempt) == ("running", 2) and sample.pod.endswith(second.rpartition("-")[2])


SAMPLE = "(0).root(0).round(0).condition-1(0).sample(0)"


def fnv(text):
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 % 2**32
    return value


def nodes_of(*path):
    """Return the nodes on the way to the attempts of a step, as Argo makes and numbers them."""
    name, tasks = "w", []
    for part in [*path, "executor"]:
        below = f"{name}(0).{part}"
        tasks.append({"display_name": name.rpartition(".")[2], "child_tasks": [{"pod_name": f"w-{fnv(name + '(0)')}"}]})
        child = {"pod_name": f"w-{fnv(below)}"}
        tasks.append({"display_name": f"{name.rpartition('.')[2]}(0)", "child_tasks": [child]})
        name = below
    attempts = [{"pod_name": f"w-{fnv(f'{name}({number})')}"} for number in range(2)]
    tasks.append({"display_name": "executor", "child_tasks": attempts})
    return [{"task_id": "1", "state": "RUNNING", "start_time": "2026-11-30T19:37:07Z", **task} for task in tasks]


@pytest.mark.parametrize(
    ("path", "round_", "name"),
    [
        (("root", "condition-1", "sample"), 1, "sample"),
        (("root", "round", "condition-1", "condition-2", "train"), 1, "train"),
        (("root", "round-2", "condition-1-2", "condition-2-2", "train-2"), 2, "train"),
        (("root", "round-10", "condition-1-10", "fit-reward-model-10"), 10, "fit-reward-model"),
    ],
)
def test_the_pods_of_a_step_are_found_in_every_shape_of_the_pipeline(path, round_, name):
    run = recorded("run-running")
    run["run_details"]["task_details"] = nodes_of(*path)
    full = "w" + "".join(f"(0).{part}" for part in [*path, "executor"])
    found = step(run, name, round_)
    assert (found.attempt, found.pod) == (2, f"w-retry-system-container-impl-{fnv(f'{full}(1)')}")


def test_a_pod_that_failed_while_kubeflow_waits_is_said():
    train = step(as_of(recorded("run-importer-failed"), moment("2026-11-30T19:07:40Z")), "train")
    assert (train.state, train.note) == ("running", "its pod failed; Kubeflow decides whether to start another")


def test_steps_behind_a_condition_that_was_false_are_skipped():
    assert states(recorded("run-waiting-for-people")) == {
        "open-round": "done", "sample": "done", "label": "done", "train": "skipped", "fit-reward-model": "skipped",
        "evaluate": "skipped", "close-round": "skipped",
    }  # fmt: skip


def test_a_terminated_run_stopped_its_step_and_left_the_others_out():
    found = states(recorded("run-terminated"))
    assert (found["train"], found["evaluate"], found["close-round"]) == ("stopped", "not reached", "not reached")
    assert find_failed_steps(read_steps(run_of(recorded("run-terminated")))) == []


def test_a_run_that_was_terminated_and_then_retried_was_not_terminated():
    run = recorded("run-terminated")
    run["state_history"] += [{"state": "RUNNING", "update_time": "2026-11-30T19:58:00Z"},
                             {"state": "FAILED", "update_time": "2026-11-30T19:59:00Z"}]  # fmt: skip
    assert run_of(run).terminated is None and states(run)["train"] == "failed"


def test_a_step_that_failed_before_the_run_was_terminated_has_failed():
    run = recorded("run-terminated")
    next(each for each in run["state_history"] if each["state"] == "CANCELING")["update_time"] = "2026-11-30T19:57:00Z"
    assert states(run)["train"] == "failed"


def test_what_failed_and_is_no_step_of_ours_is_named():
    run = run_of(recorded("run-importer-failed"))
    assert [step.name for step in find_failed_steps(read_steps(run))] == ["train"] and find_failed_nodes(run) == [
        "importer"
    ]


def test_a_step_whose_driver_failed_says_so():
    run = recorded("run-running")
    for task in run["run_details"]["task_details"]:
        if task["display_name"].startswith("sample-driver"):
            task["state"] = "FAILED"
    assert (step(run, "sample").state, step(run, "sample").note) == (
        "failed", "in Kubeflow's driver, before the step itself began",
    )  # fmt: skip


def test_a_later_round_has_the_steps_with_its_number():
    run = recorded("run-succeeded") | {"state": "RUNNING"}
    later = recorded("run-running")
    run["run_details"]["task_details"] += renamed(later, "-2")
    assert set(states(run).values()) == {"done"}
    assert (states(run, 2)["open-round"], states(run, 2)["sample"], states(run, 2)["train"]) == (
        "done", "starting", "to come",
    )  # fmt: skip


def test_rounds_with_the_same_names_as_former_versions_compiled_them_follow_each_other():
    run = recorded("run-succeeded") | {"state": "RUNNING"}
    run["run_details"]["task_details"] += recorded("run-running")["run_details"]["task_details"]
    assert set(states(run).values()) == {"done"} and states(run, 2)["sample"] == "starting"


@pytest.mark.parametrize(
    ("tasks", "rounds"),
    [(["round", "round-2", "round-3"], 3), (["open-round", "condition-1"], 1), (["round"], 1)],
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_rounds_not_begun_yet_are_known_from_the_pipeline(tasks, rounds, wrapped):
    spec = {"root": {"dag": {"tasks": {name: {} for name in tasks}}}}
    run = recorded("run-running") | {"pipeline_spec": {"pipeline_spec": spec} if wrapped else spec}
    assert {step.round for step in read_steps(run_of(run))} == set(range(1, rounds + 1))


def test_nodes_that_other_versions_of_argo_number_otherwise_still_have_steps():
    run = recorded("run-succeeded")
    for task in run["run_details"]["task_details"]:
        task["child_tasks"] = [{"pod_name": f"{child['pod_name']}0"} for child in task.get("child_tasks", [])]
    found = read_steps(run_of(run))
    assert {step.state for step in found} == {"done"} and {step.pod for step in found} == {""}


def test_a_run_that_has_just_begun_has_everything_to_come():
    run = recorded("run-running")
    run["run_details"] = None
    assert set(states(run).values()) == {"to come"}


def test_times_that_stand_for_not_yet_are_none():
    run = run_of(recorded("run-running"))
    assert run.ended is None and all(task.ended is None or task.ended.year == 2026 for task in run.tasks)
    assert str(run.began) == "2026-11-30 20:14:58+00:00"
