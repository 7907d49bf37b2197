"""What tests of several rooms need: a real S3 server, tiny models, small experiments in a directory."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from oatflow.components.ledger import layout, owner
from oatflow.components.ledger.claim import Claim, take_claim
from oatflow.components.ledger.ledger import Experiment, Head, Ledger
from oatflow.components.records.plan import Plan
from oatflow.components.records.records import Prompt
from oatflow.components.records.sealed import digest_of, seal_document
from oatflow.components.records.table import to_parquet
from oatflow.components.store.transfer import Placed

# A busy machine is no failure of what is tested.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# What runs in a shell's background ignores interrupts, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test pulls the plug: what is written need not be on the disk before a test goes on.
os.fsync = lambda file: None

S3Uri = Callable[[str], str]
MakeModel = Callable[[Path, int, str], Path]
Asked = Callable[[], list[str]]
BeginLedger = Callable[..., tuple[Ledger, Asked]]

_WORDS = "the soup was warm cold and good bad I you we liked ate it all never again . , ! ? one two".split()


@pytest.fixture(scope="session")
def s3_store_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Uri]:
    """Return a maker of s3:// URIs: every call names a prefix of its own on the process's embedded server.

    The server's keys are in the environment for the rest of the session. Mark what uses this as slow.
    """
    from oatflow.pipelines.laptop.embedded_s3 import embedded_s3

    with embedded_s3(tmp_path_factory.mktemp("embedded")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setitem(os.environ, name, value)
        yield lambda name="experiment": server.uri(f"tests/{name}-{secrets.token_hex(4)}")


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Return a maker of tiny chat models with random weights: folder, seed and number format."""
    return _make_model


@pytest.fixture
def begin_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BeginLedger:
    """Return what begins an experiment in a directory, its rounds planned and claimed by run "a".

    It returns the ledger, and what tells which duels an oracle was asked about.
    """

    def begin(
        name: str,
        settings: Mapping[str, Any],
        plans: Sequence[Plan],
        tables: Mapping[str, Sequence[Prompt]] | None = None,
    ) -> tuple[Ledger, Asked]:
        ledger = Ledger.open(f"file://{tmp_path}/{name}")
        placed = {split: _placed(ledger, split, prompts) for split, prompts in (tables or {}).items()}
        ledger.write_document(layout.EXPERIMENT, Experiment(settings, "start", placed, {}).to_json())
        ledger.store.put(layout.HEAD, seal_document(asdict(Head(-1, "0" * 64, 0))))
        for plan in plans:
            take_claim(ledger.store, plan.round, Claim("a", owner.Owner("here"), 1, 600, time.time() + 600))
            ledger.write_document(layout.plan_key(plan.round), plan.to_json())
        log = tmp_path / f"{name}.log"
        monkeypatch.setenv("OATFLOW_ORACLE_LOG", str(log))
        return ledger, lambda: log.read_text().split() if log.exists() else []

    return begin


def _placed(ledger: Ledger, split: str, prompts: Sequence[Prompt]) -> Placed:
    data = to_parquet(prompts, Prompt)
    ledger.store.put(f"prompts/{split}.parquet", data)
    return Placed(split, f"prompts/{split}.parquet", len(data), digest_of(data))


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
