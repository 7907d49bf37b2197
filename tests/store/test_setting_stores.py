"""Which server a setting means with s3://bucket/folder, and what its errors name."""

import json

import pytest
from oatflow.components.errors import ModelError, PromptError, RefusedInput, StoreRefused, StoreUnreachable
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.model_folder import resolve_pretrain
from oatflow.components.oracles.oracle import Circumstances
from oatflow.components.oracles.registry import open_oracle
from oatflow.components.oracles.settings import PairRMSettings, ScorerSettings
from oatflow.components.prompts.outside import load_outside
from oatflow.components.prompts.settings import OutsideSettings, PromptSettings
from oatflow.components.prompts.source import load_prompts
from oatflow.components.rounds.opening import open_round
from oatflow.components.store.s3_address import AWS
from oatflow.components.store.setting_stores import SettingStores
from oatflow.components.store.store import open_store

from ..rounds.absent_store import KEYS, AbsentStore, Memory

OURS = "s3://bucket/team/demo?endpoint=http://seaweedfs.kubeflow:9000"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    server = AbsentStore(Memory())
    yield server
    server.close()


def endpoint(ledger, uri):
    return SettingStores(ledger).open(uri, "policy.pretrain")._address.endpoint


def test_an_address_without_a_server_means_the_ledgers_own():
    assert endpoint(OURS, "s3://models/llama") == "http://seaweedfs.kubeflow:9000"


def test_an_address_with_a_server_means_that_one():
    assert endpoint(OURS, "s3://models/llama?endpoint=http://minio:9000") == "http://minio:9000"


@pytest.mark.parametrize("aws", ["https://s3.amazonaws.com", "https://s3.eu-central-1.amazonaws.com"])
def test_aws_is_asked_by_its_endpoint(aws):
    assert endpoint(OURS, f"s3://models/llama?endpoint={aws}") == aws


def test_aws_is_asked_where_the_ledger_lies_there():
    assert endpoint("s3://bucket/team/demo", "s3://models/llama") == AWS


@pytest.mark.parametrize("ledger", ["", "s3://bucket/team/demo", "file:///experiments/demo"])
def test_where_the_ledger_names_no_server_the_environment_does(monkeypatch, ledger):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    assert endpoint(ledger, "s3://models/llama") == "http://minio:9000"


def test_the_ledgers_own_server_goes_before_the_environments(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    assert endpoint(OURS, "s3://models/llama") == "http://seaweedfs.kubeflow:9000"


def test_requests_to_a_region_of_aws_are_signed_for_it(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    store = SettingStores(OURS).open("s3://models/x?endpoint=https://s3.eu-central-1.amazonaws.com", "policy.pretrain")
    assert store._address.region == "eu-central-1"


def test_a_model_is_fetched_from_the_ledgers_own_server(server, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ledger = Ledger(open_store(f"s3://bucket/demo?endpoint={server.endpoint}"))
    open_store(f"s3://models/llama?endpoint={server.endpoint}").put("config.json", b"{}")
    folder = resolve_pretrain("s3://models/llama", stores=ledger.setting_stores)
    assert (folder / "config.json").read_bytes() == b"{}"


def test_models_of_one_name_on_two_servers_are_two_models(server, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    other = AbsentStore(Memory())
    for each, text in ((server, b'"ours"'), (other, b'"theirs"')):
        open_store(f"s3://models/llama?endpoint={each.endpoint}").put("config.json", text)
        stores = SettingStores(f"s3://bucket/demo?endpoint={each.endpoint}")
        assert (resolve_pretrain("s3://models/llama", stores=stores) / "config.json").read_bytes() == text
    other.close()


def test_an_experiment_begins_with_prompts_on_its_own_server_and_freezes_their_address_as_it_was_given(server):
    uri = f"s3://bucket/demo?endpoint={server.endpoint}"
    rows = "".join(json.dumps({"prompt": f"Say {number}."}) + "\n" for number in range(8)).encode()
    data = open_store(f"s3://data/set?endpoint={server.endpoint}")
    data.put("train.jsonl", rows)
    data.put("held-out.jsonl", rows)
    settings = {
        "prompts": {
            "prompt_data": "s3://data/set", "eval_data": "s3://data/set/held-out.jsonl", "rollout_batch_size": 4
        },
        "sampling": {"engine": "scripted"},
        "policy": {"trainer": "scripted", "train_batch_size": 8},
        "labeling": {"max_queries": 4},
    }  # fmt: skip
    assert open_round(uri, settings, "run") == 0
    frozen = Ledger(open_store(uri)).experiment.settings["prompts"]
    assert (frozen["prompt_data"], frozen["eval_data"]) == ("s3://data/set", "s3://data/set/held-out.jsonl")
    assert len(Ledger(open_store(uri)).train_prompts()) == 8


def no_bucket(*_):
    return 404, {}, b"<Error><Code>NoSuchBucket</Code><Message>none</Message></Error>"


ASKED = {
    "policy.pretrain='s3://models/x'": lambda stores: resolve_pretrain("s3://models/x", stores=stores),
    "reward_model.rm_backbone='s3://models/x'": lambda stores: resolve_pretrain(
        "s3://models/x", "reward_model.rm_backbone", stores=stores
    ),
    "scorer_model='s3://models/x'": lambda stores: open_oracle(
        "scorer", ScorerSettings(scorer_model="s3://models/x"), Circumstances(stores=stores)
    ).check_ready(),
    "pairrm_model='s3://models/x'": lambda stores: open_oracle(
        "pairrm", PairRMSettings(pairrm_model="s3://models/x"), Circumstances(stores=stores)
    ).check_ready(),
    "prompts.prompt_data='s3://data/x.jsonl'": lambda stores: load_prompts(
        PromptSettings(prompt_data="s3://data/x.jsonl"), "train", stores
    ),
    "prompts.eval_data='s3://data/x.jsonl'": lambda stores: load_prompts(
        PromptSettings(prompt_data="oatflow:reviews", eval_data="s3://data/x.jsonl"), "eval", stores
    ),
    "outside.outside_preferences='s3://data/x'": lambda stores: load_outside(
        OutsideSettings(outside_preferences="s3://data/x"), stores
    ),
}


@pytest.mark.parametrize("named", ASKED)
def test_errors_name_the_setting_and_the_server_that_was_asked(server, monkeypatch, tmp_path, named):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stores = SettingStores(f"s3://bucket/demo?endpoint={server.endpoint}")
    with pytest.raises((ModelError, PromptError)) as absent:
        ASKED[named](stores)
    assert str(absent.value).startswith(f"{named}: ") and server.endpoint in str(absent.value)
    monkeypatch.setattr(Memory, "ask", no_bucket)
    with pytest.raises(StoreRefused, match="there is no bucket") as refused:
        ASKED[named](stores)
    assert str(refused.value).startswith(f"{named}: ") and server.endpoint in str(refused.value)
    with pytest.raises(StoreUnreachable) as unknown:
        ASKED[named](SettingStores("s3://bucket/demo?endpoint=http://store.invalid"))
    assert str(unknown.value).startswith(f"{named}: no answer from http://store.invalid")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(RefusedInput, match="AWS_ACCESS_KEY_ID not set") as keyless:
        ASKED[named](stores)
    assert str(keyless.value).startswith(f"{named}: ") and "ledger=" not in str(keyless.value)


def test_no_error_repeats_a_key_that_was_put_into_an_address():
    with pytest.raises(RefusedInput, match=r"^policy.pretrain=s3://...@...: no keys") as refused:
        SettingStores(OURS).open("s3://key:do-not-print-me@models/x", "policy.pretrain")
    assert "do-not-print-me" not in str(refused.value)
