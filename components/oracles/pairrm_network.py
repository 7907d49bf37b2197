"""PairRM by llm-blender 0.0.2, which is what reads and compares here; how it gets along with today's transformers.

Unlike its own loader, this one unpickles nothing, and does not fetch the encoder that the training began with only to
overwrite it. And a comparison is the same whatever else is asked: each question is cut to length alone, and none can
spell the markers that the network looks for. R rows, S tokens of the prompt, C tokens of a response.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import ModelError, SettingsError
from .local_model import explained_pass, load_tokenizer, require_finite
from .pairrm_folder import PairRMFolder

Question = tuple[str, str, str]
"""Prompt, response that is shown first, response that is shown second."""


class PairRM:
    """A loaded ranker, in float32 on every device, so that the device does not decide."""

    def __init__(self, found: PairRMFolder, batch_size: int):
        self._ranker, self._collate = _load_ranker(found)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._ranker.to(self._device)
        self._batch_size = batch_size

    def compute_logits(self, questions: Sequence[Question]) -> list[float]:
        """Return the log-odds that the response shown first is better, for each question."""
        rows = [self._encode_question(question) for question in questions]
        found = [0.0] * len(rows)
        by_length = sorted(range(len(rows)), key=lambda place: -_count_tokens(rows[place]))
        for start in range(0, len(rows), self._batch_size):
            batch = by_length[start : start + self._batch_size]
            for place, logit in zip(batch, self._compare_rows([rows[place] for place in batch]), strict=True):
                found[place] = logit
        return found

    def _encode_question(self, question: Question) -> list[Tensor]:
        """Encode one question as llm-blender does: ids and mask of the prompt, (S,), and of each response, (C,)."""
        prompt, first, second = question
        read = self._collate([{"source": prompt, "candidates": [first, second]}])
        row = [read["source_ids"][0], read["source_attention_mask"][0]]
        for side in (0, 1):
            row += [read["candidate_ids"][0, side], read["candidate_attention_mask"][0, side]]
        for ids, mask in zip(row[::2], row[1::2], strict=True):
            self._hide_markers(ids, mask)
        return row

    def _hide_markers(self, ids: Tensor, mask: Tensor) -> None:
        """Replace markers that a text itself contains, between the first two tokens and the last, by the unknown token.

        The network reads its states at the markers. With too many markers, it would mix this row with others.
        """
        tokenizer = self._collate.tokenizer
        names = ("source_prefix_id", "cand_prefix_id", "cand1_prefix_id", "cand2_prefix_id", "sep_token_id")
        ours = [getattr(tokenizer, name) for name in names]
        text = ids[2 : int(mask.sum()) - 1]
        text[torch.isin(text, torch.tensor(ours))] = tokenizer.unk_token_id

    def _compare_rows(self, rows: Sequence[list[Tensor]]) -> list[float]:
        columns = [_stack_rows(column).to(self._device) for column in zip(*rows, strict=True)]
        with explained_pass("pairrm_batch_size", f"{len(rows)} comparisons", "lower it"):
            logits: list[float] = self._ranker._forward(*columns)["logits"].float().tolist()
        require_finite(logits, "pairrm: a comparison", "the weights are damaged, fetch them again")
        return logits


def _stack_rows(column: Sequence[Tensor]) -> Tensor:
    """Pad rows with masked tokens; the ranker moves them to the end."""
    width = max(len(row) for row in column)
    return torch.stack([pad(row, (0, width - len(row))) for row in column])


def _count_tokens(row: Sequence[Tensor]) -> int:
    return sum(len(ids) for ids in row[::2])


def _load_ranker(found: PairRMFolder) -> tuple[Any, Any]:
    """Return llm-blender's ranker with its weights, and its collator."""
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel

    reranker, collator, ranker_config = _import_llm_blender()
    known = {field.name for field in fields(ranker_config)}
    settings = ranker_config(**{name: value for name, value in found.ranker.items() if name in known})
    weights = {name: weight for path in found.folder.glob("*.safetensors") for name, weight in load_file(path).items()}
    tokenizer = load_tokenizer(found.folder, "pairrm_model")
    # transformers 5 has only one name for this.
    tokenizer.batch_encode_plus = tokenizer.__call__
    collate = collator(settings.source_maxlength, tokenizer, settings.candidate_maxlength)
    words = weights.get("pretrained_model.embeddings.word_embeddings.weight", torch.empty(0))
    _check_words(found, tokenizer, len(words))
    config = AutoConfig.from_pretrained(found.encoder_config.parent)
    # The markers were added to the tokenizer, and rows for them, when the training began.
    config.vocab_size, config.out_hidden_state_size = len(words), config.hidden_size
    ranker = reranker(AutoModel.from_config(config, dtype=torch.float32), settings, tokenizer)
    _fill_weights(found, ranker, weights)
    return ranker.float().eval(), collate


def _check_words(found: PairRMFolder, tokenizer: Any, size: int) -> None:
    if len(tokenizer) > size:
        raise ModelError(
            f"{found.folder}: its tokenizer with PairRM's markers has {len(tokenizer)} tokens, and its weights know "
            f"{size}; take llm-blender/PairRM-hf"
        )


def _fill_weights(found: PairRMFolder, ranker: Any, weights: dict[str, Tensor]) -> None:
    report = ranker.load_state_dict(weights, strict=False)
    # A table of numbers in their order, which older versions of transformers saved.
    unknown = [name for name in report.unexpected_keys if not name.endswith("position_ids")]
    if report.missing_keys or unknown:
        raise ModelError(
            f"{found.folder}: not the weights of a PairRM; missing: {', '.join(report.missing_keys[:3]) or 'none'}; "
            f"unknown: {', '.join(unknown[:3]) or 'none'}; take llm-blender/PairRM-hf"
        )


def _import_llm_blender() -> tuple[Any, Any, Any]:
    """Import llm-blender's ranker, its collator and its settings."""
    from transformers.utils import hub

    # llm-blender imports a constant, never used here, that transformers 5 has not; and it imports vLLM where there is
    # one, only to know that.
    if not hasattr(hub, "TRANSFORMERS_CACHE"):
        hub.TRANSFORMERS_CACHE = ""
    hidden = "vllm" not in sys.modules
    if hidden:
        sys.modules["vllm"] = None  # type: ignore[assignment]
    try:
        from llm_blender.pair_ranker.collator import CrossCompareCollator
        from llm_blender.pair_ranker.config import RankerConfig
        from llm_blender.pair_ranker.ranker import CrossCompareReranker
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"preference_oracle='pairrm': llm-blender cannot be imported here ({error}); run the step in the oracle "
            "image, or install it: pip install dataclasses-json && pip install --no-deps llm-blender==0.0.2"
        ) from error
    finally:
        if hidden:
            del sys.modules["vllm"]
    return CrossCompareReranker, CrossCompareCollator, RankerConfig
