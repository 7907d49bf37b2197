from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import progress
from ..ledger.ledger import Ledger
from ..ledger.step import Step
from ..model_folder import resolve_pretrain
from ..prompts.settings import PromptSettings
from ..prompts.template import encode_prompt, load_tokenizer
from ..records.plan import STARTING_MODEL, PolicyPointer
from ..records.records import Prompt
from ..reward_model.checkpoint import from_bytes
from ..reward_model.encoder import Encoder, open_encoder
from ..reward_model.fitting import Ensemble
from ..reward_model.network import rewards
from ..reward_model.settings import RewardModelSettings
from ..sampling.engine import Decoding, Draw, Engine, OnProgress, Request, open_engine, quietly
from ..sampling.settings import SamplingSettings
from ..seeds import derive
from ..starting_model import starting_folder, trusts_remote_code, unpickles_weights

Text = tuple[str, str]
TELL_SECONDS = 0.5


def answer(
    engine: Engine,
    prompts: Sequence[Prompt],
    tokens: Sequence[tuple[int, ...]],
    decoding: Decoding,
    seed_parts: tuple[int, *tuple[int | str, ...]],
    on_progress: OnProgress = quietly,
) -> list[Draw]:
    """Return one answer a prompt; `tokens` are the prompts', as `encode_prompts` gives them.

    A prompt's seed derives from `seed_parts` (an experiment's seed, then the purpose) and the prompt's id.
    """
    seeds = [derive(*seed_parts, prompt.prompt_id) for prompt in prompts]
    requests = [Request(encoded, (seed,)) for encoded, seed in zip(tokens, seeds, strict=True)]
    return [draw for (draw,) in engine.generate(requests, decoding, on_progress)]


@contextmanager
def policy_engine(ledger: Ledger, step: Step, policy: PolicyPointer) -> Iterator[Engine]:
    """Give an engine with that policy loaded. Its weights are fetched only if the engine does not hold them yet."""
    settings = ledger.section(SamplingSettings, "sampling")
    with (
        policy_folder(ledger, step, policy) as folder,
        closing(open_engine(settings, folder, policy.digest, trusts_remote_code(ledger))) as engine,
    ):
        yield engine


def load_policy(ledger: Ledger, step: Step, engine: Engine, policy: PolicyPointer) -> None:
    """Put another policy into an open engine. Its weights are fetched only if the engine does not hold them yet."""
    with policy_folder(ledger, step, policy) as folder:
        engine.load_policy(folder, policy.digest)


@contextmanager
def policy_folder(ledger: Ledger, step: Step, policy: PolicyPointer) -> Iterator[Callable[[], Path]]:
    """Give what fetches a policy's folder when it is called; the folder is there as long as this lasts."""
    with tempfile.TemporaryDirectory(prefix="oatflow-policy-") as scratch:

        def folder() -> Path:
            if policy.round == STARTING_MODEL:
                return starting_folder(ledger)
            step.download_folder("policy", "model", Path(scratch), round_=policy.round)
            return Path(scratch)

        yield folder


def encode_prompts(ledger: Ledger, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
    """Return the prompts' tokens."""
    tokenizer = policy_tokenizer(ledger)
    template = ledger.section(PromptSettings, "prompts").apply_chat_template
    return [tuple(encode_prompt(tokenizer, prompt.text, template)) for prompt in prompts]


def policy_tokenizer(ledger: Ledger) -> Any:
    """Load the tokenizer of every policy of the experiment, which is the starting model's."""
    scripted = ledger.section(SamplingSettings, "sampling").engine == "scripted"
    return load_tokenizer(None if scripted else starting_folder(ledger), trusts_remote_code(ledger))


def teller(step: str, round_: int) -> OnProgress:
    """Return what tells a step's progress while it generates, now and then and at the end."""
    told = 0.0

    def tell(done: int, of: int, tokens: int) -> None:
        nonlocal told
        if done == of or time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            progress.tell(step, round_, "work", done=done, of=of, tokens=tokens)

    return tell


def believed_rewards(ledger: Ledger, features: Tensor, ensemble: Ensemble) -> Tensor:
    """Return every member's reward of K answers, (E, K), from their features, (K, D)."""
    settings = ledger.section(RewardModelSettings, "reward_model")
    with torch.inference_mode():
        return rewards(ensemble.weights, features, settings.rm_act_fn)


def encode(ledger: Ledger, texts: Sequence[Text], known: Mapping[Text, Tensor] | None = None) -> Tensor:
    """Return the features of texts, (K, D); the encoder is loaded only if one of them is not `known`."""
    found = dict(known or {})
    new = [text for text in dict.fromkeys(texts) if text not in found]
    if new:
        found |= zip(new, open_for(ledger).encode(new), strict=True)
    return torch.stack([found[text] for text in texts])


def open_for(ledger: Ledger) -> Encoder:
    """Open the encoder that the experiment's settings name; a scripted policy has a scripted one."""
    settings = ledger.section(RewardModelSettings, "reward_model")
    template = ledger.section(PromptSettings, "prompts").apply_chat_template
    allowed = {"trust_remote_code": trusts_remote_code(ledger), "allow_pickled_weights": unpickles_weights(ledger)}
    if settings.rm_backbone:
        folder = resolve_pretrain(
            settings.rm_backbone, "reward_model.rm_backbone", **allowed, stores=ledger.setting_stores
        )
    elif ledger.experiment.settings["policy"].get("trainer") == "scripted":
        return open_encoder(None, settings)
    else:
        folder = starting_folder(ledger)
    return open_encoder(folder, settings, **allowed, chat_template=template)


def ensemble_after(step: Step) -> Ensemble:
    """Return the ensemble that has learned from the step's round."""
    return from_bytes(step.read_output("reward_model", "ensemble.safetensors"))
