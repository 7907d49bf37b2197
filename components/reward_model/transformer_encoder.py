"""Encoders that are transformers: finds out which kind a folder holds, and computes its features."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..model_folder import check_model_folder, model_digest
from ..prompts.template import load_tokenizer
from .featurisation import (
    CANDIDATE,
    SOURCE,
    Tokens,
    causal_tokens,
    extract_features,
    group_by_length,
    pad_batch,
    pairrm_tokens,
    sentence_tokens,
)
from .settings import RewardModelSettings

_Read = Callable[[str, str], Tokens]


class TransformerEncoder:
    """A frozen transformer. It reads equal texts once in a call, and texts of similar length together."""

    def __init__(self, identity: str, network: Any, read: _Read, pad: int, batch_size: int):
        self.identity = identity
        self._network, self._read, self._pad, self._batch_size = network, read, pad, batch_size
        self.features = int(network.config.get_text_config().hidden_size) * len(read("", "").spans)

    def encode(self, texts: Sequence[tuple[str, str]]) -> Tensor:
        """Return the features of prompts with their answers, (K, D) in float32, in their order."""
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        tokens = [self._read(prompt, answer) for prompt, answer in rows]
        found = torch.empty(len(tokens), self.features)
        for batch in group_by_length(tokens, self._batch_size):
            found[batch] = self._encode_batch([tokens[row] for row in batch])
        return found[torch.tensor([rows[text] for text in texts], dtype=torch.long)]

    def _encode_batch(self, batch: Sequence[Tokens]) -> Tensor:
        read = {name: table.to(self._network.device) for name, table in pad_batch(batch, self._pad).items()}
        with torch.no_grad():
            return extract_features(self._network(**read).last_hidden_state, batch).cpu()


def open_transformer(
    folder: Path,
    settings: RewardModelSettings,
    *,
    trust_remote_code: bool,
    allow_pickled_weights: bool,
    chat_template: bool,
) -> TransformerEncoder:
    """Open the model in a folder as an encoder that reads up to rm_max_length tokens, or up to its own limit."""
    from transformers import AutoConfig

    allowed = {"trust_remote_code": trust_remote_code, "allow_pickled_weights": allow_pickled_weights}
    check_model_folder(folder, "reward_model.rm_backbone", **allowed)
    tokenizer = load_tokenizer(folder, trust_remote_code)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    name, read = _choose_reader(folder, config, tokenizer, settings.rm_max_length, chat_template)
    network = _load_network(folder, config, **allowed)
    identity = f"{name}/{model_digest(folder)}"
    return TransformerEncoder(identity, network, read, tokenizer.pad_token_id or 0, settings.rm_encode_batch_size)


def _choose_reader(folder: Path, config: Any, tokenizer: Any, longest: int, chat_template: bool) -> tuple[str, _Read]:
    """Return the name of what this kind of model reads of a text, and the function that reads it."""
    if config.model_type == "deberta-v2" and {SOURCE, CANDIDATE} <= tokenizer.get_vocab().keys():
        # Its positions are relative: it reads what is longer than its max_position_embeddings, and was trained to.
        return f"pairrm/{longest}", partial(pairrm_tokens, tokenizer, longest=longest)
    longest = min(longest, _count_positions(config), tokenizer.model_max_length)
    if _is_causal(config):
        chat = chat_template and tokenizer.chat_template is not None
        name = f"causal-lm/{longest}/{'chat' if chat else 'plain'}"
        return name, partial(causal_tokens, tokenizer, longest=longest, chat_template=chat)
    _check_sentences(folder, config, tokenizer)
    segmented = getattr(config, "type_vocab_size", 0) > 1
    return f"sentences/{longest}", partial(sentence_tokens, tokenizer, longest=longest, segmented=segmented)


def _is_causal(config: Any) -> bool:
    """Return whether a model reads from left to right, whatever its head is: many reward models do."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if _names_causal_lm(config):
        return True
    # An architecture that can be both, such as BERT, is an encoder unless its configuration says otherwise.
    return config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys()


def _names_causal_lm(config: Any) -> bool:
    return any(name.endswith("ForCausalLM") for name in config.architectures or [])


def _count_positions(config: Any) -> int:
    """Return how many tokens a model has positions for; DeBERTa's positions are relative, without a limit."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    is_relative = not getattr(config, "position_biased_input", True)
    return sys.maxsize if positions is None or is_relative else int(positions)


def _check_sentences(folder: Path, config: Any, tokenizer: Any) -> None:
    if config.is_encoder_decoder:
        problem = f"{config.model_type} is an encoder with a decoder"
    elif not tokenizer.is_fast:
        problem = "its tokenizer does not tell prompt from answer (it has no tokenizer.json)"
    else:
        return
    raise ModelError(
        f"reward_model.rm_backbone={str(folder)!r}: {problem}; take PairRM-hf, a causal language model, or an encoder "
        "such as DeBERTa or BERT"
    )


def _load_network(folder: Path, config: Any, *, trust_remote_code: bool, allow_pickled_weights: bool) -> Any:
    """Load a model without its head, in float32, with dropout off; on the GPU if there is one."""
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # Causal models with code of their own often name only the class with the head.
    loader = AutoModelForCausalLM if _names_causal_lm(config) else AutoModel
    model, report = loader.from_pretrained(
        folder,
        dtype=torch.float32,
        trust_remote_code=trust_remote_code,
        use_safetensors=None if allow_pickled_weights else True,
        output_loading_info=True,
        key_mapping={r"^pretrained_model\.": ""},  # PairRM-hf calls its DeBERTa so
    )
    _check_loaded(folder, model, report["missing_keys"])
    network = model.base_model.eval()
    network.config.use_cache = False
    return network.to("cuda" if torch.cuda.is_available() else "cpu")


def _check_loaded(folder: Path, model: Any, missing: Sequence[str]) -> None:
    """Refuse a model with missing weights, which transformers would make up; heads and poolers are not used."""
    used = {name for name in model.base_model.state_dict() if "pooler" not in name}
    absent = sorted({name.removeprefix(f"{model.base_model_prefix}.") for name in missing} & used)
    if absent:
        raise ModelError(
            f"reward_model.rm_backbone={str(folder)!r}: {len(absent)} weights of {type(model).__name__} are not in it "
            f"({', '.join(absent[:3])} ...); copy the whole folder, or take a model that was saved by transformers"
        )
