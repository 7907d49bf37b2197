"""Log-probabilities of completions.  K predicted tokens, S completions, V vocabulary.

Logits are the largest tensor of preference learning. They are made only where a completion's token is predicted, and
are brought to float32 a few rows at a time: what lives from the forward pass to the backward pass is the logits in the
format in which the model made them, and one number a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# 256 rows of a vocabulary of 50,000 are 50 MB in float32.
ROWS_AT_ONCE = 256


def token_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the log-probability of each label, log softmax(logits)[label].

    logits: (K, V) in any floating format; labels: (K,). Returns (K,) in float32, or float64 if that was given.
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} must be (K, V) and (K,)")
    logprobs: Tensor = _TokenLogprobs.apply(logits, labels)
    return logprobs


def minus_entropy(logits: Tensor) -> Tensor:
    """Return the sum over the vocabulary of p log p in each row, without a gradient. logits: (K, V). Returns (K,)."""
    exact = torch.promote_types(logits.dtype, torch.float32)
    found = torch.empty(len(logits), dtype=exact, device=logits.device)
    with torch.no_grad():
        for part in _cut_parts(len(logits)):
            logprobs = logits[part].to(exact).log_softmax(1)
            # Where p underflows to zero, p log p is zero too, and not the product of zero and minus infinity.
            found[part] = torch.special.entr(logprobs.exp()).sum(1).neg_()
    return found


def sum_by_completion(logprobs: Tensor, completion: Tensor, completions: int) -> Tensor:
    """Add up tokens to completions. logprobs, completion: (K,), the latter in [0, S). Returns (S,)."""
    return logprobs.new_zeros(completions).index_add(0, completion, logprobs)


@contextmanager
def logits_only_at(model: Any, row: Tensor, column: Tensor) -> Iterator[None]:
    """Let the model compute logits at these positions alone: its logits become (K, V) instead of (R, T, V).

    The choice is made before the output layer, so that whatever a model does to its logits it still does.
    """

    def choose_places(_: Any, hidden: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (hidden[0][row, column],)

    hook = model.get_output_embeddings().register_forward_pre_hook(choose_places)
    try:
        yield
    finally:
        hook.remove()


class _TokenLogprobs(torch.autograd.Function):  # type: ignore[misc]
    """Gather minus log-sum-exp; its gradient at the logits is one-hot minus softmax."""

    @staticmethod
    def forward(context: Any, logits: Tensor, labels: Tensor) -> Tensor:
        exact = torch.promote_types(logits.dtype, torch.float32)
        normaliser = torch.empty(len(labels), dtype=exact, device=logits.device)
        for part in _cut_parts(len(labels)):
            normaliser[part] = logits[part].to(exact).logsumexp(1)
        context.save_for_backward(logits, labels, normaliser)
        return logits.gather(1, labels[:, None])[:, 0].to(exact) - normaliser

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (upstream,) = gradients
        logits, labels, normaliser = context.saved_tensors
        gradient = torch.empty_like(logits)
        for part in _cut_parts(len(labels)):
            rows = (logits[part].to(normaliser.dtype) - normaliser[part, None]).exp_()
            rows.mul_(-upstream[part, None])
            rows.scatter_add_(1, labels[part, None], upstream[part, None])
            gradient[part] = rows
        return gradient, None


def _cut_parts(length: int) -> list[slice]:
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, length, ROWS_AT_ONCE)]
