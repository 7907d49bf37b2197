"""The policy of a finished round as an ordinary model folder, with its card. The ledgers are written by hand."""

import json
import os
from dataclasses import replace
from itertools import product

import pytest
import yaml
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.model_folder import check_model_folder, model_digest
from oatflow.components.reporting.curves import Explored, read_rounds
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.experiment import ExperimentSettings
from oatflow.components.rounds.opening import open_round
from oatflow.components.sampling.engine import Decoding, Request
from oatflow.components.sampling.settings import SamplingSettings
from oatflow.components.sampling.warm_engine import WARM_ENGINE, connect_engine, start_warm_engine
from oatflow.pipelines.cli import main
from oatflow.pipelines.data.export import with_dtype
from oatflow.pipelines.data.model_card import hide_host, list_chosen, list_explored, public_name

ORACLE = "simulated/vader-3.3.2/T=0.1"
JUDGED = {"win_rate": 0.75, "low": 0.5, "high": 1.0, "mean_probability": 0.7, "oracle": ORACLE}


def write_experiment(folder, name, policies, pretrain, offline=False, **policy):
    """Write an experiment whose rounds left these folders; the first was evaluated, and the others were not."""
    prompts = folder / "private-prompts.jsonl"
    rows = [{"prompt": f"one {word}", "better": "good", "worse": "bad"} for word in "soup warm cold two".split()]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"chosen_key": "better", "rejected_key": "worse"} if offline else {}
    settings = ExperimentSettings.parse({
        "prompts": {"prompt_data": str(prompts), "eval_data": str(prompts), "rollout_batch_size": 4, **columns},
        "labeling": {"max_queries": 12},
        "policy": {"pretrain": str(pretrain), "beta": 0.25, **policy},
    }).model_dump(mode="json")  # fmt: skip
    uri = f"file://{folder}/ledger/{name}"
    for round_, folders in enumerate(policies):
        assert open_round(uri, settings, "run") == round_
        ledger = Ledger.open(uri)
        with ledger.open_step(round_, "sampling", "run") as step:
            step.mark_done({"duels": 4}, {})
        with ledger.open_step(round_, "labeling", "run") as step:
            labels = {"queries": 0, "labels": 4} if offline else {"queries": 4 - round_}
            step.mark_done(labels, {}, {} if offline else {"oracle": ORACLE})
        with ledger.open_step(round_, "policy", "run") as step:
            for kind, path in folders.items():
                step.upload_folder(kind, path)
            step.mark_done({"pairs": 4, "held_out_pairs": 4}, {}, {"held_out_accuracy": 0.75} if offline else {})
        with ledger.open_step(round_, "evaluation", "run") as step:
            step.mark_done({"prompts": 4 if round_ == 0 else 0}, {}, JUDGED if round_ == 0 else {})
        close_round(uri, round_, "run")
    return uri


@pytest.fixture(scope="module")
def starting_model(make_model, tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "tiny-chat", 0, "float32")


@pytest.fixture(scope="module")
def policy(make_model, tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("policy"), 1, "float32")


@pytest.fixture(scope="module")
def in_shards(make_model, tmp_path_factory):
    from transformers import AutoModelForCausalLM

    folder = make_model(tmp_path_factory.mktemp("shards"), 2, "float32")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    return folder


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, starting_model, policy, in_shards):
    """Two finished rounds of an experiment that trains all weights: (folder of the store, URI of the experiment)."""
    folder = tmp_path_factory.mktemp("experiment")
    return folder, write_experiment(folder, "mine", [{"model": policy}, {"model": in_shards}], starting_model)


@pytest.fixture(scope="module")
def with_adapter(tmp_path_factory, starting_model):
    """One finished round of an experiment that trains an adapter."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("with-adapter")
    torch.manual_seed(0)
    targets = ["q_proj", "down_proj"]
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(starting_model), config)
    model.save_pretrained(folder / "adapter")
    model.merge_and_unload().save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(starting_model).save_pretrained(folder / "model")
    left = {"model": folder / "model", "adapter": folder / "adapter"}
    list_chosen = {"lora_rank": 4, "lora_targets": ",".join(targets)}
    return folder, write_experiment(folder, "lora", [left], starting_model, **list_chosen)


@pytest.fixture
def export(capsys):
    """Run `oatflow export`: returns its exit code, what it said and what it complained of."""

    def run(experiment, *flags):
        folder, uri = experiment
        with pytest.raises(SystemExit) as stop:
            main(["export", uri.rpartition("/")[2], "--ledger", f"file://{folder}/ledger", *map(str, flags)])
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    return run


def load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def facts_of(folder):
    """The tables of a card as one mapping."""
    lines = [line.strip("| ").split(" | ") for line in (folder / "README.md").read_text().splitlines() if "| " in line]
    return {line[0]: line[1] for line in lines if len(line) == 2}


def test_the_policy_is_an_ordinary_model_in_the_format_that_engines_serve_and_that_is_said(
    export, experiment, policy, tmp_path
):
    code, out, complaint = export(experiment, "--round", 0, "--out", tmp_path / "served")
    assert code == 0, complaint
    assert out.splitlines() == [
        "policy of round 0, converted from float32 to bfloat16 (--dtype float32 leaves it as it was trained)",
        str(tmp_path / "served"),
    ]
    check_model_folder(tmp_path / "served")
    assert json.loads((tmp_path / "served" / "config.json").read_text())["dtype"] == "bfloat16"
    trained = load(policy).state_dict()
    for name, weight in load(tmp_path / "served").state_dict().items():
        assert str(weight.dtype) == "torch.bfloat16" and weight.equal(trained[name].bfloat16()), name


def test_in_float32_every_file_is_the_ledgers(export, experiment, tmp_path):
    ledger = Ledger.open(experiment[1])
    for round_ in (0, 1):
        out = tmp_path / str(round_)
        assert export(experiment, "--round", round_, "--out", out, "--dtype", "float32")[0] == 0
        assert model_digest(out) == ledger.policy_digest(round_)


def test_the_last_round_is_the_default_and_its_shards_stay_shards(export, experiment, in_shards, tmp_path):
    code, out, _ = export(experiment, "--home", tmp_path / "home", "--dtype", "float16")
    folder = tmp_path / "home" / "exports" / "mine-round-1"
    assert code == 0 and out.splitlines()[-1] == str(folder)
    index, before = (json.loads((each / "model.safetensors.index.json").read_text()) for each in (folder, in_shards))
    assert index["weight_map"] == before["weight_map"] and len(set(index["weight_map"].values())) > 1
    assert index["metadata"]["total_size"] * 2 == before["metadata"]["total_size"]
    trained = load(in_shards).state_dict()
    for name, weight in load(folder).state_dict().items():
        assert weight.equal(trained[name].half()), name


def test_the_tokenizer_and_its_chat_template_come_along(export, experiment, policy, tmp_path):
    from transformers import AutoTokenizer

    assert export(experiment, "--round", 0, "--out", tmp_path / "out")[0] == 0
    turn = [{"role": "user", "content": "the soup was cold"}]
    exported, trained = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "out", policy))
    assert exported.apply_chat_template(turn) == trained.apply_chat_template(turn)


def test_an_adapter_alone_makes_of_the_starting_model_what_the_merged_policy_is(
    export, with_adapter, starting_model, tmp_path
):
    import torch
    from peft import PeftModel

    for flags in (["--adapter", "--out", tmp_path / "adapter"], ["--out", tmp_path / "merged"]):
        assert export(with_adapter, *flags, "--dtype", "float32")[0] == 0
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    tokens = torch.tensor([[4, 5, 6, 7, 8]])
    start = load(starting_model)(tokens).logits
    merged = load(tmp_path / "merged")(tokens).logits
    adapted = PeftModel.from_pretrained(load(starting_model), tmp_path / "adapter")(tokens).logits
    assert torch.allclose(adapted, merged, atol=1e-4) and not torch.allclose(start, merged, atol=1e-1)


def test_an_adapter_names_its_model_and_not_where_that_lay(export, with_adapter, starting_model, tmp_path):
    assert export(with_adapter, "--adapter", "--out", tmp_path / "adapter")[0] == 0
    configuration = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert configuration["base_model_name_or_path"] == "tiny-chat"
    for path in (tmp_path / "adapter").iterdir():
        assert str(starting_model).encode() not in path.read_bytes(), path.name


def test_an_experiment_without_lora_has_no_adapter(export, experiment, tmp_path):
    code, _, complaint = export(experiment, "--adapter", "--out", tmp_path / "out")
    assert code == 2 and "policy.lora_rank=0" in complaint and not (tmp_path / "out").exists()


@pytest.mark.parametrize("round_", [2, 7, -1])
def test_a_round_that_is_not_finished_is_refused_with_those_that_are(export, experiment, tmp_path, round_):
    code, _, complaint = export(experiment, "--round", round_, "--out", tmp_path / "out")
    assert code == 2 and complaint == f"oatflow: round={round_}: not finished; rounds 0 to 1 are\n"


def test_before_the_first_round_is_finished_there_is_nothing_to_export(export, starting_model, tmp_path):
    uri = write_experiment(tmp_path, "young", [], starting_model)
    settings = ExperimentSettings.parse({
        "prompts": {"prompt_data": str(tmp_path / "private-prompts.jsonl"),
                    "eval_data": str(tmp_path / "private-prompts.jsonl")},
        "policy": {"pretrain": str(starting_model)},
    })  # fmt: skip
    open_round(uri, settings.model_dump(mode="json"), "run")
    code, _, complaint = export((tmp_path, uri), "--out", tmp_path / "out")
    assert code == 2 and "no round of this experiment is finished yet" in complaint


@pytest.mark.slow
def test_a_scripted_policy_is_no_model(export, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--rollout-batch-size", "4", "--max-queries", "4", "--max-eval", "4"]
    with pytest.raises(SystemExit) as stop:
        main(["align", "--preset", "scripted", "--ledger", f"file://{tmp_path}/ledger", *flags])
    assert stop.value.code == 0
    code, _, complaint = export((tmp_path, "file:///ledger/demo"), "--out", tmp_path / "out")
    assert code == 2 and "policy.trainer='scripted': no model was trained" in complaint


def test_an_unknown_experiment_is_named(export, experiment, tmp_path):
    code, _, complaint = export((experiment[0], "file:///mien"), "--out", tmp_path / "out")
    assert code == 2 and "experiment='mien': there is none" in complaint


def test_a_folder_with_files_is_refused_and_left_alone(export, experiment, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, complaint = export(experiment, "--out", tmp_path)
    assert code == 2 and f"out={str(tmp_path)!r}: there are files in that folder" in complaint
    code, _, complaint = export(experiment, "--out", tmp_path / "notes.txt")
    assert code == 2 and "that is a file" in complaint
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_taken(export, experiment, tmp_path):
    (tmp_path / "out").mkdir()
    assert export(experiment, "--out", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_place_that_cannot_be_written_is_named(export, experiment, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, complaint = export(experiment, "--out", tmp_path / "file" / "out")
    assert code == 2 and "cannot be written" in complaint


@pytest.mark.parametrize("harm", ["damaged", "lost"])
def test_a_shard_that_is_not_what_was_written_is_named_and_no_folder_appears(
    export, starting_model, in_shards, tmp_path, harm
):
    uri = write_experiment(tmp_path, "harmed", [{"model": in_shards}], starting_model)
    shard = next((tmp_path / "ledger").rglob("model-00002-*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1])) if harm == "damaged" else shard.unlink()
    code, _, complaint = export((tmp_path, uri), "--out", tmp_path / "exports" / "out")
    assert code == 1 and shard.name in complaint
    assert list((tmp_path / "exports").iterdir()) == []


def test_a_number_that_a_format_does_not_hold_is_refused(export, starting_model, make_model, tmp_path):
    model = load(make_model(tmp_path / "model", 3, "float32"))
    model.lm_head.weight.data[0, 0] = 1e5
    model.save_pretrained(tmp_path / "model")
    uri = write_experiment(tmp_path, "large", [{"model": tmp_path / "model"}], starting_model)
    code, _, complaint = export((tmp_path, uri), "--dtype", "float16", "--out", tmp_path / "out")
    assert code == 2 and "lm_head.weight has a number as large as 1e+05" in complaint
    assert export((tmp_path, uri), "--dtype", "bfloat16", "--out", tmp_path / "out")[0] == 0


def test_a_configuration_within_another_says_its_format_too():
    before = {"torch_dtype": "float32", "text_config": {"dtype": "float32", "rope": {"theta": 1.0}}, "layers": 2}
    after = {"dtype": "float16", "text_config": {"dtype": "float16", "rope": {"theta": 1.0}}, "layers": 2}
    assert with_dtype(before, "float16") == after


def test_the_card_says_what_was_measured_with_its_interval_and_against_whom(export, experiment, tmp_path):
    assert export(experiment, "--round", 0, "--out", tmp_path / "out")[0] == 0
    facts = facts_of(tmp_path / "out")
    assert facts["Win rate"] == (
        f"75%, 95% interval [50, 100], on 4 held-out prompts against the starting model, judged by {ORACLE}"
    )
    assert facts["Learned from"] == "4 queries, those of evaluation not counted" and facts["Oracle"] == ORACLE
    assert facts["Prompts"] == "private-prompts.jsonl: 4 to learn from, 4 held out; one turn of the chat template"
    assert facts["Weights"] == "bfloat16, converted from float32"
    assert facts["Loss"].startswith("dap_algo=dpo, beta=0.25, ") and "gamma_beta_ratio" not in facts["Loss"]
    assert "oatflow" in facts and "transformers" in facts


def test_the_card_of_a_round_that_was_not_measured_says_so_and_counts_all_queries(export, experiment, tmp_path):
    assert export(experiment, "--round", 1, "--out", tmp_path / "out", "--dtype", "float32")[0] == 0
    facts = facts_of(tmp_path / "out")
    assert facts["Win rate"] == "not measured in this round"
    assert facts["Learned from"].startswith("7 queries") and facts["Weights"] == "float32"


def test_the_card_of_an_offline_policy_names_the_preference_set_and_no_oracle(export, starting_model, policy, tmp_path):
    uri = write_experiment(tmp_path, "offline", [{"model": policy}], starting_model, offline=True)
    assert export((tmp_path, uri), "--out", tmp_path / "out")[0] == 0
    facts = facts_of(tmp_path / "out")
    assert facts["Oracle"] == "none: the preferences came with the prompts"
    assert facts["Learned from"] == "4 preferences" and "Candidates" not in facts
    assert facts["Held-out accuracy"] == "75%, 95% interval [30, 95], on 4 preferences"


def test_the_card_names_strategy_reward_model_and_the_share_of_synthetic_pairs(experiment):
    rows = read_rounds(Ledger.open(experiment[1]))
    rows = [replace(row, explored=Explored(synthetic=number)) for number, row in enumerate(rows)]
    settings = ExperimentSettings.parse({
        "exploration": {"exp_method": "EnnBAITS", "model_rollout": True}, "sampling": {"num_samples": 6},
        "reward_model": {"rm_backbone": "/secret/folder/PairRM-hf", "num_ensemble": 10},
        "prompts": {"prompt_data": "some/prompts"}, "labeling": {"max_queries": 12},
    })  # fmt: skip
    assert list_explored(settings, rows) == [
        ("Duels picked by", "EnnBAITS"),
        ("Reward model", "10 members on features of PairRM-hf; not part of this folder"),
        ("Synthetic pairs", "1 of 8 pairs (12%), labelled by members of the reward model"),
    ]
    told = dict(list_chosen(settings))
    assert told["Exploration"].startswith("objective=best_arm, exp_method=EnnBAITS, on_clash=redraw, max_model_data")
    assert told["Ensemble"].startswith("num_ensemble=10, ") and "secret" not in str(told)


def test_the_card_of_a_blind_experiment_names_no_strategy_and_no_reward_model(export, experiment, tmp_path):
    assert export(experiment, "--round", 0, "--out", tmp_path / "out")[0] == 0
    facts = facts_of(tmp_path / "out")
    assert not {"Duels picked by", "Reward model", "Synthetic pairs", "Ensemble"} & facts.keys()
    assert facts["Exploration"] == "objective=best_arm, exp_method=passive, on_clash=redraw"


def test_the_cards_digests_are_the_ledgers(export, experiment, tmp_path):
    assert export(experiment, "--round", 1, "--out", tmp_path / "out")[0] == 0
    ledger, facts = Ledger.open(experiment[1]), facts_of(tmp_path / "out")
    assert facts["Policy"] == ledger.policy_digest(1)
    assert facts["Starting model"] == ledger.experiment.starting_model
    assert facts["Round record"] == ledger.read_head().digest


def test_the_card_names_no_folder_no_store_and_no_key(export, experiment, starting_model, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-words")
    assert export(experiment, "--out", tmp_path / "out")[0] == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for secret in (experiment[0], starting_model.parent, "file:", "hidden-words", os.uname().nodename):
        assert str(secret) not in card


@pytest.mark.parametrize(
    "flags, library, relation", [([], "transformers", "finetune"), (["--adapter"], "peft", "adapter")]
)
def test_the_cards_front_matter_is_what_the_hub_reads(export, with_adapter, tmp_path, flags, library, relation):
    from huggingface_hub import ModelCard

    assert export(with_adapter, *flags, "--out", tmp_path / "out")[0] == 0
    read = ModelCard.load(tmp_path / "out" / "README.md").data
    assert (read.library_name, read.pipeline_tag, read.base_model) == (library, "text-generation", "tiny-chat")
    assert read.base_model_relation == relation and {"oatflow", "dpo", "lora"} <= set(read.tags)


def test_a_starting_model_whose_name_is_none_for_the_hub_is_left_out_of_the_front_matter(
    export, make_model, policy, tmp_path
):
    odd = make_model(tmp_path / "my model: a, b", 0, "float32")
    uri = write_experiment(tmp_path, "odd", [{"model": policy}], odd)
    assert export((tmp_path, uri), "--out", tmp_path / "out")[0] == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model" not in yaml.safe_load(card.split("---")[1])
    assert "my model: a, b" in card


@pytest.mark.parametrize(
    "name, shown",
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("gpt2", "gpt2"),
        ("oatflow:SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct"),
        ("/home/me/models/mine/", "mine"),
        ("~/models/mine", "mine"),
        ("./mine", "mine"),
        ("s3://team-bucket/models/mine?endpoint=https://inside.example", "mine"),
        ("data/prompts.jsonl", "prompts.jsonl"),
        ("main@org/prompts", "main@org/prompts"),
    ],
)
def test_a_name_is_shown_without_the_place(name, shown):
    assert public_name(name) == shown


@pytest.mark.parametrize(
    "identity, shown",
    [
        ("judge/gpt-5@llm.inside.example/0a1b/both/logprobs", "judge/gpt-5/0a1b/both/logprobs"),
        ("judge/org/model@v2@10.0.0.7:8443/0a1b/random/text", "judge/org/model@v2/0a1b/random/text"),
        ("remote/oat/scores.inside.example", "remote/oat"),
        ("remote/reward_model/Skywork@0123456789ab/T=1", "remote/reward_model/Skywork@0123456789ab/T=1"),
        ("simulated/rewards:warmth@0123/T=0.1", "simulated/rewards:warmth@0123/T=0.1"),
    ],
)
def test_an_oracle_is_shown_without_its_host(identity, shown):
    assert hide_host(identity) == shown


@pytest.mark.slow
def test_vllm_answers_with_the_exported_policy_as_with_the_ledgers(export, experiment, policy, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert export(experiment, "--round", 0, "--out", tmp_path / "served")[0] == 0
    settings = SamplingSettings(dtype="bfloat16", max_model_len=512, cpu_kv_cache_gib=0.001)
    requests = [Request((2, *words, 3), (number,)) for number, words in enumerate(product(range(4, 20), repeat=2))]
    warm = start_warm_engine(settings, tmp_path / "served", "exported", tmp_path / "logs")
    try:
        monkeypatch.setenv(WARM_ENGINE, warm.environment()[WARM_ENGINE])
        engine = connect_engine(settings)
        exported = engine.generate(requests, Decoding(0.0, 1.0, 24))
        engine.load_policy(policy, "in the ledger")
        assert engine.generate(requests, Decoding(0.0, 1.0, 24)) == exported
    finally:
        warm.stop()
    assert len({draw.text for (draw,) in exported}) > 20
