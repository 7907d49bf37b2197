"""`oatflow schedule`: the same rounds again and again, replaced as a whole, never more than one at a time."""

import json

import pytest
from oatflow.pipelines.cli import main

from .kfp_api_double import Fault, kfp_api

LEDGER = "s3://bucket/private/team-a/oatflow?endpoint=http://seaweedfs.kubeflow:9000"
NIGHTLY = "0 0 2 * * *"
pytestmark = pytest.mark.slow


@pytest.fixture
def api():
    with kfp_api() as served:
        yield served


@pytest.fixture
def schedule(api, capsys):
    """Run an `oatflow schedule` command against the API; returns exit code, output and complaint."""

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


def test_setting_it_again_replaces_it_and_there_is_never_none(api, set_):
    set_()
    first = only_schedule(api)["recurring_run_id"]
    code, out, _ = set_("kinder", "0 30 4 * * *")
    assert code == 0 and f"it replaces {first}" in out
    assert only_schedule(api)["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"
    assert [verb for verb, where in api.written if "recurringruns" in where] == ["POST", "POST", "DELETE"]


def test_the_old_one_stays_when_the_new_one_is_refused(api, set_):
    set_()
    api.faults.append(Fault("POST", "recurringruns", 500))
    assert set_("kinder", "0 30 4 * * *")[0] == 1
    assert only_schedule(api)["trigger"]["cron_schedule"]["cron"] == NIGHTLY


def test_an_old_one_that_cannot_be_deleted_is_reported(api, set_):
    set_()
    api.faults.append(Fault("DELETE", "recurringruns", 403))
    code, _, said = set_("kinder", "0 30 4 * * *")
    assert code == 1 and "an older schedule is still there, and runs as well" in said
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
    monkeypatch.setattr("oatflow.pipelines.kubeflow_client.PAGE", 1)
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


def test_deleting_takes_it_away_and_leaves_its_runs(api, set_, schedule):
    set_()
    api.tick(only_schedule(api)["recurring_run_id"])
    assert schedule("delete", "kinder")[0] == 0
    assert api.schedules == {} and len(api.runs) == 1


def test_deleting_one_that_is_not_there_suggests_the_one_that_was_meant(api, set_, schedule):
    set_()
    code, _, said = schedule("delete", "kindr")
    assert code == 2 and "did you mean 'kinder'?" in said and len(api.schedules) == 1
