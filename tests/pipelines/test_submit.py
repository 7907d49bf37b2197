"""`oatflow submit`, and the plain `kfp` command: what arrives at Kubeflow Pipelines, and what comes back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from oatflow.components.reward_model.settings import RewardModelSettings
from oatflow.components.rounds.experiment import ExperimentSettings
from oatflow.components.rounds.form import FORM, MORE, sections_of
from oatflow.pipelines.alignment.build import Build
from oatflow.pipelines.alignment.config import all_settings, gather
from oatflow.pipelines.alignment.pipeline import compile_pipeline
from oatflow.pipelines.cli import main
from oatflow.pipelines.cluster import submission
from oatflow.pipelines.cluster.kubeflow_client import Cluster

from .kfp_api_double import Fault, KfpApi, kfp_api
from .recorded_runs import LOG_OF_TRAIN, TRAIN_POD, playing, recorded

LEDGER = "s3://bucket/private/team-a/oatflow?endpoint=http://seaweedfs.kubeflow:9000"
pytestmark = pytest.mark.slow
KFP = str(Path(sys.executable).parent / "kfp")

CI_CHECK = Path(__file__).parents[2] / "manifests" / "examples" / "kfp-run.sh"


@pytest.fixture
def api():
    with kfp_api() as served:
        yield served


@pytest.fixture
def oatflow(api, capsys, monkeypatch):
    """Run an `oatflow` command against the API; returns exit code, output and complaint."""
    monkeypatch.setattr(submission, "POLL_SECONDS", 0.01)
    monkeypatch.delenv("OATFLOW_LEDGER", raising=False)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("KUBECONFIG", "/there/is/none")

    def run(*arguments, host=api.endpoint, namespace=("--namespace", "team-a")):
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--host", host, *namespace])
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    return run


@pytest.fixture
def submit(oatflow):
    def run(*flags, preset="scripted", ledger=LEDGER, **where):
        return oatflow("submit", "--preset", preset, "--ledger", ledger, *flags, **where)

    return run


def only_run(api: KfpApi):
    (run,) = api.runs.values()
    return run


def arguments(api: KfpApi):
    return only_run(api)["runtime_config"]["parameters"]


def test_a_run_is_started_in_an_experiment_of_its_name_and_its_link_is_shown(api, submit):
    code, out, _ = submit("--experiment", "kinder", "--run-name", "first")
    run = only_run(api)
    assert code == 0 and run["run_id"] in out and f"{api.endpoint}/#/runs/details/{run['run_id']}" in out
    assert run["display_name"] == "first"
    (experiment,) = api.experiments.values()
    assert (experiment["display_name"], experiment["namespace"]) == ("kinder", "team-a")
    assert run["experiment_id"] == experiment["experiment_id"]


def test_a_second_run_goes_into_the_same_experiment(api, submit):
    submit()
    submit()
    assert len(api.runs) == 2 and len(api.experiments) == 1


def test_the_ledger_is_that_of_the_experiment_as_align_names_it(api, submit):
    submit("--experiment", "kinder")
    assert (
        arguments(api)["ledger"] == "s3://bucket/private/team-a/oatflow/kinder?endpoint=http://seaweedfs.kubeflow:9000"
    )


def test_the_ledger_may_come_from_the_environment(api, oatflow, monkeypatch):
    monkeypatch.setenv("OATFLOW_LEDGER", LEDGER)
    assert oatflow("submit", "--preset", "scripted")[0] == 0
    assert arguments(api)["ledger"].startswith("s3://bucket/private/team-a/oatflow/demo?")


def test_a_run_does_as_many_rounds_as_were_asked_for_and_caches_none(api, submit):
    submit("--rounds", "3")
    spec = only_run(api)["pipeline_spec"]["pipeline_spec"]
    tasks = spec["root"]["dag"]["tasks"]
    assert sorted(tasks) == ["round", "round-2", "round-3"]
    assert Cluster.connect(api.endpoint, "team-a").run(only_run(api)["run_id"]).rounds == 3
    assert not any(task.get("cachingOptions", {}).get("enableCache") for task in tasks.values())


def test_the_service_account_is_passed_on(api, submit):
    submit("--service-account", "aligner")
    assert only_run(api)["service_account"] == "aligner"


def test_one_own_registry_is_that_of_all_images(api, submit):
    submit("--registry", "registry.example/team")
    executors = only_run(api)["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    images = {each["container"]["image"] for each in executors.values() if "container" in each}
    assert images and all(image.startswith("registry.example/team/") for image in images)
    assert arguments(api)["train_image"].startswith("registry.example/team/trainer:")


# A value for each setting that differs from its default, and what must go with it.
OTHER = {
    "prompt_data": "s3://bucket/prompts.jsonl",
    "eval_data": "s3://bucket/eval.jsonl",
    "train_split": "practice",
    "eval_split": "exam",
    "input_key": "question",
    "output_key": "answer",
    "max_train": 7,
    "max_model_len": 256,
    "dtype": "bfloat16",
    "top_p": 0.5,
    "gpu_memory_utilization": 0.5,
    "reward": "length",
    "pretrain": "someone/small-model",
    "dap_algo": "ipo",
    "preference_oracle": "pairrm",
    "eval_oracle": "pairrm",
    "scorer_dtype": "bfloat16",
    "remote_protocol": "oat",
    "remote_backoff": "oat",
    "remote_allowed_hosts": ["rewards.team-a"],
    "judge_orders": "one",
    "judge_verdict": "parsed",
    "judge_template": "{rubric}\n{prompt}\n{first}\n{second}\n",
    "judge_rubric": "Kinder is better.\n",
    "judge_allowed_hosts": ["judge.team-a"],
    "judge_spending_limit": 2.5,
    "outside_preferences": "s3://bucket/outside.jsonl",
    "outside_batch_size": 7,
    "track": "wandb",
    "wandb_mode": "offline",
    "opponent": "reference",
    "engine": "vllm",
    "trainer": "deepspeed",
    "precision": "float32",
    "zero_stage": 3,
    "chosen_key": "better",
    "rejected_key": "worse",
    "bnf_length": "batch",
    "loss_reduction": "all",
    "lr_scheduler": "polynomial",
    "max_sgd_steps": 7,
    "pi_buffer_maxlen": 9,
    "buffer_clear_every": 3,
    "objective": "explore_and_exploit",
    "exp_method": "EnnBAITS",
    "on_clash": "random",
    "exp_law": "oat",
    "enn_max_try": 3,
    "apl_keep": 5,
    "max_model_data_ratio": 0.25,
    "model_data_label": "oracle",
    "ties": "oat",
    "leftover_pairs": "own_step",
    "rm_backbone": "someone/encoder",
    "rm_act_fn": "swish",
    "rm_mask": "broadcast",
    "rm_train_budget": 500,
    "lora_targets": "q_proj,v_proj",
    "train_backend": "trainjob",
    "train_image": "registry.example/trainer:7",
    "train_pod_gpus": "2",
    "train_pod_cpu": "6",
    "train_pod_memory": "20Gi",
    "train_pod_shared_memory": "3Gi",
    "train_pod_scratch": "60Gi",
    "train_node_selector": {"pool": "007"},
    "train_tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "train_service_account": "trainer",
    "train_queue": "team-queue",
    "train_priority_class": "low",
    "train_runtime": "torch-other",
    "image_pull_secrets": ["pull"],
    "s3_secret": "store-keys",
    "keys_secret": "hub-keys",
    "gpu_resource": "amd.com/gpu",
    "sampler_gpus": "0",
    "sampler_cpu": "3",
    "sampler_memory": "5Gi",
    "sampler_node_selector": {"pool": "true"},
    "sampler_tolerations": [{"key": "gpu", "operator": "Exists"}],
    "oracle_gpus": "1",
    "oracle_cpu": "500m",
    "oracle_memory": "9Gi",
    "light_cpu": "2",
    "light_memory": "5Gi",
    "light_cpu_request": "200m",
    "light_memory_request": "1Gi",
}
ASKED = {
    "pairrm": {"labeling": {"preference_oracle": "pairrm"}},
    "scorer": {"labeling": {"preference_oracle": "scorer"}, "scorer": {"scorer_model": "someone/rewards"}},
    "remote": {"labeling": {"preference_oracle": "remote"}, "remote": {"remote_url": "http://rewards.team-a:8000"}},
    "judge": {"labeling": {"preference_oracle": "judge"}, "judge": {"judge_model": "judge-1"}},
    "human": {"labeling": {"preference_oracle": "human"}, "evaluation": {"eval_every": 0}},
    "outside": {"outside": {"outside_preferences": "s3://bucket/more.jsonl"}},
}
BESIDE = {
    "engine": {"sampling": {"engine": "vllm"}, "policy": {"trainer": "deepspeed"}},
    "trainer": {"sampling": {"engine": "vllm"}, "policy": {"trainer": "deepspeed"}},
    "tensor_parallel_size": {"resources": {"sampler_gpus": "2"}},
    "train_pods": {"policy": {"train_workers": 2}},
    "train_pod_gpus": {"policy": {"train_workers": 2}},
    "train_workers": {"jobs": {"train_pod_gpus": "2"}},
    "opponent": {"prompts": {"output_key": "answer"}},
    "train_batch_size": {"policy": {"train_batch_size_per_device": 1}},
    "chosen_key": {"prompts": {"rejected_key": "worse"}},
    "rejected_key": {"prompts": {"chosen_key": "better"}},
    "gamma_beta_ratio": {"policy": {"dap_algo": "simpo"}},
    "ipo_per_token": {"policy": {"dap_algo": "ipo"}},
    "bnf_length": {"policy": {"dap_algo": "bnf"}},
    "buffer_clear_every": {"policy": {"pi_buffer_maxlen": 9}},
    "lora_alpha": {"policy": {"lora_rank": 8}},
    "lora_targets": {"policy": {"lora_rank": 8}},
    "exp_law": {"exploration": {"exp_method": "EnnEETS"}},
    "enn_max_try": {"exploration": {"exp_method": "EnnEETS"}},
    "ucb_beta": {"exploration": {"exp_method": "DeltaUCB"}},
    "apl_certainty_only": {"exploration": {"exp_method": "APL"}},
    "apl_keep": {"exploration": {"exp_method": "APL"}},
    "xpo_alpha": {"exploration": {"exp_method": "XPO"}},
    **{
        name: {"exploration": {"model_rollout": True}}
        for name in ("max_model_data_ratio", "burn_in_period", "pure_model_based", "model_data_label")
    },
    **{name: {"reward_model": {"learn_rm": True}} for name in ("num_bon", *RewardModelSettings.model_fields)},
}


# Settings that contradict others of their room.
ALONE = ("dap_algo", "lr_scheduler", "train_priority_class")
PLACE = Build().defaults()


def other_than(setting, now):
    """Return a valid value that is not what the preset says, where there is a second one."""
    if setting.name in OTHER:
        return OTHER[setting.name]
    if isinstance(now, bool):
        return not now
    if isinstance(now, str):
        return f"{now}-other"
    return now / 2 + 0.125 if isinstance(now, float) else now + 1


def cases():
    """All settings: of a room, those that need nothing beside them go in one run, every other one in its own."""
    together = {}
    for setting in all_settings():
        needed = BESIDE.get(setting.name, ASKED.get(setting.room, {}))
        alone = setting.name in BESIDE or setting.name in ALONE
        name = setting.name if alone else setting.room
        together.setdefault(name, (needed, []))[1].append(setting)
    return [pytest.param(needed, settings, id=name) for name, (needed, settings) in together.items()]


@pytest.mark.parametrize(("needed", "settings"), cases())
def test_every_setting_arrives_as_it_was_given_and_of_its_type(needed, settings, api, submit, tmp_path, compiled_once):
    now = gather("scripted", None, {}, PLACE).model_dump(mode="json")
    sections = {room: dict(inside) for room, inside in needed.items()}
    values = {setting.name: other_than(setting, now[setting.room][setting.name]) for setting in settings}
    for setting in settings:
        assert values[setting.name] != now[setting.room][setting.name]
        sections.setdefault(setting.room, {})[setting.name] = values[setting.name]
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(sections))

    code, _, complaint = submit("--config", str(file))

    assert code == 0, complaint
    sent = arguments(api)
    for setting in settings:
        arrived = sent[setting.name] if setting.name in FORM else sent[MORE][setting.room][setting.name]
        assert (arrived, type(arrived)) == (values[setting.name], type(values[setting.name])), setting.name
    assert ExperimentSettings.parse(sections_of(sent)) == with_image(
        gather("scripted", file, {}, PLACE), sent["train_image"]
    )


def with_image(settings, image):
    """The image alone may differ from what was asked: the shipped one's variant for this hardware."""
    return settings.model_copy(update={"jobs": settings.jobs.model_copy(update={"train_image": image})})


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--num-samples", "1"], "sampling.num_samples=1"),
        (["--temprature", "1"], "did you mean 'temperature'"),
        (["--rounds", "11"], "rounds=11"),
        (["--experiment", "My Run"], "experiment='My Run'"),
        (["--ledger", "file:///tmp/ledger"], "share no folder"),
        (["--ledger", "s3://key:secret-words@bucket/x"], "no keys in a URI"),
        (["--ledger", "s3://bucket/x?endpoint=http://localhost:9000"], "in a pod, localhost is the pod itself"),
        (["--pretrain", "oatflow:SmolLM2-135M-Instruct"], "no pod has it"),
        (["--prompt-data", __file__], "lies on this machine, and no pod has it"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(api, submit, flags, complaint):
    code, _, said = submit(*flags)
    assert code == 2 and complaint in said and "secret-words" not in said
    assert api.requests == []


def test_a_cluster_has_no_ledger_by_default(api, oatflow):
    code, _, said = oatflow("submit")
    assert code == 2 and "--ledger" in said and "OATFLOW_LEDGER" in said
    assert api.requests == []


# Waiting.


def test_waiting_ends_well_with_a_run_that_succeeds(api, submit):
    api.stages = ("PENDING", "RUNNING", "SUCCEEDED")
    code, out, _ = submit("--wait")
    assert code == 0 and "SUCCEEDED" in out


def played(name):
    """Return the answers that a recorded run gave, some time apart."""
    return [answer for answer, _ in playing(recorded(name), every=40)]


def test_waiting_says_when_each_step_begins_and_ends(api, submit):
    api.frames = played("run-succeeded")
    code, out, _ = submit("--wait")
    said = out.splitlines()[2:]
    assert code == 0 and said[-1] == "the run ended as SUCCEEDED after 5 min 09 s"
    assert "sample            begins" in said and "sample            done in 1 min 07 s" in said


def test_a_failed_run_fails_and_names_the_step_and_its_last_line(api, submit):
    api.frames, api.logs[TRAIN_POD] = played("run-importer-failed"), LOG_OF_TRAIN
    code, out, _ = submit("--wait")
    assert code == 1 and out.splitlines()[-3:] == [
        "the run ended as FAILED after 5 min 27 s",
        "train failed: the training ran out of memory on worker 0 (OOMKilled); raise train_pod_memory, which is 3Gi",
        "Kubeflow's own task importer failed",
    ]


def test_a_terminated_run_ends_the_wait_and_did_not_fail_by_itself(api, submit):
    api.frames = played("run-terminated")
    code, out, _ = submit("--wait")
    assert code == 1 and out.splitlines()[-1] == "the run was terminated at 2026-11-30 19:55:46 UTC during train"


def test_a_run_that_somebody_cancelled_ends_the_wait(api, submit):
    api.stages = ("CANCELED",)
    assert submit("--wait")[0] == 1


def test_waiting_outlasts_an_api_that_is_away_for_a_moment(api, submit):
    api.stages = ("RUNNING", "SUCCEEDED")
    api.faults.append(Fault("GET", "runs/", 500, times=2))
    assert submit("--wait")[0] == 0


def test_waiting_does_not_outlast_an_api_that_stays_away(api, submit, monkeypatch):
    monkeypatch.setattr(submission, "PATIENCE_SECONDS", 0.1)
    api.faults.append(Fault("GET", "runs/", 500, times=1000))
    code, _, said = submit("--wait")
    assert code == 1 and "(500" in said and len(api.runs) == 1


def test_waiting_has_an_end_and_the_run_goes_on(api, submit):
    api.stages = ("RUNNING",)
    code, _, said = submit("--wait", "--timeout", "0.05")
    assert code == 1 and "still RUNNING after 0 s; it goes on" in said


def test_json_is_all_that_is_printed_when_it_is_asked_for(api, submit):
    api.stages = ("SUCCEEDED",)
    _, out, _ = submit("--wait", "--json")
    assert json.loads(out) == {
        "id": only_run(api)["run_id"],
        "link": f"{api.endpoint}/#/runs/details/{only_run(api)['run_id']}",
        "state": "SUCCEEDED",
        "failures": [],
    }


def test_an_interrupted_wait_leaves_the_run_alone_and_does_not_ask_for_a_second_one(api, submit, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(submission.time, "sleep", interrupt)
    code, _, said = submit("--wait")
    assert code == 130 and "stopped waiting; run" in said and "goes on" in said and "same command" not in said


def test_a_token_that_expires_while_a_run_is_waited_for_is_not_taken_for_the_end_of_the_run(api, submit, monkeypatch):
    monkeypatch.setattr(submission.time, "sleep", lambda seconds: api.faults.append(Fault("GET", "runs/", 401)))
    code, _, said = submit("--wait")
    run = only_run(api)["run_id"]
    assert code == 2 and said.count("\n") == 1 and "check the credentials" in said
    assert f"Run {run} itself goes on, this only waited for it: {api.endpoint}/#/runs/details/{run}" in said


def test_json_has_standard_output_for_itself_while_the_steps_are_said(api, submit):
    api.frames = played("run-succeeded")
    _, out, said = submit("--wait", "--json")
    assert json.loads(out)["state"] == "SUCCEEDED" and "sample            done in 1 min 07 s" in said


# What can go wrong with the API.


def test_nobody_there_is_said_in_one_line(submit):
    code, _, said = submit(host="http://127.0.0.1:9")
    assert code == 2 and said.count("\n") == 1
    assert "no answer from http://127.0.0.1:9" in said and "is the port-forward up?" in said


def test_a_login_page_is_no_answer(api, submit):
    api.faults.append(Fault("GET", "healthz", 200, "<html>Log in</html>", "text/html"))
    code, _, said = submit()
    assert code == 2 and "a login page" in said and api.written == []


@pytest.mark.parametrize(("status", "word"), [(401, "credentials"), (403, "kubeflow-edit"), (404, "check --host")])
def test_a_refusal_says_who_must_act(api, submit, status, word):
    api.faults.append(Fault("POST", "experiments", status))
    code, _, said = submit()
    assert code == 2 and word in said and "a fault that was ordered" in said and said.count("\n") == 1


def test_the_servers_own_words_are_passed_on(api, submit):
    api.faults.append(Fault("POST", "runs", 400, '{"message": "input parameter beta requires type double"}'))
    code, _, said = submit()
    assert code == 2 and "input parameter beta requires type double" in said


def test_a_question_is_asked_again_and_a_create_is_not(api, submit):
    api.faults += [Fault("GET", "experiments", 503, times=2), Fault("POST", "runs", 503)]
    code, _, said = submit()
    assert code == 1 and "(503" in said
    assert api.written == [("POST", "/apis/v2beta1/experiments"), ("POST", "/apis/v2beta1/runs")]


def test_a_namespace_is_asked_for_where_each_user_has_one(api, submit):
    code, _, said = submit(namespace=())
    assert code == 2 and "--namespace" in said and api.written == []


def test_a_kubeflow_with_one_namespace_needs_none(api, submit):
    api.multi_user = False
    assert submit(namespace=())[0] == 0


def test_the_token_comes_from_kfps_own_file_and_is_never_shown(api, submit, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("hidden-words")
    api.token = "hidden-words"
    assert submit()[0] == 2
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    code, out, said = submit()
    assert code == 0 and "hidden-words" not in out + said
    assert "hidden-words" not in json.dumps(list(api.runs.values()))


# Without us: the kfp command.


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / "alignment.yaml"
    compile_pipeline(2, path)
    return path


def kfp(api, *arguments, output="json"):
    command = [KFP, "--endpoint", api.endpoint, "-n", "team-a", "--output", output, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


GIVEN = ["ledger=s3://bucket/oatflow/demo", "prompt_data=oatflow:reviews", "pretrain=someone/small"]


def test_the_kfp_command_runs_the_compiled_file_as_it_is(api, package):
    typed = ['more_settings={"policy": {"l2": 0.1}}', "beta=0.2", "max_queries=64", "apply_chat_template=false",
             'sampler_gpus="0"', 'train_tolerations=[{"key": "gpu"}]']  # fmt: skip
    done = kfp(api, "run", "create", "-e", "kinder", "-r", "nightly", "-f", package, *GIVEN, *typed)
    assert done.returncode == 0, done.stderr
    sent = arguments(api)
    assert (sent["beta"], sent["max_queries"], sent["apply_chat_template"]) == (0.2, 64, False)
    assert (sent["sampler_gpus"], sent["train_tolerations"]) == ("0", [{"key": "gpu"}])
    assert sent["more_settings"] == {"policy": {"l2": 0.1}}


@pytest.mark.parametrize("wrong", ["max_queries='many'", "sampler_gpus=0", "betta=0.1"])
def test_the_api_refuses_what_does_not_fit_the_form(api, package, wrong):
    assert kfp(api, "run", "create", "-e", "kinder", "-f", package, *GIVEN, wrong).returncode != 0
    assert api.runs == {}


def test_a_form_without_what_nobody_can_guess_is_refused(api, package):
    done = kfp(api, "run", "create", "-e", "kinder", "-f", package, *GIVEN[:2])
    assert "parameter pretrain is not optional" in done.stderr and api.runs == {}


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELED", 1), ("RUNNING", 1)])
def test_the_check_for_ci_fails_with_the_run(api, package, state, code):
    api.stages = ("PENDING", "PENDING", state)
    environment = {
        **os.environ, "PATH": f"{Path(KFP).parent}:{os.environ['PATH']}", "KFP_ENDPOINT": api.endpoint,
        "KFP_NAMESPACE": "team-a", "EXPERIMENT": "kinder", "RUN_NAME": "nightly", "POLL": "1", "TIMEOUT": "2",
    }  # fmt: skip
    done = subprocess.run(
        [CI_CHECK, *GIVEN], cwd=package.parent, env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert state in done.stdout + done.stderr
