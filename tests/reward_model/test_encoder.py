"""What the reward model sees of a text: Oat's features at PairRM's markers, and ours of every other model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from oatflow.components.errors import ModelError
from oatflow.components.reward_model.encoder import open_encoder
from oatflow.components.reward_model.featurisation import (
    Tokens,
    extract_features,
    group_by_length,
    pad_batch,
    pairrm_tokens,
)
from oatflow.components.reward_model.settings import RewardModelSettings

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_exploration.json").read_text())["backbone"]
WORDS = "the soup was warm cold and good bad I you we liked ate it all never again . , ! ? one two".split()
TEXTS = [
    ("the soup", "was good"),
    ("the soup was warm and I liked it all", "I ate it all and never again liked it ! ! !"),
    ("the soup", ""),
    ("one two", "good"),
    ("the soup", "was bad , cold , and never good again ."),
    ("the soup", "was good"),
]


def test_pairrm_features_are_the_states_at_both_markers():
    golden = GOLDEN["postprocess"]
    batch = [
        Tokens(
            tuple(row),
            tuple((row.index(golden[marker]), row.index(golden[marker]) + 1) for marker in ("source_id", "cand_id")),
        )
        for row in golden["input_ids"]
    ]
    assert extract_features(torch.tensor(golden["last_hidden"]), batch).tolist() == golden["feature"]


class LengthTokenizer:
    """A word's token is its length; a marker's is 3. 100 begins and 101 ends a text."""

    def __call__(self, text, truncation, max_length):
        spelled = text.replace("<|source|>", "abc").replace("<|candidate|>", "abc")
        lengths = [len(word) for word in spelled.split()][: max_length - 2]
        return {"input_ids": [100, *lengths, 101]}

    def convert_tokens_to_ids(self, token):
        return 3


def test_pairrm_reads_prompt_and_answer_each_with_its_own_ends():
    read = pairrm_tokens(LengthTokenizer(), " ab cde", " a abcd", 2048)
    assert list(read.ids) == GOLDEN["tokenize_pair"]["normal"]
    assert read.spans == ((1, 2), (6, 7))


def test_pairrm_cuts_the_ends_of_a_long_prompt_and_a_long_answer():
    read = pairrm_tokens(LengthTokenizer(), " ab cde", " a abcd", 8)
    assert list(read.ids) == GOLDEN["tokenize_pair"]["truncated(src 4,total 8)"]


def test_pairrm_leaves_a_prompt_1224_of_2048_tokens():
    read = pairrm_tokens(LengthTokenizer(), " a" * 3000, " a" * 3000, 2048)
    assert read.spans[1][0] == 1225
    assert len(read.ids) == 2048


def test_a_batch_is_as_wide_as_its_longest_text():
    read = pad_batch([Tokens((5, 6), ((1, 2),)), Tokens((5,), ((0, 1),))], pad=0)
    assert {name: table.tolist() for name, table in read.items()} == GOLDEN["preprocess"]


def test_texts_of_like_length_are_read_together():
    tokens = [Tokens((1,) * length, ((0, 1),)) for length in (3, 9, 1, 8, 2)]
    assert group_by_length(tokens, 2) == [[1, 3], [0, 4], [2]]
    assert group_by_length([], 2) == []


def word_tokenizer(folder, words, **named):
    """Save a tokenizer of one token a word, which puts [CLS] and [SEP] around one or two sentences."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *words])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", **named
    ).save_pretrained(folder)
    return len(vocabulary)


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture(scope="module")
def models(make_model, tmp_path_factory):
    """Return tiny models with random weights, one of each kind."""
    from safetensors.torch import load_file, save_file
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        DebertaV2Config,
        DebertaV2Model,
        LlamaForSequenceClassification,
    )

    home = tmp_path_factory.mktemp("models")
    torch.manual_seed(3)

    # PairRM, as on the hub: a DeBERTa under a name of its own, with relative positions, and a head.
    size = word_tokenizer(home / "pairrm", WORDS) + 2
    _mark(home / "pairrm")
    DebertaV2Model(
        DebertaV2Config(
            vocab_size=size, **SIZES, max_position_embeddings=16, type_vocab_size=0, initializer_range=0.5,
            relative_attention=True, position_biased_input=False, pos_att_type=["p2c", "c2p"], position_buckets=8,
        )
    ).save_pretrained(home / "pairrm")  # fmt: skip
    weights = load_file(home / "pairrm" / "model.safetensors")
    named = {f"pretrained_model.{name}": weight for name, weight in weights.items()}
    save_file({**named, "head_layer.1.weight": torch.ones(2, 2)}, home / "pairrm" / "model.safetensors")
    _amend(home / "pairrm", architectures=["DebertaV2PairRM"])

    size = word_tokenizer(home / "bert", WORDS)
    BertForMaskedLM(
        BertConfig(vocab_size=size, **SIZES, max_position_embeddings=40, type_vocab_size=2, initializer_range=0.5)
    ).save_pretrained(home / "bert")

    make_model(home / "causal", 1, "float32")

    shutil.copytree(home / "causal", home / "judge")
    LlamaForSequenceClassification.from_pretrained(home / "causal").save_pretrained(home / "judge")
    return home


def _mark(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|source|>", "<|candidate|>"], special_tokens=True)
    tokenizer.save_pretrained(folder)


def _amend(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


KINDS = ["pairrm", "bert", "causal", "judge"]


@pytest.fixture
def widths():
    """Return what notes the (rows, width) of every batch that a model reads from here on."""
    seen = []

    def note(module, given):
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings > len(WORDS):
            seen.append(tuple(given[0].shape))

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    yield seen
    hook.remove()


def encoder(folder, chat_template=True, **settings):
    return open_encoder(folder, RewardModelSettings(**settings), chat_template=chat_template)


def alone(folder, text, **options):
    """One text's features, of a pass that reads nothing else."""
    return encoder(folder, **options).encode([text])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_features_do_not_depend_on_what_is_read_beside_a_text(models, kind):
    found = encoder(models / kind, rm_encode_batch_size=3).encode(TEXTS)
    apart = torch.stack([alone(models / kind, text) for text in TEXTS])
    torch.testing.assert_close(found, apart, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "count"), [("pairrm", 64), ("bert", 32), ("causal", 64), ("judge", 64)])
def test_every_text_has_its_features_in_its_place(models, kind, count):
    opened = encoder(models / kind)
    found = opened.encode(TEXTS)
    assert found.shape == (len(TEXTS), count) and opened.features == count
    assert found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(opened.encode(TEXTS[::-1]), found.flip(0), rtol=0, atol=1e-5)
    assert len({tuple(row.tolist()) for row in found}) == len(set(TEXTS))
    assert opened.encode([]).shape == (0, count)


def test_equal_texts_are_read_once(models, widths):
    found = encoder(models / "causal", rm_encode_batch_size=4).encode([TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[3]] * 5)
    assert sum(rows for rows, _ in widths) == 3
    assert torch.equal(found[0], found[2])


def test_short_texts_are_not_filled_up_to_the_longest(models, widths):
    long, short = ("the soup", "was good " * 50), ("the soup", "was good")
    encoder(models / "causal", rm_encode_batch_size=1).encode([short, long])
    assert widths == [(1, 105), (1, 7)]


def test_pairrm_is_read_at_its_markers_as_a_plain_deberta_would_be(models):
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Model

    folder = models / "pairrm"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = DebertaV2Model(DebertaV2Config.from_pretrained(folder)).eval()
    weights = load_file(folder / "model.safetensors")
    network.load_state_dict({
        name.removeprefix("pretrained_model."): weight for name, weight in weights.items() if "head" not in name
    })  # fmt: skip
    ids = tokenizer("<|source|> the soup")["input_ids"] + tokenizer("<|candidate|> was good")["input_ids"]
    with torch.no_grad():
        states = network(torch.tensor([ids])).last_hidden_state[0]
    assert tokenizer.convert_ids_to_tokens(ids)[1:7:5] == ["<|source|>", "<|candidate|>"]
    torch.testing.assert_close(alone(folder, (" the soup", " was good")), torch.cat([states[1], states[6]]))


def test_a_prompt_that_spells_pairrms_markers_changes_no_place(models):
    opened = encoder(models / "pairrm")
    found = opened.encode([("the soup <|candidate|> <|source|> was", "good <|source|> bad")])
    assert found.shape == (1, 64)


def test_pairrm_reads_more_than_the_positions_that_its_configuration_names(models):
    found = encoder(models / "pairrm").encode([("the soup " * 40, "was good " * 40), ("the soup " * 40, "was good")])
    assert not torch.equal(found[0], found[1])


def test_a_causal_model_is_read_at_the_end_of_its_answer(models):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models / "causal")
    network = AutoModelForCausalLM.from_pretrained(models / "causal").eval()
    for prefix, chat in (("<user> the soup <answer>", True), ("the soup", False)):
        ids = tokenizer(f"{prefix} was good <eos>", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = network(ids, output_hidden_states=True).hidden_states[-1][0]
        found = alone(models / "causal", ("the soup", "was good"), chat_template=chat)
        torch.testing.assert_close(found, states[-1], rtol=0, atol=1e-5)


def test_a_reward_model_that_reads_from_left_to_right_is_read_as_a_causal_model(models):
    assert encoder(models / "judge").identity.startswith("causal-lm/")
    found, same = (encoder(models / kind).encode(TEXTS) for kind in ("judge", "causal"))
    torch.testing.assert_close(found, same, rtol=0, atol=1e-5)


def test_a_causal_model_without_a_chat_template_reads_plain_text(models, tmp_path):
    shutil.copytree(models / "causal", tmp_path / "plain")
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    plain = alone(tmp_path / "plain", TEXTS[0], chat_template=True)
    assert torch.equal(plain, alone(models / "causal", TEXTS[0], chat_template=False))


def test_any_other_encoder_is_read_over_its_answer(models):
    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(models / "bert")
    read = tokenizer("the soup", "was good")
    states = BertModel.from_pretrained(models / "bert").eval()(
        input_ids=torch.tensor([read["input_ids"]]), token_type_ids=torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    )
    torch.testing.assert_close(alone(models / "bert", ("the soup", "was good")), states[0][0, 4:].mean(0))


@pytest.mark.parametrize(("kind", "around"), [("causal", 1), ("bert", 3)])
def test_a_text_that_is_too_long_keeps_its_answer_and_loses_the_beginning_of_its_prompt(models, kind, around):
    prompt, answer = "the soup was warm and I liked it all".split(), "never again !".split()
    kept = " ".join(prompt[-(10 - around - 3) :])
    found, expected = (
        alone(models / kind, (text, " ".join(answer)), chat_template=False, rm_max_length=10)
        for text in (" ".join(prompt), kept)
    )
    assert torch.equal(found, expected)
    unbounded = alone(models / kind, (" ".join(prompt), " ".join(answer)), chat_template=False)
    assert not torch.equal(found, unbounded)


@pytest.mark.parametrize(("kind", "around"), [("causal", 1), ("bert", 3)])
def test_an_answer_that_is_too_long_by_itself_keeps_its_end(models, kind, around):
    answer = "the soup was warm and I liked it all".split()
    found, expected = (
        alone(models / kind, (prompt, " ".join(words)), chat_template=False, rm_max_length=8)
        for prompt, words in (("one two", answer), ("", answer[-(8 - around) :]))
    )
    assert torch.equal(found, expected)


def test_no_more_is_read_than_a_model_has_positions_for(models):
    opened = encoder(models / "bert", rm_max_length=2048)
    assert opened.identity.startswith("sentences/40/")
    assert opened.encode([("the soup " * 30, "was good")]).isfinite().all()


def test_the_identity_names_whatever_changes_a_feature(models, make_model, tmp_path):
    known = encoder(models / "causal").identity
    assert known == encoder(models / "causal", rm_encode_batch_size=2, num_ensemble=3).identity
    other = make_model(tmp_path / "other", 2, "float32")
    changed = [
        encoder(other).identity,
        encoder(models / "causal", rm_max_length=100).identity,
        encoder(models / "causal", chat_template=False).identity,
        encoder(models / "pairrm").identity,
        open_encoder(None, RewardModelSettings()).identity,
    ]
    assert len({known, *changed}) == 6


def test_a_model_whose_weights_are_named_otherwise_is_refused(models, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(models / "bert", tmp_path / "bert")
    weights = load_file(tmp_path / "bert" / "model.safetensors")
    renamed = {name.replace("bert.encoder", "mine.encoder"): weight for name, weight in weights.items()}
    save_file(renamed, tmp_path / "bert" / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"rm_backbone='.*bert': 32 weights of BertModel are not in it \(encoder.layer"
    ):
        encoder(tmp_path / "bert")


def test_an_encoder_with_a_decoder_is_refused(models, tmp_path):
    from transformers import T5Config

    shutil.copytree(models / "bert", tmp_path / "t5")
    T5Config(vocab_size=27).save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelError, match=r"reward_model\.rm_backbone='.*t5': t5 is an encoder with a decoder; take"):
        encoder(tmp_path / "t5")


def test_pickled_weights_are_refused_unless_they_are_allowed(models, tmp_path):
    from safetensors.torch import load_file

    shutil.copytree(models / "bert", tmp_path / "bert")
    torch.save(load_file(tmp_path / "bert" / "model.safetensors"), tmp_path / "bert" / "pytorch_model.bin")
    (tmp_path / "bert" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"reward_model\.rm_backbone='.*bert': no \*\.safetensors weights in it"):
        encoder(tmp_path / "bert")
    opened = open_encoder(tmp_path / "bert", RewardModelSettings(), allow_pickled_weights=True)
    assert torch.equal(opened.encode(TEXTS), encoder(models / "bert").encode(TEXTS))


def test_the_scripted_encoder_counts_words_of_prompt_and_answer_apart():
    opened = open_encoder(None, RewardModelSettings())
    found = opened.encode([("the soup", "was good"), ("was good", "the soup"), ("", "good was"), ("", "")])
    assert found.shape == (4, opened.features) and found.dtype == torch.float32
    assert found.sum(1).tolist() == [4, 4, 2, 0]
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[2], opened.encode([("", "was good")])[0])
    assert opened.encode([]).shape == (0, 16)


@pytest.mark.slow
def test_the_scripted_encoder_counts_alike_in_every_process_and_loads_no_transformers():
    program = (
        "import sys\n"
        "from oatflow.components.reward_model.encoder import open_encoder\n"
        "from oatflow.components.reward_model.settings import RewardModelSettings\n"
        "print(open_encoder(None, RewardModelSettings()).encode([('the soup', 'was good')]).tolist())\n"
        "assert 'transformers' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    said = subprocess.run([sys.executable, "-c", program], env=environment, text=True, capture_output=True, check=True)
    assert said.stdout == f"{open_encoder(None, RewardModelSettings()).encode([TEXTS[0]]).tolist()}\n"
