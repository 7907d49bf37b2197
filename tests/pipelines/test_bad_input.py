"""What cannot work is refused in one line, with exit code 2, and nothing is written."""

import json
import shutil

import pytest
from oatflow.pipelines.cli import main


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """Run `oatflow align` and return its one line of complaint."""
    monkeypatch.chdir(tmp_path)
    ledger = tmp_path / "ledger"

    def run(*flags, preset="scripted", store=None):
        arguments = ["align", "--preset", preset, "--ledger", store or f"file://{ledger}", *flags]
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        complaint = capsys.readouterr().err
        assert stop.value.code == 2, complaint
        assert complaint.startswith("oatflow: ") and complaint.count("\n") == 1, complaint
        assert not [path for path in ledger.rglob("*") if path.is_file()], "something was written"
        return complaint

    return run


@pytest.fixture(scope="module")
def whole_model(make_model, tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("whole-model"), 0, "float32")


def rows(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_an_unknown_setting_is_named_with_a_suggestion(refused):
    assert "temprature: unknown setting; did you mean 'temperature'?" in refused("--temprature", "0.5")


def test_an_unknown_setting_in_a_file_is_named_with_a_suggestion(refused, tmp_path):
    (tmp_path / "mine.yaml").write_text("policy: {betta: 0.2}\n")
    assert "policy.betta=0.2: unknown setting; did you mean 'beta'?" in refused("--config", "mine.yaml")


def test_a_setting_in_the_wrong_room_is_sent_to_the_right_one(refused, tmp_path):
    (tmp_path / "mine.yaml").write_text("policy: {num_samples: 4}\n")
    assert "belongs under 'sampling'" in refused("--config", "mine.yaml")


def test_a_wrong_type_is_named(refused):
    assert "sampling.num_samples='many': " in refused("--num_samples", "many")


def test_all_problems_come_in_one_error(refused):
    complaint = refused("--num-samples", "1", "--max-queries", "0", "--beta", "-1")
    assert "sampling.num_samples=1: a duel needs at least 2 candidates" in complaint
    assert "labeling.max_queries=0: " in complaint and "policy.beta=-1" in complaint


def test_an_unknown_oracle_is_named_with_a_suggestion(refused):
    assert "preference_oracle='simulatd': unknown; did you mean 'simulated'?" in refused(
        "--preference-oracle", "simulatd"
    )


def test_an_unknown_preset_is_named_with_a_suggestion(refused):
    assert "preset='review': unknown; did you mean 'reviews'?" in refused(preset="review")


def test_an_empty_prompt_file_is_refused(refused, tmp_path):
    assert "empty.jsonl" in refused("--prompt-data", rows(tmp_path / "empty.jsonl"))


def test_a_missing_prompt_file_is_refused(refused):
    assert "nowhere.jsonl" in refused("--prompt-data", "nowhere.jsonl")


def test_a_missing_column_is_refused_with_those_there(refused, tmp_path):
    complaint = refused("--prompt-data", rows(tmp_path / "p.jsonl", {"question": "why?", "answer": "so"}))
    assert "'prompt'" in complaint and "question" in complaint and "answer" in complaint


def test_one_column_of_a_preference_set_without_the_other_is_refused(refused):
    complaint = refused("--prompt-data", "oatflow:review-preferences", "--chosen-key", "chosen")
    assert "prompts.chosen_key='chosen', prompts.rejected_key=None" in complaint


def test_an_empty_answer_of_a_preference_set_is_refused_with_its_place(refused, tmp_path):
    file = rows(tmp_path / "p.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"},
                {"prompt": "a", "chosen": [{"role": "assistant", "content": ""}], "rejected": "c"})  # fmt: skip
    flags = ("--chosen-key", "chosen", "--rejected-key", "rejected")
    complaint = refused("--prompt-data", file, "--eval-data", file, *flags)
    assert "p.jsonl" in complaint and "line 2, column 'chosen' is empty" in complaint


def test_prompts_that_are_all_too_long_are_refused(refused, tmp_path):
    file = rows(tmp_path / "p.jsonl", {"prompt": "a b c d e f g h"})
    complaint = refused("--prompt-data", file, "--eval-data", file, "--prompt-max-length", "3")
    assert "prompt_max_length" in complaint and "3" in complaint


def test_a_model_folder_without_weights_is_refused(refused, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    complaint = refused("--pretrain", str(folder), preset="reviews")
    assert str(folder) in complaint and "safetensors" in complaint


@pytest.mark.slow
def test_a_model_that_brings_code_is_refused_with_the_setting_that_would_allow_it(refused, tmp_path, whole_model):
    model = shutil.copytree(whole_model, tmp_path / "model")
    (model / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}')
    complaint = refused("--pretrain", str(model), preset="reviews")
    assert "auto_map in config.json" in complaint and "policy.trust_remote_code=true" in complaint


def test_pickled_weights_are_refused_with_the_setting_that_would_allow_them(refused, tmp_path, whole_model):
    model = shutil.copytree(whole_model, tmp_path / "model")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    complaint = refused("--pretrain", str(model), preset="reviews")
    assert "only pytorch_model.bin" in complaint and "policy.allow_pickled_weights=true" in complaint


def test_a_lora_target_that_the_model_lacks_is_refused_with_those_it_has(refused, whole_model):
    flags = ("--pretrain", str(whole_model), "--lora-rank", "8", "--lora-targets", "q_proj,value")
    complaint = refused(*flags, preset="reviews")
    assert "the model has no layer value; it has " in complaint and "v_proj" in complaint


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_refused(refused, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-words")
    complaint = refused(store="s3://bucket/oatflow?endpoint=http://127.0.0.1:9")
    assert "127.0.0.1:9" in complaint and "hidden-words" not in complaint


def test_a_store_uri_of_an_unknown_kind_is_refused(refused):
    assert "s3:// or file://" in refused(store="ftp://bucket/oatflow")


def test_a_name_that_no_cluster_would_take_is_refused(refused):
    assert "experiment='My Run'" in refused("--experiment", "My Run")


def test_references_that_no_column_holds_are_refused(refused):
    assert "prompts.output_key" in refused("--opponent", "reference")


def test_a_batch_that_the_workers_cannot_share_is_refused(refused):
    assert "policy.train_batch_size=8" in refused("--train-workers", "3", "--train-batch-size", "8")


@pytest.mark.slow
def test_wrong_credentials_are_refused(refused, s3_store_uri, monkeypatch):
    uri = s3_store_uri("refused")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-key")
    assert "AWS_SECRET_ACCESS_KEY" in refused(store=uri)


@pytest.mark.slow
def test_prompts_that_are_too_long_are_dropped_counted_and_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = rows(tmp_path / "p.jsonl", {"prompt": "a b c"}, {"prompt": "a b c d e f g h"}, {"prompt": "d e"})
    with pytest.raises(SystemExit) as stop:
        main(["align", "--preset", "scripted", "--ledger", f"file://{tmp_path}/ledger",
              "--rollout-batch-size", "2", "--max-queries", "2",
              "--prompt-data", file, "--eval-data", file, "--prompt-max-length", "3"])  # fmt: skip
    assert stop.value.code == 0
    assert "2 train (1 too long, dropped), 2 eval (1 too long, dropped)" in capsys.readouterr().out
