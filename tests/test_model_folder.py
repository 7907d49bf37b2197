"""Where a starting model may come from, and what it may be."""

import json
import sys
from pathlib import Path

import pytest
from oatflow.components.errors import ModelError, SettingsError
from oatflow.components.model_folder import check_lora_targets, check_model_folder, model_digest, resolve_pretrain
from oatflow.components.prompts.template import load_tokenizer
from oatflow.components.records.sealed import digest_of, seal_document
from oatflow.components.store.store import open_store
from oatflow.components.store.transfer import sha256_file, upload_folder

CODE = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}


@pytest.fixture
def model(make_model, tmp_path) -> Path:
    return make_model(tmp_path / "model", 0, "float32")


def amend(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def bring_code(folder):
    amend(folder / "config.json", auto_map=CODE)
    for reference in CODE.values():
        (folder / f"{reference.partition('.')[0]}.py").write_text("print('code')\n")


def pickle_weights(folder, shards=1):
    """Leave the weights as pickles only, in several files if need be."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(weights, folder / "pytorch_model.bin")
        return
    files = [f"pytorch_model-{number:05d}-of-{shards:05d}.bin" for number in range(1, shards + 1)]
    where = {name: files[number % shards] for number, name in enumerate(weights)}
    for file in files:
        torch.save({name: weight for name, weight in weights.items() if where[name] == file}, folder / file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_that_brings_code_is_refused_unless_that_is_allowed_by_name(model, file):
    amend(model / file, auto_map={"AutoTokenizer": ["own.Slow", None]})
    (model / "own.py").write_text("")
    with pytest.raises(ModelError, match=rf"auto_map in {file}.*allow it with policy.trust_remote_code=true"):
        check_model_folder(model)
    with pytest.raises(ModelError, match="trust_remote_code"):
        check_model_folder(model, allow_pickled_weights=True)
    check_model_folder(model, trust_remote_code=True)


def test_code_that_is_missing_is_named(model):
    bring_code(model)
    (model / "modeling_own.py").unlink()
    with pytest.raises(ModelError, match=r"its code is missing: modeling_own.py; copy the whole folder"):
        check_model_folder(model, trust_remote_code=True)


def test_code_of_another_repository_is_refused_since_no_digest_covers_it(model):
    amend(model / "config.json", auto_map={"AutoConfig": "someone/else--configuration_own.OwnConfig"})
    with pytest.raises(ModelError, match=r"lies in another place \(someone/else--configuration_own.OwnConfig\)"):
        check_model_folder(model, trust_remote_code=True)


def test_pickled_weights_are_refused_unless_they_are_allowed_by_name(model):
    pickle_weights(model)
    with pytest.raises(
        ModelError, match=r"only pytorch_model.bin, which can run code.*policy.allow_pickled_weights=true"
    ):
        check_model_folder(model, trust_remote_code=True)
    check_model_folder(model, allow_pickled_weights=True)


def test_pickles_of_another_kind_are_of_no_use_even_where_pickles_are_allowed(model):
    pickle_weights(model)
    (model / "pytorch_model.bin").rename(model / "consolidated.00.pth")
    with pytest.raises(ModelError, match=r"only consolidated.00.pth.*save the model with safe_serialization$"):
        check_model_folder(model, allow_pickled_weights=True)


def test_a_missing_shard_is_named(model):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    with pytest.raises(ModelError, match=r"weights are missing: model-00002-of-00002.safetensors;"):
        check_model_folder(model)
    (model / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"missing: model-00001-of-00002.safetensors, model-00002-of-00002.safetens"):
        check_model_folder(model)


def test_a_missing_shard_of_pickles_is_named(model):
    pickle_weights(model, shards=3)
    check_model_folder(model, allow_pickled_weights=True)
    (model / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(ModelError, match=r"weights are missing: pytorch_model-00002-of-00003.bin; copy the whole"):
        check_model_folder(model, allow_pickled_weights=True)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_file_that_was_cut_off_is_named(model, file):
    (model / file).write_text('{"model_type": "lla')
    with pytest.raises(ModelError, match=rf"{file} cannot be read .*; copy the whole folder"):
        check_model_folder(model)


def test_the_digest_of_an_ordinary_model_is_that_of_its_weights_tokenizer_and_configuration(model):
    """Experiments have it on record: it must not change."""
    for name in ("README.md", "training_args.bin", "convert.py", "pytorch_model.bin"):
        (model / name).write_text("of no use")
    (model / "merges.txt").write_text("a b\n")
    counted = ("chat_template.jinja", "config.json", "generation_config.json", "merges.txt", "model.safetensors",
               "tokenizer.json", "tokenizer_config.json")  # fmt: skip
    assert model_digest(model) == digest_of(seal_document({name: sha256_file(model / name) for name in counted}))


def test_code_that_is_run_and_pickles_that_are_loaded_count_for_the_digest(model):
    bring_code(model)
    pickle_weights(model)
    digests = [model_digest(model)]
    for name in ("modeling_own.py", "pytorch_model.bin"):
        (model / name).write_bytes((model / name).read_bytes() + b"\n")
        digests.append(model_digest(model))
    assert len(set(digests)) == 3


@pytest.mark.parametrize("targets", ["all-linear", "q_proj", "q_proj, down_proj", "self_attn.q_proj", "lm_head",
                                     "model.layers.0.mlp.up_proj"])  # fmt: skip
def test_layers_that_the_model_has_can_get_an_adapter(model, targets):
    check_lora_targets(model, targets)


def test_a_layer_that_the_model_lacks_is_named_with_those_it_has(model):
    with pytest.raises(SettingsError) as refused:
        check_lora_targets(model, "q_proj,query,proj,qproj")
    assert str(refused.value) == (
        "policy.lora_targets='q_proj,query,proj,qproj': the model has no layer query, proj, qproj; it has down_proj, "
        "embed_tokens, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"
    )


def test_layers_are_looked_up_in_every_shard(model):
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(model)
    (model / "model.safetensors").unlink()
    whole.save_pretrained(model, max_shard_size="100KB")
    check_lora_targets(model, "embed_tokens,model.layers.1.mlp.down_proj,lm_head")


def test_layers_are_known_without_torch(model):
    import subprocess

    program = f"""
import sys
from pathlib import Path
from oatflow.components.model_folder import check_lora_targets
check_lora_targets(Path({str(model)!r}), "q_proj")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_weights_that_were_cut_off_are_named(model):
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ModelError, match=r"model.safetensors is no whole safetensors file .*; copy it again"):
        check_lora_targets(model, "q_proj")


def test_the_layers_of_pickles_are_left_to_the_training_program(model):
    pickle_weights(model)
    check_lora_targets(model, "no_such_layer")


def test_a_tokenizer_with_code_of_its_own_is_loaded_where_that_is_allowed(model, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    amend(model / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "own.OwnTokenizer"]},
          tokenizer_class="OwnTokenizer")  # fmt: skip
    (model / "own.py").write_text(
        "from transformers import PreTrainedTokenizerFast\n\n\nclass OwnTokenizer(PreTrainedTokenizerFast):\n"
        "    own = 'code that ran'\n"
    )
    assert load_tokenizer(model, trust_remote_code=True).own == "code that ran"
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_tokenizer(model)


@pytest.fixture
def stored(s3_store_uri, model, tmp_path, monkeypatch):
    """A model in a store, fetched to a place of this test's own: the model here, and its address there."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    uri = s3_store_uri("model")

    def put():
        upload_folder(open_store(uri), model, "")
        return uri

    return put


@pytest.mark.slow
def test_a_model_in_a_store_is_fetched_once_and_is_the_same_model(stored, model):
    uri = stored()
    found = resolve_pretrain(uri)
    check_model_folder(found)
    assert model_digest(found) == model_digest(model)
    weights = found / "model.safetensors"
    before = weights.stat().st_mtime_ns
    weights.with_name("config.json").write_text("cut off")
    assert resolve_pretrain(uri) == found
    assert weights.stat().st_mtime_ns == before, "what is whole is not fetched again"
    assert model_digest(found) == model_digest(model), "what is not whole is"


@pytest.mark.slow
def test_code_and_pickles_are_fetched_where_they_are_allowed_and_nowhere_else(stored, model):
    bring_code(model)
    pickle_weights(model, shards=2)
    (model / "training_args.bin").write_text("no weights")
    uri = stored()
    code, pickles = {"*.py"}, {"*.bin"}

    def fetched(**allowed):
        folder = resolve_pretrain(uri, **allowed)
        return {f"*{path.suffix}" for path in folder.iterdir()} & (code | pickles)

    assert fetched() == set()
    assert fetched(trust_remote_code=True) == code
    assert fetched(trust_remote_code=True, allow_pickled_weights=True) == code | pickles
    found = resolve_pretrain(uri, trust_remote_code=True, allow_pickled_weights=True)
    check_model_folder(found, trust_remote_code=True, allow_pickled_weights=True)
    assert model_digest(found) == model_digest(model) and not (found / "training_args.bin").exists()


@pytest.mark.slow
def test_what_is_fetched_lies_where_no_other_user_writes(stored):
    shared = resolve_pretrain(stored()).parent
    assert shared.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_place_in_a_store_without_a_model_is_refused(s3_store_uri):
    with pytest.raises(ModelError, match="no model lies there"):
        resolve_pretrain(s3_store_uri("nothing"))
