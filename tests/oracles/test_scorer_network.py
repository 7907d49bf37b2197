"""A reward model's scores: those of each conversation alone, and of no folder that holds none."""

import json
import subprocess
import sys

import pytest
import torch
from oatflow.components.errors import ModelError, OracleError
from oatflow.components.oracles.scorer_folder import check_scorer
from oatflow.components.oracles.scorer_network import Scorer, group_by_length

from .tiny_scorer import TEMPLATE, write_reward_model, write_tokenizer

pytestmark = pytest.mark.slow

CONVERSATIONS = [
    ("the soup", "it was warm and good !"),
    ("you ate ?", "never"),
    ("the soup was good , and it was warm . I liked it all", "we ate it all , one and two , and never again cold soup"),
    ("the soup", ""),
    ("one two", "bad"),
]
# What GatedReward is written in; ArmoRM has such a head: a score of its own making, and several logits.
GATED = """
from dataclasses import dataclass
import torch
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.utils import ModelOutput

@dataclass
class GatedOutput(ModelOutput):
    logits: torch.Tensor = None
    score: torch.Tensor = None

class GatedReward(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.regression_layer = torch.nn.Linear(config.hidden_size, 3, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **_):
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        # As ArmoRM finds it: the place before the first padding token.
        pad = self.config.pad_token_id
        last = -1 if pad is None else input_ids.eq(pad).int().argmax(-1) - 1
        rewards = self.regression_layer(states)[torch.arange(len(states)), last]
        return GatedOutput(logits=rewards, score=rewards.mean(-1))
"""


@pytest.fixture
def make_reward_model(tmp_path):
    """Return a maker of tiny reward models: name and options."""
    return lambda name="reward", **options: write_reward_model(tmp_path / name, **options)


def make_gated(folder):
    """Turn a reward model's folder into one with a head of its own code."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    weights["regression_layer.weight"] = torch.arange(96.0).reshape(3, 32) / 50 - 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    auto_map = {"AutoModelForSequenceClassification": "modeling_gated.GatedReward"}
    amend(folder, architectures=["GatedReward"], auto_map=auto_map)
    (folder / "modeling_gated.py").write_text(GATED)


def amend(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def alone(scorer, conversation, longest=64):
    """Score a conversation as plain transformers would: one row, nothing padded."""
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), conversation, strict=True)]
    ids = scorer._tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"][-longest:]
    with torch.no_grad():
        return scorer.network.model(torch.tensor([ids])).last_hidden_state[0, -1] @ scorer.network.score.weight[0]


def watched(scorer):
    """Return what the network will have been given, one table of token ids a pass."""
    seen = []
    scorer.network.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"].tolist()), with_kwargs=True
    )
    return seen


def test_a_score_is_that_of_the_conversation_alone_at_its_very_last_token(make_reward_model):
    # The template ends with <eos>, with which transformers would pad: then the token before it would be read.
    scorer = Scorer(str(make_reward_model()))
    expected = [float(alone(scorer, conversation)) for conversation in CONVERSATIONS]
    assert scorer.score_texts(CONVERSATIONS) == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 3) for score in expected}) == len(expected)


@pytest.mark.parametrize("named", [{}, {"pad_token": "<pad>", "padding_side": "left"}], ids=["no-pad", "left"])
def test_a_score_depends_neither_on_its_batch_nor_on_the_side_of_the_padding(make_reward_model, named):
    folder = str(make_reward_model(named=named, pad_token_id=5 if named else None))
    expected = [float(Scorer(folder).score_texts([conversation])[0]) for conversation in CONVERSATIONS]
    for batch_tokens in (1, 40, 8192):
        scorer = Scorer(folder, batch_tokens=batch_tokens)
        assert scorer.score_texts(CONVERSATIONS) == pytest.approx(expected, abs=1e-5)
        assert scorer.score_texts(CONVERSATIONS[::-1]) == pytest.approx(expected[::-1], abs=1e-5)
    assert scorer.score_texts([]) == []


def test_padding_on_the_left_by_transformers_itself_gives_the_same_scores(make_reward_model):
    named = {"pad_token": "<pad>", "padding_side": "left"}
    scorer = Scorer(str(make_reward_model(named=named, pad_token_id=5)))
    turns = [[{"role": "user", "content": p}, {"role": "assistant", "content": r}] for p, r in CONVERSATIONS]
    rows = scorer._tokenizer.apply_chat_template(turns, return_dict=True, return_tensors="pt", padding=True)
    assert rows["attention_mask"][1, 0] == 0
    with torch.no_grad():
        expected = scorer.network(**rows).logits[:, 0].tolist()
    assert scorer.score_texts(CONVERSATIONS) == pytest.approx(expected, abs=1e-5)


def test_the_template_alone_says_how_a_conversation_begins(make_reward_model):
    scorer = Scorer(str(make_reward_model()))
    seen = watched(scorer)
    scorer.score_texts([("soup", "good")])
    assert seen == [[[4, 2, scorer._tokenizer.vocab["soup"], 0, 3, scorer._tokenizer.vocab["good"], 0]]]


def test_equal_conversations_are_read_once_and_a_pass_has_at_most_so_many_tokens(make_reward_model):
    scorer = Scorer(str(make_reward_model()), batch_tokens=40)
    seen = watched(scorer)
    scores = scorer.score_texts([*CONVERSATIONS, *CONVERSATIONS])
    assert scores[:5] == scores[5:]
    assert sum(len(rows) for rows in seen) == 5
    assert all(len(rows) * len(rows[0]) <= 40 for rows in seen)


def test_conversations_of_like_length_go_together_and_a_long_one_alone():
    assert group_by_length([3, 50, 9, 8, 1], 20) == [[1], [2, 3], [0, 4]]
    assert group_by_length([5], 1) == [[0]]
    assert group_by_length([], 20) == []


def test_what_is_too_long_loses_its_beginning(make_reward_model):
    folder = str(make_reward_model())
    scorer, long = Scorer(folder, max_length=8), CONVERSATIONS[2]
    seen = watched(scorer)
    assert scorer.score_texts([long])[0] == pytest.approx(float(alone(scorer, long, 8)), abs=1e-5)
    assert len(seen[0][0]) == 8 and seen[0][0][-1] == 0
    # The model has 64 positions, whatever the settings say.
    scorer = Scorer(folder)
    seen = watched(scorer)
    scorer.score_texts([("soup " * 100, "good")])
    assert len(seen[0][0]) == 64


def test_an_encoder_with_absolute_positions_is_a_reward_model_too(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    size = write_tokenizer(tmp_path / "bert", TEMPLATE, bos_token="<bos>", pad_token="<pad>")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=size, **sizes, max_position_embeddings=24, num_labels=1, pad_token_id=5)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    scorer = Scorer(str(tmp_path / "bert"))
    scores = scorer.score_texts([*CONVERSATIONS, ("soup " * 100, "good")])
    assert scores[1] == pytest.approx(scorer.score_texts(CONVERSATIONS[1:2])[0], abs=1e-5)


def test_a_head_of_its_own_code_is_read_by_its_score_and_only_where_code_is_allowed(make_reward_model, tmp_path):
    folder = make_reward_model()
    make_gated(folder)
    with pytest.raises(ModelError, match=r"brings code of its own .*allow it with scorer_trust_remote_code=true"):
        Scorer(str(folder))
    scorer = Scorer(str(folder), trust_remote_code=True)
    assert scorer.network.config.architectures == ["GatedReward"]
    together = scorer.score_texts(CONVERSATIONS)
    apart = [scorer.score_texts([conversation])[0] for conversation in CONVERSATIONS]
    assert together == pytest.approx(apart, abs=1e-5)
    assert len({round(score, 3) for score in apart}) == 5


def test_a_head_of_its_own_code_without_a_score_is_refused(make_reward_model):
    folder = make_reward_model("several")
    make_gated(folder)
    (folder / "modeling_gated.py").write_text(GATED.replace(", score=rewards.mean(-1)", ""))
    with pytest.raises(ModelError, match=r"GatedReward returns \(1, 3\) for 1 conversations; a score is one number"):
        Scorer(str(folder), trust_remote_code=True).score_texts(CONVERSATIONS[:1])


def test_what_is_no_reward_model_is_refused_by_name_before_it_is_loaded(make_model, make_reward_model, tmp_path):
    policy = make_model(tmp_path / "policy", 0, "float32")
    with pytest.raises(ModelError, match=r"scorer_model='.*policy': LlamaForCausalLM gives no score; name a sequence"):
        check_scorer(str(policy), False)
    with pytest.raises(ModelError, match="has 2 outputs, and a score is one"):
        check_scorer(str(make_reward_model("two", num_labels=2)), False)
    with pytest.raises(ModelError, match="has no chat template, so nothing says how it reads a conversation"):
        check_scorer(str(make_reward_model("wordless", template=None)), False)
    with pytest.raises(ModelError, match=r"scorer_model='/nowhere': there is no such folder"):
        check_scorer("/nowhere", False)
    pickled = make_reward_model("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pytorch_model.bin, which can run code when loaded; save .*ation$"):
        check_scorer(str(pickled), False)
    check_scorer(str(make_reward_model("fine")), False)


def test_a_head_without_weights_is_not_filled_with_random_ones(make_model, tmp_path):
    folder = make_model(tmp_path / "headless", 0, "float32")
    amend(folder, architectures=["LlamaForSequenceClassification"], num_labels=1)
    with pytest.raises(ModelError, match=r"1 weights of LlamaForSequenceClassification are not in it \(score.weight\)"):
        Scorer(str(folder))


def test_a_score_that_is_no_number_is_an_error_and_not_an_answer(make_reward_model):
    scorer = Scorer(str(make_reward_model()))
    scorer.network.score.weight.data[:] = float("nan")
    with pytest.raises(OracleError, match="a score is nan; try the other scorer_dtype"):
        scorer.score_texts(CONVERSATIONS[:1])


def test_a_scorer_is_named_by_all_that_a_score_depends_on(make_reward_model):
    from safetensors.torch import load_file, save_file

    folder = make_reward_model("skywork")
    named = Scorer(str(folder)).identity
    name, digest = named.split("@")
    assert name == "skywork" and len(digest) == 12
    assert Scorer(f"{folder}/", batch_tokens=10).identity == named, "how many are read at a time is no matter"
    others = [Scorer(str(folder), "bfloat16").identity, Scorer(str(folder), max_length=9).identity]
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "score.weight": 2 * weights["score.weight"]}, folder / "model.safetensors", {"format": "pt"})
    others.append(Scorer(str(folder)).identity)
    assert len({named, *others}) == 4


def test_half_the_bytes_score_about_the_same(make_reward_model):
    folder = str(make_reward_model())
    half = Scorer(folder, "bfloat16")
    assert half.network.dtype == torch.bfloat16
    assert half.score_texts(CONVERSATIONS) == pytest.approx(Scorer(folder).score_texts(CONVERSATIONS), abs=1.5)


def test_a_folder_is_checked_without_torch(make_reward_model):
    program = (
        "import sys; from oatflow.components.oracles import pairrm, scorer; "
        "from oatflow.components.oracles.settings import ScorerSettings; "
        "scorer.ScorerOracle(ScorerSettings(scorer_model=sys.argv[1])).check_ready(); "
        "assert not {'torch', 'transformers', 'llm_blender'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program, str(make_reward_model())], check=True)
