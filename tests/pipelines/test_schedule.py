"""`oatflow schedule`: the same rounds again and again, replaced as a whole, never more than one at a time."""

import json

import pytest
from oatflow.components.jobs import run_in_cluster
from oatflow.pipelines.cli import main
from oatflow.pipelines.cluster import submission

from .kfp_api_double import Fault, kfp_api

LEDGER = "s3://bucket/private/team-a/oatflow?endpoint=http://seaweedfs.kubeflow:9000"
NIGHTLY = "0 0 2 * * *"
pytestmark = pytest.mark.slow


@pytest.fixture
def api():
    with kfp_api() as served:
        yield served


@pytest.fixture
def schedule(api, capsys, monkeypatch, compiled_once):
    """Run an `oatflow schedule` command against the API; returns exit code, output and complaint."""

    monkeypatch.setattr(submission, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("KUBECONFIG", "/there/is/none")

    def run(verb, *arguments):
        with pytest.raises(SystemExit) as stop:
            main(["schedule", verb, *arguments, "--host", api.endpoint, "--namespace", "team-a"])
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    return run


@pytest.fixture
def set_(schedule):
    def run(name="kinder", cron=NIGHTLY, *flags):
        return schedule("set", name, "--cron", cron, "--preset", "scripted", "--ledger", LEDGER, *flags)

    return run


def only_schedule(api):
    (kept,) = api.schedules.values()
    return kept


def test_a_schedule_is_created_switched_on_one_at_a_time_and_never_catching_up(api, set_):
    code, out, _ = set_()
    kept = only_schedule(api)
    assert code == 0 and kept["display_name"] == "oatflow-kinder"
    assert kept["trigger"] == {"cron_schedule": {"cron": NIGHTLY}}
    assert (kept["mode"], kept["no_catchup"], kept["max_concurrency"]) == ("ENABLE", True, "1")
    assert kept["description"].startswith("Set by oatflow; settings ")
    assert "at 02:00, every day (UTC)" in out and out.count(" 02:00:00") == 3


def test_each_of_its_runs_does_the_next_rounds_with_typed_parameters(api, set_):
    set_("kinder", NIGHTLY, "--rounds", "2", "--beta", "0.5", "--max-queries", "64")
    kept = only_schedule(api)
    sent = kept["runtime_config"]["parameters"]
    assert sent["ledger"] == "s3://bucket/private/team-a/oatflow/kinder?endpoint=http://seaweedfs.kubeflow:9000"
    assert (sent["beta"], sent["max_queries"]) == (0.5, 64)
    assert sorted(kept["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]) == ["round", "round-2"]
    assert api.experiments[kept["experiment_id"]]["display_name"] == "kinder"


def test_it_can_be_created_switched_off(api, set_):
    _, out, _ = set_("kinder", NIGHTLY, "--disabled")
    assert only_schedule(api)["mode"] == "DISABLE" and "switched off" in out


def test_setting_it_again_replaces_it_and_two_are_never_on(api, set_):
    set_()
    first = only_schedule(api)["recurring_run_id"]
    code, out, _ = set_("kinder", "0 30 4 * * *")
    assert code == 0 and f"deleted the old schedule oatflow-kinder ({first})" in out
    assert only_schedule(api)["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"
    assert api.most_enabled == 1 and api.enabled == list(api.schedules)


@pytest.mark.parametrize("fault", ["recurringruns$", ":disable", ":enable"])
def test_the_old_one_stays_on_wherever_setting_the_new_one_fails(api, set_, fault):
    set_()
    (first,) = api.enabled
    api.faults.append(Fault("POST", fault, 500))
    code, _, said = set_("kinder", "0 30 4 * * *")
    assert code == 1 and "a fault that was ordered" in said
    assert (list(api.schedules), api.enabled) == ([first], [first]) and api.most_enabled == 1


def test_an_old_one_that_cannot_be_switched_on_again_is_said(api, set_):
    set_()
    (first,) = api.enabled
    api.faults.append(Fault("POST", ":enable", 500, times=2))
    code, _, said = set_("kinder", "0 30 4 * * *")
    assert code == 1 and f"({first}), may be switched off now" in said and "Run the command again" in said
    assert set_("kinder", "0 30 4 * * *")[0] == 0 and len(api.enabled) == 1


def test_a_new_one_that_cannot_be_taken_back_is_deleted_by_the_same_command(api, set_):
    set_()
    (first,) = api.enabled
    api.faults += [Fault("POST", ":enable", 500), Fault("DELETE", "recurringruns", 500)]
    code, _, said = set_("kinder", "0 30 4 * * *")
    (left,) = set(api.schedules) - {first}
    assert code == 1 and f"the new schedule {left} is left, switched off" in said and "Run the command again" in said
    assert api.enabled == [first]
    assert set_("kinder", "0 30 4 * * *")[0] == 0
    assert only_schedule(api)["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *" and len(api.enabled) == 1


def test_an_old_one_that_cannot_be_deleted_is_off_and_goes_with_the_next_command(api, set_, schedule):
    set_()
    api.faults.append(Fault("DELETE", "recurringruns", 403))
    code, _, said = set_("kinder", "0 30 4 * * *")
    assert code == 1 and "could not be deleted" in said
    assert len(api.schedules) == 2 and len(api.enabled) == 1
    schedule("list")
    assert only_schedule(api)["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"


# A run of the schedule is under way: deleting the schedule would end it.


@pytest.fixture
def under_way(api, set_):
    """Set a schedule and let it start a run; returns the ids of both."""
    set_()
    (first,) = api.schedules
    return first, api.tick(first)


def goes_on(api, run_id):
    return run_id in api.workflows


def test_a_run_under_way_goes_on_when_its_schedule_is_replaced(api, set_, schedule, under_way):
    first, run_id = under_way
    code, out, _ = set_("kinder", "0 30 4 * * *")
    assert code == 0 and goes_on(api, run_id) and len(api.schedules) == 2
    assert f"oatflow-kinder ({first}) is switched off" in out and f"Its run {run_id} (oatflow-kinder-1) goes on" in out
    assert "fails with exit code 3" in out and first not in api.enabled and api.most_enabled == 1
    replaced = next(line for line in schedule("list")[1].splitlines() if first in line)
    assert replaced == f"kinder: replaced ({first}); switched off; it is deleted when run {run_id} has ended"
    assert goes_on(api, run_id)


def test_a_replaced_schedule_is_deleted_by_the_next_command_after_its_run(api, set_, schedule, under_way):
    first, run_id = under_way
    set_("kinder", "0 30 4 * * *")
    api.end(run_id)
    _, out, said = schedule("list")
    assert f"deleted the old schedule oatflow-kinder ({first})" in said and "replaced" not in out
    assert only_schedule(api)["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"


def test_replaced_schedules_are_deleted_by_set_as_well(api, set_, under_way):
    first, run_id = under_way
    set_("kinder", "0 30 4 * * *")
    api.end(run_id, "FAILED")
    code, out, _ = set_("kinder", "0 30 4 * * *")
    assert code == 0 and "nothing was changed" in out and f"deleted the old schedule oatflow-kinder ({first})" in out
    assert len(api.schedules) == 1


@pytest.mark.parametrize("command", ["set", "delete"])
def test_a_replaced_schedule_is_deleted_by_a_command_for_another_experiment(api, set_, schedule, under_way, command):
    first, run_id = under_way
    set_("kinder", "0 30 4 * * *")
    set_("other")
    assert first in api.schedules
    api.end(run_id)
    code, out, said = set_("other", "0 30 5 * * *") if command == "set" else schedule("delete", "other")
    assert code == 0 and first not in api.schedules and first not in out
    assert f"deleted the old schedule oatflow-kinder ({first})" in said


def test_a_run_under_way_goes_on_when_its_schedule_is_deleted(api, schedule, under_way):
    first, run_id = under_way
    code, out, _ = schedule("delete", "kinder")
    assert code == 0 and goes_on(api, run_id) and api.enabled == []
    assert "this command, given again, deletes the schedule" in out
    assert f"switched off; run {run_id} is under way" in schedule("list")[1]
    api.end(run_id)
    assert f"deleted oatflow-kinder ({first})" in schedule("delete", "kinder")[1] and api.schedules == {}


def test_now_ends_the_run_and_says_which(api, schedule, under_way):
    first, run_id = under_way
    code, out, _ = schedule("delete", "kinder", "--now")
    assert code == 0 and api.schedules == {} and not goes_on(api, run_id)
    assert out == f"deleted oatflow-kinder ({first})\nthat ended its run {run_id} (oatflow-kinder-1)\n"


def test_set_now_ends_the_run_and_says_which(api, set_, under_way):
    first, run_id = under_way
    _, out, _ = set_("kinder", "0 30 4 * * *", "--now")
    assert f"deleted the old schedule oatflow-kinder ({first})\nthat ended its run {run_id}" in out
    assert len(api.schedules) == 1 and not goes_on(api, run_id)


def test_wait_deletes_the_schedule_when_its_run_has_ended(api, schedule, under_way):
    first, run_id = under_way
    # Each look at the run takes it one state further.
    api.runs[run_id]["stages"] = ["RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"]
    code, out, _ = schedule("delete", "kinder", "--wait")
    assert code == 0 and api.schedules == {} and api.runs[run_id]["state"] == "SUCCEEDED"
    assert out.splitlines() == [
        f"waiting for run {run_id} (oatflow-kinder-1) to end",
        f"deleted oatflow-kinder ({first})",
    ]


def test_waiting_has_an_end_and_leaves_the_run_alone(api, schedule, under_way):
    first, run_id = under_way
    code, _, said = schedule("delete", "kinder", "--wait", "--timeout", "0.05")
    assert code == 1 and "it goes on" in said and goes_on(api, run_id) and first in api.schedules


def test_a_run_that_is_older_than_a_page_of_others_is_found(api, schedule, under_way, monkeypatch):
    monkeypatch.setattr("oatflow.pipelines.cluster.kubeflow_client.RUNS_PAGE", 2)
    _, run_id = under_way
    for _ in range(5):
        api._new_run({"experiment_id": api.runs[run_id]["experiment_id"], "display_name": "by hand"})
    schedule("delete", "kinder")
    assert goes_on(api, run_id)


def test_an_old_run_that_was_started_again_goes_on(api, schedule, under_way):
    first, run_id = under_way
    api.tick(first, state="SUCCEEDED")
    schedule("delete", "kinder")
    assert goes_on(api, run_id)


def test_a_run_whose_workflow_is_gone_keeps_no_schedule(api, schedule, under_way, monkeypatch):
    first, _ = under_way
    answer_no_workflow(monkeypatch, scheduled=[first])
    assert schedule("delete", "kinder")[0] == 0 and api.schedules == {}


def test_another_cluster_in_the_kubeconfig_is_no_proof_that_a_run_is_gone(api, schedule, under_way, monkeypatch):
    first, run_id = under_way
    answer_no_workflow(monkeypatch, scheduled=["one of another cluster"])
    schedule("delete", "kinder")
    assert goes_on(api, run_id) and first in api.schedules


def answer_no_workflow(monkeypatch, scheduled):
    """Let the Kubernetes API have no workflow of any run, and the objects of these schedules."""
    monkeypatch.setattr(run_in_cluster, "find_run", lambda namespace, *_: run_in_cluster.RunInCluster(namespace, False))
    monkeypatch.setattr(run_in_cluster, "has_schedule", lambda namespace, schedule_id: schedule_id in scheduled)


# Nothing changed, or only whether it is on.


def test_setting_the_same_again_does_nothing(api, set_):
    set_()
    before = list(api.written)
    code, out, _ = set_()
    assert code == 0 and "nothing was changed" in out and out.count(" 02:00:00") == 3
    assert api.written == before


@pytest.mark.parametrize(
    "flags", [("--beta", "0.5"), ("--rounds", "2"), ("--service-account", "aligner"), ("--registry", "r.example/a")]
)
def test_any_other_setting_is_a_change(api, set_, flags):
    set_()
    before = list(api.schedules)
    set_("kinder", NIGHTLY, *flags)
    assert list(api.schedules) != before and len(api.schedules) == 1


def test_switching_off_and_on_changes_nothing_else(api, set_, under_way):
    first, run_id = under_way
    assert "it is switched off" in set_("kinder", NIGHTLY, "--disabled")[1]
    assert (list(api.schedules), api.enabled) == ([first], []) and goes_on(api, run_id)
    set_()
    assert (list(api.schedules), api.enabled) == ([first], [first])


def test_a_schedule_that_a_user_switched_off_is_kept_by_every_command(api, set_, schedule):
    set_("kinder", NIGHTLY, "--disabled")
    set_("shorter")
    schedule("list")
    assert len(api.schedules) == 2


def test_the_schedules_of_others_are_left_alone(api, set_, schedule):
    set_("kinder")
    set_("shorter")
    set_("kinder", "0 30 4 * * *")
    assert sorted(kept["display_name"] for kept in api.schedules.values()) == ["oatflow-kinder", "oatflow-shorter"]


@pytest.mark.parametrize(
    ("cron", "complaint"), [("0 2 * * *", "write '0 0 2 * * *'"), ("0 0 25 * * *", "hour '25'"), ("", "six")]
)
def test_a_wrong_cron_is_refused_before_anything_is_sent(api, set_, cron, complaint):
    code, _, said = set_("kinder", cron)
    assert code == 2 and complaint in said and api.requests == []


def test_a_wrong_setting_is_refused_before_anything_is_sent(api, set_):
    code, _, said = set_("kinder", NIGHTLY, "--num-samples", "1")
    assert code == 2 and "sampling.num_samples=1" in said and api.requests == []


def test_the_list_says_when_in_words_and_how_the_last_run_ended(api, set_, schedule):
    set_("kinder")
    set_("shorter", "0 0 4 * * MON", "--disabled")
    api.tick(
        next(key for key, kept in api.schedules.items() if kept["display_name"] == "oatflow-kinder"), state="FAILED"
    )
    code, out, _ = schedule("list")
    kinder, shorter = out.splitlines()
    assert code == 0
    assert kinder.startswith("kinder: at 02:00, every day (UTC); next ") and kinder.endswith("last run: FAILED")
    assert shorter == "shorter: at 04:00, only on Monday (UTC); switched off; last run: none yet"


def test_the_list_as_json_holds_the_same(set_, schedule):
    set_("kinder")
    (kinder,) = json.loads(schedule("list", "--json")[1])
    assert (kinder["experiment"], kinder["cron"], kinder["enabled"], kinder["last"]) == ("kinder", NIGHTLY, True, None)


def test_the_list_reads_every_page(api, set_, schedule, monkeypatch):
    monkeypatch.setattr("oatflow.pipelines.cluster.kubeflow_client.PAGE", 1)
    for name in ("kinder", "shorter", "warmer"):
        set_(name)
    assert schedule("list")[1].count("at 02:00") == 3


def test_a_schedule_that_was_made_in_the_ui_is_listed_as_it_is(api, set_, schedule):
    set_()
    only_schedule(api)["trigger"]["cron_schedule"]["cron"] = "@every 1h"
    code, out, _ = schedule("list")
    assert code == 0 and "cron '@every 1h', not set by oatflow; next not known" in out


def test_no_schedules_are_said_to_be_none(schedule):
    assert "no schedules" in schedule("list")[1]


def test_deleting_takes_it_away_and_leaves_the_record_of_its_runs(api, set_, schedule):
    set_()
    api.tick(only_schedule(api)["recurring_run_id"], state="SUCCEEDED")
    assert schedule("delete", "kinder")[0] == 0
    assert api.schedules == {} and len(api.runs) == 1


def test_deleting_one_that_is_not_there_suggests_the_one_that_was_meant(api, set_, schedule):
    set_()
    code, _, said = schedule("delete", "kindr")
    assert code == 2 and "did you mean 'kinder'?" in said and len(api.schedules) == 1
