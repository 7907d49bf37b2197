"""What tests of several rooms need: a real S3 server, once a session."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

S3Uri = Callable[[str], str]
MakeModel = Callable[[Path, int, str], Path]

_WORDS = "the soup was warm cold and good bad I you we liked ate it all never again . , ! ? one two".split()


@pytest.fixture(scope="session")
def s3_store_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Uri]:
    """Return a maker of s3:// URIs: every call names a prefix of its own on the session's embedded server.

    The server's keys are in the environment for the rest of the session. Mark what uses this as slow.
    """
    from oatflow.pipelines.embedded_s3 import embedded_s3

    with embedded_s3(tmp_path_factory.mktemp("embedded")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setitem(os.environ, name, value)
        yield lambda name="experiment": server.uri(f"tests/{name}-{secrets.token_hex(4)}")


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Return a maker of tiny chat models with random weights: folder, seed and number format."""
    return _make_model


def _make_model(folder: Path, seed: int, dtype: str) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<eos>", "<unk>", "<user>", "<answer>", *_WORDS])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{% for turn in messages %}<user> {{ turn['content'] }}{% endfor %}"
        "{% if add_generation_prompt %} <answer>{% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, eos_token_id=0, bos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(seed)
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
