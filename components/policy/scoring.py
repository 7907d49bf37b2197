"""What a model thinks of completions: the log-probability of each of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .logprobs import logits_only_at, minus_entropy, sum_by_completion, token_logprobs
from .objective import Completions
from .rows import Rows, lay_out
from .tokens import Pair

_PROBE_TOLERANCE = 1e-3


def score_completions(
    model: Any, rows: Rows, reference: Tensor | None = None, with_entropy: bool = False
) -> Completions:
    """Return the log-probability of every token of the rows' completions.

    Args:
        model: A causal language model.
        rows: What it reads.
        reference: (K,) the reference's log-probabilities of the same tokens, where the loss needs them.
        with_entropy: Whether the entropy at every token is computed too.
    """
    with logits_only_at(model, rows.row, rows.column):
        logits = model(
            input_ids=rows.tokens, attention_mask=rows.sees, position_ids=rows.positions, use_cache=False
        ).logits
    logprobs = token_logprobs(logits, rows.label)
    under_reference = None if reference is None else reference.to(logprobs)
    return Completions(rows.completion, logprobs, under_reference, minus_entropy(logits) if with_entropy else None)


def sum_logprobs(model: Any, rows: Rows) -> Tensor:
    """Return the log-probability of each completion, (S,): for B pairs all chosen, then all rejected."""
    scored = score_completions(model, rows)
    return sum_by_completion(scored.logprobs, rows.completion, rows.completions)


def fits_one_row(model: Any, pairs: Sequence[Pair], pad: int) -> bool:
    """Return whether this model computes a pair in one row exactly as in two rows, by its attention mask.

    A recurrent state or a sliding window ignores such a mask. Where the configuration does not say so, a short probe
    is computed both ways.
    """
    if not pairs or model.config._attn_implementation != "sdpa" or getattr(model, "_is_stateful", False):
        return False
    windows = [getattr(model.config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if any(window is not None and window < max(pair.length for pair in pairs) for window in windows):
        return False
    # Made long enough to show a difference, whatever the pairs are: the second completion must have been moved.
    some = (pairs[0].prompt + pairs[0].chosen + pairs[0].rejected) * 8
    probe = Pair("probe", some[:8], some[1:5], some[2:6])
    device = next(model.parameters()).device
    with torch.no_grad():
        one, two = (sum_logprobs(model, lay_out([probe], pad, one_row).move_to(device)) for one_row in (True, False))
    return bool((one - two).abs().max() < _PROBE_TOLERANCE)
