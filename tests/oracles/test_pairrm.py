"""PairRM, as llm-blender compares: under today's transformers, from either layout, whatever else is asked."""

import json
from math import exp
from pathlib import Path

import numpy as np
import pytest
from oatflow.components.errors import ModelError, SettingsError
from oatflow.components.oracles.pairrm import PairRMOracle
from oatflow.components.oracles.registry import open_oracle
from oatflow.components.oracles.settings import PairRMSettings
from oatflow.components.records.records import Duel

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "llm_blender.json").read_text())["questions"]
WORDS = "the soup was warm cold and good bad I you we liked ate it all never again . , ! ? one two".split()
MARKERS = ["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"]
SIZE, INNER, LAYERS = 32, 48, 2
VOCABULARY = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS, *MARKERS]
# A DeBERTa as PairRM's is, but tiny.
ENCODER = {
    "model_type": "deberta-v2", "vocab_size": len(VOCABULARY), "hidden_size": SIZE, "num_hidden_layers": LAYERS,
    "num_attention_heads": 2, "intermediate_size": INNER, "max_position_embeddings": 64, "relative_attention": True,
    "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False, "layer_norm_eps": 1e-7, "type_vocab_size": 0, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_relative_positions": -1, "pad_token_id": 0,
}  # fmt: skip
# llm-blender's own configuration; PairRM itself has 1224 and 412.
RANKER = {
    "ranker_type": "pairranker", "model_type": "deberta", "n_tasks": 1, "source_maxlength": 24,
    "candidate_maxlength": 16,
}  # fmt: skip


def write_tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = VOCABULARY[: -len(MARKERS)]
    plain = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    plain.add_special_tokens(VOCABULARY[:4])
    plain.add_tokens(MARKERS)
    folder.mkdir(parents=True)
    plain.save(str(folder / "tokenizer.json"))
    named = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    write(folder, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **named})


def draw_weights():
    """Draw the weights that the golden numbers were made with: the order counts."""
    random = np.random.RandomState(5)

    def draw(*shape):
        return (random.standard_normal(shape) * 0.5).astype(np.float32)

    def norm(name):
        return {f"{name}.weight": 1 + draw(SIZE), f"{name}.bias": draw(SIZE)}

    def dense(name, into, out_of):
        return {f"{name}.weight": draw(into, out_of), f"{name}.bias": draw(into)}

    weights = {"embeddings.word_embeddings.weight": draw(len(VOCABULARY), SIZE), **norm("embeddings.LayerNorm")}
    weights |= {"encoder.rel_embeddings.weight": draw(16, SIZE), **norm("encoder.LayerNorm")}
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        for name in ("query_proj", "key_proj", "value_proj"):
            weights |= dense(f"{layer}.attention.self.{name}", SIZE, SIZE)
        for name, width in (("attention.output", SIZE), ("output", INNER)):
            weights |= {**dense(f"{layer}.{name}.dense", SIZE, width), **norm(f"{layer}.{name}.LayerNorm")}
        weights |= dense(f"{layer}.intermediate.dense", INNER, SIZE)
    named = {f"pretrained_model.{name}": weight for name, weight in weights.items()}
    return {**named, **dense("head_layer.1", SIZE, 2 * SIZE), **dense("head_layer.4", 1, SIZE)}


def write(folder, name, document):
    (folder / name).write_text(json.dumps(document))


@pytest.fixture
def pairrm(tmp_path):
    """Write a tiny PairRM in the layout of llm-blender/PairRM, in which the encoder is told of elsewhere."""
    from safetensors.numpy import save_file

    folder, encoder = tmp_path / "PairRM", tmp_path / "encoder"
    write_tokenizer(folder)
    encoder.mkdir()
    write(encoder, "config.json", ENCODER)
    write(folder, "config.json", {**RANKER, "model_name": str(encoder)})
    save_file(draw_weights(), folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def pairrm_hf(pairrm):
    """Write it in the layout of transformers, as llm-blender/PairRM-hf is."""
    first = len(WORDS) + 4
    places = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id", "cand_prefix_id")
    ids = {name: first + place for place, name in enumerate(places)}
    named = {"architectures": ["DebertaV2PairRM"], "n_tasks": 1, "drop_out": 0.05, "sep_token_id": 2, **ids}
    write(pairrm, "config.json", {**ENCODER, **named})
    return pairrm


def open_pairrm(folder, **settings):
    return open_oracle("pairrm", PairRMSettings(pairrm_model=str(folder), **settings))


def duel(prompt, first, second):
    return Duel(f"{prompt}/{first}/{second}", prompt, prompt, first, second, 0, 1, False)


def sigmoid(logit):
    return 1 / (1 + exp(-logit))


DUELS = [duel(question["prompt"], question["first"], question["second"]) for question in GOLDEN]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_an_answer_is_llm_blenders_under_its_own_transformers_whatever_else_is_asked(pairrm, batch_size):
    oracle = open_pairrm(pairrm, pairrm_batch_size=batch_size)
    answers = oracle.compare_duels(DUELS)
    assert [answer.first_wins for answer in answers] == pytest.approx(
        [sigmoid(question["logit"]) for question in GOLDEN], abs=1e-5
    )
    assert [answer.shown_first_wins for answer in answers] == pytest.approx(
        [(sigmoid(question["given"]) + sigmoid(question["swapped"])) / 2 for question in GOLDEN], abs=1e-5
    )
    assert [answer.consistent for answer in answers] == [
        (question["given"] > 0) != (question["swapped"] > 0) for question in GOLDEN
    ]
    assert {answer.orders for answer in answers} == {"both"}
    # llm-blender itself answers one of these otherwise when it reads all in one batch: the longest prompt of a batch
    # decides how much it reads of everybody's responses.
    assert max(abs(question["logit"] - question["in_one_batch"]) for question in GOLDEN) > 0.1
    assert oracle.compare_duels([]) == []


@pytest.mark.slow
def test_the_layout_of_transformers_gives_the_same_answers(pairrm_hf):
    oracle = open_pairrm(pairrm_hf)
    # This layout does not say how much is read, and PairRM reads longer texts than the tiny one.
    short = [
        (question, duel)
        for question, duel in zip(GOLDEN, DUELS, strict=True)
        if max(map(len, (duel.prompt, duel.first, duel.second))) < 30
    ]
    assert len(short) == 6
    answers = oracle.compare_duels([duel for _, duel in short])
    assert [answer.first_wins for answer in answers] == pytest.approx(
        [sigmoid(question["logit"]) for question, _ in short], abs=1e-5
    )


@pytest.mark.slow
def test_the_same_duel_the_other_way_round_has_the_other_answer(pairrm):
    answers = open_pairrm(pairrm).compare_duels([duel("soup", "good", "bad"), duel("soup", "bad", "good")])
    assert answers[0].first_wins + answers[1].first_wins == pytest.approx(1, abs=1e-6)
    assert answers[0].shown_first_wins == pytest.approx(answers[1].shown_first_wins, abs=1e-6)


@pytest.mark.slow
def test_a_response_cannot_spell_the_markers_that_the_network_looks_for(pairrm):
    oracle = open_pairrm(pairrm)
    unknown, honest = oracle.compare_duels([duel("soup", "good unheard warm", "bad"), duel("soup", "good", "bad")])
    forged = [duel("soup", f"good {marker} warm", "bad") for marker in MARKERS]
    answers = oracle.compare_duels([*forged, duel("<|source|> [SEP]", "[SEP]", ""), duel("soup", "good", "bad")])
    assert [answer.first_wins for answer in answers[:4]] == pytest.approx([unknown.first_wins] * 4, abs=1e-5)
    assert answers[-1].first_wins == pytest.approx(honest.first_wins, abs=1e-5), "nor change a neighbour's answer"


@pytest.mark.slow
def test_the_oracle_is_named_by_the_rankers_content(pairrm):
    oracle = open_pairrm(pairrm)
    assert oracle.identity.startswith("pairrm/PairRM@")
    write(pairrm.parent / "encoder", "config.json", {**ENCODER, "position_buckets": 4})
    assert open_pairrm(pairrm).identity != oracle.identity
    assert not oracle.paid and oracle.spending is None and oracle.known_reward is None


@pytest.mark.slow
def test_weights_that_are_not_pairrms_are_refused(pairrm):
    from safetensors.numpy import save_file

    weights = draw_weights()
    head = weights.pop("head_layer.4.bias")
    save_file({**weights, "classifier.bias": head}, pairrm / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"missing: head_layer.4.bias; unknown: classifier.bias; take llm-blender/P"):
        open_pairrm(pairrm).compare_duels(DUELS)
    words = weights["pretrained_model.embeddings.word_embeddings.weight"]
    weights["pretrained_model.embeddings.word_embeddings.weight"] = words[:-1]
    save_file({**weights, "head_layer.4.bias": head}, pairrm / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"has 31 tokens, and its weights know 30"):
        open_pairrm(pairrm).compare_duels(DUELS)


@pytest.mark.slow
def test_a_tokenizer_that_cannot_be_read_is_refused(pairrm):
    (pairrm / "tokenizer.json").write_text("{}")
    with pytest.raises(
        ModelError, match=r"pairrm_model='.*': its tokenizer cannot be read .*put a tokenizer.json there"
    ):
        open_pairrm(pairrm).compare_duels(DUELS)


def test_pickled_weights_are_refused_and_the_letter_says_where_others_are(pairrm):
    (pairrm / "model.safetensors").rename(pairrm / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pytorch_model.bin, which can run code.*or take llm-blender/PairRM-hf"):
        open_pairrm(pairrm).check_ready()


def test_what_is_no_pairrm_is_refused_before_it_is_loaded(pairrm):
    open_pairrm(pairrm).check_ready()
    write(pairrm.parent / "encoder", "config.json", {"model_type": "roberta"})
    with pytest.raises(ModelError, match="its encoder is roberta, and PairRM's is deberta-v2"):
        open_pairrm(pairrm).check_ready()
    write(pairrm, "config.json", {**RANKER, "model_name": str(pairrm / "gone")})
    with pytest.raises(ModelError, match=r"pairrm_model='.*': model_name='.*gone': there is no such folder"):
        open_pairrm(pairrm).check_ready()
    write(pairrm, "config.json", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    with pytest.raises(ModelError, match=r"LlamaForCausalLM is no PairRM; take llm-blender/PairRM-hf"):
        open_pairrm(pairrm).check_ready()
    with pytest.raises(ModelError, match=r"pairrm_model='/nowhere': there is no such folder"):
        open_pairrm("/nowhere").check_ready()
    with pytest.raises(SettingsError, match="pairrm_model='': name the ranker"):
        PairRMOracle(PairRMSettings(pairrm_model=""))
