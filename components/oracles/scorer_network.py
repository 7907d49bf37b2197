"""Scores conversations with a reward model of transformers.

A conversation is a prompt and a response, as the model's own chat template writes them. A conversation that is too long
loses its beginning. A score depends on its conversation alone: neither on the rest of the batch nor on the padding.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ..errors import ModelError
from ..model_folder import model_digest, short_name
from ..records.sealed import digest_of, seal_document
from ..store.setting_stores import SettingStores
from .local_model import explained_pass, load_tokenizer, require_finite
from .scorer_folder import find_scorer
from .settings import ScorerSettings

Tokens = tuple[int, ...]


def open_scorer(settings: ScorerSettings, stores: SettingStores | None = None) -> Scorer:
    """Open the reward model that the settings name; `stores` opens an ``s3://`` address."""
    return Scorer(
        settings.scorer_model,
        dtype=settings.scorer_dtype,
        max_length=settings.scorer_max_length,
        batch_tokens=settings.scorer_batch_tokens,
        trust_remote_code=settings.scorer_trust_remote_code,
        stores=stores,
    )


class Scorer:
    """A loaded reward model.

    Attributes:
        identity: The model's name, with a digest of its files, its number format and the longest conversation it reads.

    Raises:
        ModelError: The folder holds no reward model, or one that the settings do not allow.
    """

    def __init__(
        self,
        model: str,
        dtype: str = "float32",
        max_length: int = 4096,
        batch_tokens: int = 8192,
        trust_remote_code: bool = False,
        device: str | None = None,
        stores: SettingStores | None = None,
    ):
        folder = find_scorer(model, trust_remote_code, stores)
        self._model, self._batch_tokens = model, batch_tokens
        self._tokenizer = load_tokenizer(folder, "scorer_model", trust_remote_code)
        self.network = _load_network(model, str(folder), dtype, trust_remote_code, device)
        self._own_padding = _own_padding(self.network.config)
        self._longest = min(max_length, _count_positions(self.network.config), self._tokenizer.model_max_length)
        what = {"files": model_digest(folder), "dtype": dtype, "longest": self._longest}
        self.identity = f"{short_name(model)}@{digest_of(seal_document(what))[:12]}"

    def score_texts(self, conversations: Sequence[tuple[str, str]]) -> list[float]:
        """Return the score of each prompt and response, in their order; equal ones are scored once."""
        rows = {conversation: row for row, conversation in enumerate(dict.fromkeys(conversations))}
        tokens = [self._encode_conversation(prompt, response) for prompt, response in rows]
        found = [0.0] * len(tokens)
        for batch in group_by_length([len(each) for each in tokens], self._batch_tokens):
            for row, score in zip(batch, self._score_batch([tokens[row] for row in batch]), strict=True):
                found[row] = score
        return [found[rows[conversation]] for conversation in conversations]

    def _encode_conversation(self, prompt: str, response: str) -> Tokens:
        """Encode a conversation as the template writes it, without a second beginning-of-sequence token."""
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        return tuple(self._tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"])[-self._longest :]

    def _score_batch(self, batch: Sequence[Tokens]) -> list[float]:
        import torch

        pad = self._choose_padding(batch)
        width = max(map(len, batch))
        ids = torch.tensor([[*tokens, *[pad] * (width - len(tokens))] for tokens in batch])
        mask = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in batch])
        device, what = self.network.device, f"{len(batch)} conversations of up to {width} tokens"
        with explained_pass("scorer_batch_tokens", what, "lower it, or scorer_max_length"):
            output = self.network(input_ids=ids.to(device), attention_mask=mask.to(device))
        return self._check_scores(output, len(batch))

    def _choose_padding(self, batch: Sequence[Tokens]) -> int:
        """Return the padding token: the model's own, or else a token that occurs in no conversation of the batch.

        A head that reads the last token finds it by skipping padding. The end-of-sequence token, the usual substitute,
        is often that last token itself, which would then be skipped.
        """
        if self._own_padding is not None:
            return self._own_padding
        used = set().union(*batch)
        pad = next(token for token in range(len(used) + 1) if token not in used)
        self.network.config.pad_token_id = self.network.config.get_text_config().pad_token_id = pad
        return pad

    def _check_scores(self, output: Any, size: int) -> list[float]:
        """Read one number for each conversation: `score` of heads that name it so, or else the only logit."""
        read = getattr(output, "score", None)
        read = output.logits if read is None else read
        if tuple(read.shape) not in ((size,), (size, 1)):
            raise ModelError(
                f"scorer_model={self._model!r}: {type(self.network).__name__} returns {tuple(read.shape)} for {size} "
                "conversations; a score is one number for each"
            )
        scores: list[float] = read.reshape(size).float().tolist()
        what = f"scorer_model={self._model!r}: a score"
        require_finite(scores, what, "try the other scorer_dtype, float32 or bfloat16")
        return scores


def group_by_length(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Return the indices of each batch: similar lengths together, longest first, at most so many padded tokens.

    A sequence that is longer than `most` gets a batch of its own.
    """
    found: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if found and lengths[found[-1][0]] * (len(found[-1]) + 1) <= most:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def _load_network(model: str, folder: str, dtype: str, trust_remote_code: bool, device: str | None) -> Any:
    """Load a network with its head, without dropout, onto the GPU if there is one."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    network, report = AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        trust_remote_code=trust_remote_code,
        use_safetensors=True,
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"scorer_model={model!r}: {len(missing)} weights of {type(network).__name__} are not in it "
            f"({', '.join(missing[:3])}), and random ones would score at random; copy the whole folder"
        )
    network.config.use_cache = False
    return network.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _count_positions(config: Any) -> int:
    """Return how many tokens a model has positions for; unlimited for relative positions such as DeBERTa's."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    is_relative = not getattr(config, "position_biased_input", True)
    return sys.maxsize if positions is None or is_relative else int(positions)


def _own_padding(config: Any) -> int | None:
    """Return the padding token that the model was trained with, or None; some configurations write -1 for none."""
    text = config.get_text_config()
    return text.pad_token_id if text.pad_token_id in range(text.vocab_size) else None
