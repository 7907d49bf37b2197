"""What tests of the reward server need: reward models to serve, and running servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import psutil
import pytest

TOKEN = "a-word-nobody-guesses"


@dataclass(frozen=True)
class Server:
    """A server as its clients see it, and its process."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def ask(self, path: str, body: bytes | None = None, token: str | None = TOKEN) -> tuple[int, bytes]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers), timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def metric(self, name: str) -> float:
        """The value of a metric, of all its labels together."""
        lines = self.ask("/metrics")[1].decode().splitlines()
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(values)

    def children(self) -> dict[int, str]:
        """The processes that it has started, by number, with their commands."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        return {child.pid: " ".join(child.cmdline()) for child in started}


Serve = Callable[..., "contextmanager[Server]"]


@contextmanager
def serve(folder: Path, log: Path, *flags: str, token: str | None = TOKEN) -> Iterator[Server]:
    """Run the command until the model is loaded; end it if it has not ended itself."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"} | ({"OATFLOW_ORACLE_TOKEN": token} if token else {})
    command = [sys.executable, "-m", "oatflow.pipelines.cli", "serve-reward-model", "--scorer-model", str(folder)]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", "0", *flags],
            stdout=file,
            stderr=file,
            env=environment,
            text=True,
        )
    try:
        yield Server(_address(process, log), process, log)
    finally:
        process.terminate()
        process.wait(60)


def _address(process: subprocess.Popen[str], log: Path) -> str:
    while " answers at " not in (said := log.read_text()):
        assert process.poll() is None, said
        time.sleep(0.1)
    return said.partition(" answers at ")[2].partition(": up to ")[0]


@pytest.fixture(scope="session")
def reward_model(make_model, tmp_path_factory) -> Path:
    """A tiny reward model with random weights, whose scores depend on every word."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    folder = make_model(tmp_path_factory.mktemp("models") / "tiny-rm", 3, "float32")
    config = LlamaConfig.from_pretrained(folder, num_labels=1)
    torch.manual_seed(3)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_known_model(make_model, tmp_path_factory) -> Callable[[dict[str, float]], Path]:
    """Return a maker of reward models whose score is known by hand: that of the answer's last word."""
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForSequenceClassification

    def make(scores: dict[str, float]) -> Path:
        folder = make_model(tmp_path_factory.mktemp("models") / "known-rm", 0, "float32")
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary |= {word: len(vocabulary) + number for number, word in enumerate(scores) if word not in vocabulary}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
        config = LlamaConfig(
            vocab_size=size, hidden_size=2, intermediate_size=2, num_hidden_layers=0, num_attention_heads=1,
            num_labels=1, pad_token_id=0, rms_norm_eps=0.0,
        )  # fmt: skip
        network = LlamaForSequenceClassification(config)
        with torch.no_grad():
            # The norm makes every embedding sqrt(2) long, so that its first coordinate times the head is the score.
            network.score.weight.copy_(torch.tensor([[4 / sqrt(2), 0.0]]))
            network.model.embed_tokens.weight.fill_(1.0)
            for word, score in scores.items():
                row = torch.tensor([score / 4, sqrt(1 - (score / 4) ** 2)])
                network.model.embed_tokens.weight[vocabulary[word]] = row
        network.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def server(reward_model, tmp_path_factory) -> Iterator[Server]:
    """A server that many tests ask."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with serve(reward_model, log, "--max-body", "20000", "--max-duels", "8") as running:
        yield running
