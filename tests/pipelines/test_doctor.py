"""Every check of an installation, and what to do about those that fail."""

import pytest
from oatflow.components.errors import UnsafeStore
from oatflow.components.policy.settings import PolicySettings
from oatflow.pipelines.cli import main
from oatflow.pipelines.laptop import doctor


def findings(tmp_path, pretrain, **policy):
    wanted = PolicySettings(pretrain=str(pretrain), **policy)
    return {
        found.check: found for found in doctor.examine_machine(tmp_path / "home", f"file://{tmp_path}/ledger", wanted)
    }


def test_a_store_that_keeps_its_promise_and_a_complete_model_pass(tmp_path, make_model):
    found = findings(tmp_path, make_model(tmp_path / "model", 1, "bfloat16"))
    assert found["S3"].ok and "one wins" in found["S3"].found
    assert found["model"].ok
    assert found["kfp"].ok and found["minio"].ok


def test_one_failed_check_says_what_to_do_and_hides_no_other(tmp_path):
    found = findings(tmp_path, tmp_path)
    assert not found["model"].ok and "config.json" in found["model"].found
    assert "safetensors" in found["model"].advice
    assert found["S3"].ok


def test_a_model_that_brings_code_fails_until_that_is_allowed(tmp_path, make_model):
    model = make_model(tmp_path / "model", 1, "bfloat16")
    (model / "own.py").write_text("")
    (model / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["own.Own", null]}}')
    found = findings(tmp_path, model)["model"]
    assert not found.ok and "policy.trust_remote_code=true" in found.found
    assert findings(tmp_path, model, trust_remote_code=True)["model"].ok


def test_layers_for_an_adapter_are_looked_up_in_the_model(tmp_path, make_model, capsys):
    model = make_model(tmp_path / "model", 1, "bfloat16")
    flags = ["--pretrain", str(model), "--ledger", f"file://{tmp_path}/ledger", "--lora-rank", "8"]
    with pytest.raises(SystemExit):
        main(["doctor", *flags, "--lora-targets", "qproj"])
    assert "FAIL  model: policy.lora_targets='qproj': the model has no layer qproj; it has" in capsys.readouterr().out
    assert findings(tmp_path, model, lora_rank=8, lora_targets="q_proj")["model"].ok


def test_a_store_without_conditional_writes_is_found_out(tmp_path, monkeypatch):
    def broken(store):
        raise UnsafeStore("3 of 8 racers won")

    monkeypatch.setattr(doctor, "prove_conditional_writes", broken)
    found = findings(tmp_path, tmp_path)["S3"]
    assert not found.ok and "3 of 8 racers won" in found.found


def test_a_missing_package_and_another_version_are_named(monkeypatch):
    assert not doctor._check_package("no-such-package", "1.0").ok
    assert "tested with 0.0.1" in doctor._check_package("kfp", "0.0.1").advice


@pytest.mark.parametrize("check", ["memory", "disk"])
def test_too_little_room_is_reported_with_what_is_needed(tmp_path, monkeypatch, check):
    monkeypatch.setattr(doctor, f"{check.upper()}_NEEDED", 2**60)
    found = findings(tmp_path, tmp_path)[check]
    assert not found.ok and "GiB" in found.advice


def test_a_pod_asks_for_nothing_but_the_store(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--store-only", "--ledger", f"file://{tmp_path}/ledger"])
    said = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0 and len(said) == 2
    assert said[0].startswith("ok    S3: ") and "of 8 racing writers one wins" in said[0]
