"""A tiny language model, and experiments whose sampling and labeling are written down instead of done."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.policy.settings import PolicySettings
from oatflow.components.prompts.template import encode_prompt, load_tokenizer
from oatflow.components.records.records import Candidate, Duel, Preference, duel_id
from oatflow.components.records.table import to_parquet
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.experiment import ExperimentSettings
from oatflow.components.rounds.opening import open_round
from oatflow.components.rounds.steps import run_train

WORDS = ("<pad> <end> say something about the good bad fine tea soup song hat park of a is was it very quite"
         " red blue old new").split()  # fmt: skip
SUBJECTS = (
    "tea",
    "soup",
    "song",
    "hat",
    "park",
    "old tea",
    "new soup",
    "red song",
    "blue hat",
    "old park",
    "a hat",
    "it",
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A Llama of some thousand random weights, with a tokenizer of one token a word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-model")
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="it"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="it"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, eos_token_id=1, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@dataclass
class Trial:
    """An experiment on the tiny model whose oracle likes `good` and dislikes `bad`."""

    uri: str
    settings: dict
    run: str = "run"
    written: dict[int, list[Candidate]] = field(default_factory=dict)

    @property
    def ledger(self) -> Ledger:
        return Ledger.open(self.uri)

    def open(self, round_: int) -> None:
        """Open a round, and write what sampling and labeling would; its last duel is a clash."""
        assert open_round(self.uri, self.settings, self.run) == round_
        ledger = self.ledger
        tokenizer = load_tokenizer(Path(self.settings["policy"]["pretrain"]))
        candidates, duels, preferences = [], [], []
        prompts = ledger.read_plan(round_).prompts
        for number, prompt in enumerate(prompts):
            clash = number == len(prompts) - 1
            texts = ("it is fine", "it is fine") if clash else ("very good " * (1 + number % 3), "was bad")
            if number % 2:
                texts = texts[::-1]
            for side, text in enumerate(texts):
                tokens = (*tokenizer(text.strip())["input_ids"], tokenizer.eos_token_id)
                length = len(encode_prompt(tokenizer, prompt.text, apply_chat_template=False))
                candidates.append(Candidate(prompt.prompt_id, side, text.strip(), tokens, length, "stop"))
            first, second = (text.strip() for text in texts)
            name = duel_id(prompt.text, first, second)
            strategy = self.settings["exploration"]["exp_method"]
            duels.append(Duel(name, prompt.prompt_id, prompt.text, first, second, 0, 1, clash, strategy))
            label = None if clash else ("first" if "good" in first else "second")
            wins = None if clash else float(label == "first")
            preferences.append(Preference(name, prompt.prompt_id, clash, wins, label, None, None, "test"))
        self.written[round_] = candidates
        with ledger.open_step(round_, "sampling", self.run) as step:
            step.write_output("candidates.parquet", to_parquet(candidates, Candidate))
            step.write_output("duels.parquet", to_parquet(duels, Duel))
            step.mark_done({"duels": len(duels)}, {})
        with ledger.open_step(round_, "labeling", self.run) as step:
            for part in range(0, len(preferences), 4):
                step.write_output(
                    f"preferences-{part // 4:04d}.parquet", to_parquet(preferences[part : part + 4], Preference)
                )
            step.mark_done({"queries": len(duels), "clashes": 1}, {})

    def train(self, round_: int):
        return run_train(self.ledger, round_, self.run)

    def close(self, round_: int) -> None:
        with self.ledger.open_step(round_, "evaluation", self.run) as step:
            step.mark_done({}, {})
        close_round(self.uri, round_, self.run)

    def model(self, round_: int, folder: Path) -> Path:
        """Fetch the policy that a round made."""
        from oatflow.components.store.transfer import download_folder

        done = self.ledger.find_done(round_, "policy")
        download_folder(self.ledger.store, done.list_folder("model"), folder)
        return folder

    def policy(self) -> PolicySettings:
        return PolicySettings.parse(self.settings["policy"])


@pytest.fixture(scope="session")
def new_trial(tiny_model, tmp_path_factory):
    """Return a maker of experiments: two rounds of six prompts, steps of four pairs, passes of one."""

    def make(exp_method="passive", **policy) -> Trial:
        folder = tmp_path_factory.mktemp("trial")
        prompts = folder / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": f"say something about {s}"}) + "\n" for s in SUBJECTS))
        chosen = {
            "pretrain": str(tiny_model), "learning_rate": 5e-3, "train_batch_size": 4, "train_batch_size_per_device": 1,
            "l2": 0.1, "max_norm": 0.5, "beta": 0.5, "zero_stage": 0,
            # The same on every machine: what auto picks depends on the processor.
            # Steps of four pairs and of one, so that two steps are enough for a round.
            "precision": "float32", "leftover_pairs": "own_step", **policy,
        }  # fmt: skip
        settings = ExperimentSettings.parse(
            {
                "prompts": {
                    "prompt_data": str(prompts), "eval_data": str(prompts), "rollout_batch_size": 6,
                    "apply_chat_template": False,
                },
                "exploration": {"exp_method": exp_method},
                "labeling": {"max_queries": 12},
                "policy": chosen,
            }
        )  # fmt: skip
        return Trial(f"file://{folder}/ledger", settings.model_dump(mode="json"))

    return make
