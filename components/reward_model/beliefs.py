"""What the ensemble believes of answers: their features, and every member's reward of them.

K answers, D features, E members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .encoder import Encoder
from .fitting import Ensemble
from .network import compute_rewards
from .settings import RewardModelSettings

Text = tuple[str, str]
"""A prompt and an answer to it."""


def encode_texts(
    texts: Sequence[Text], open_encoder: Callable[[], Encoder], known: Mapping[Text, Tensor] | None = None
) -> Tensor:
    """Return the features of texts, (K, D).

    Args:
        texts: The texts; one that comes twice is encoded once.
        open_encoder: Loads the encoder. It is called only if a text is not known.
        known: Features that were computed before.
    """
    found = dict(known or {})
    new = [text for text in dict.fromkeys(texts) if text not in found]
    if new:
        found |= zip(new, open_encoder().encode(new), strict=True)
    return torch.stack([found[text] for text in texts])


def predict_rewards(ensemble: Ensemble, features: Tensor, settings: RewardModelSettings) -> Tensor:
    """Return every member's reward of each answer, (E, K), from the answers' features, (K, D)."""
    with torch.inference_mode():
        return compute_rewards(ensemble.weights, features, settings.rm_act_fn)
