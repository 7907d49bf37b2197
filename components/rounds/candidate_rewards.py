"""What the reward model believes of a round's candidates, before it learns from their duels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..records.keep import StepOutputs, keep_bytes
from ..records.records import Candidate
from ..records.tables import FEATURES, OUTSIDE_FEATURES
from . import history
from .inputs import Round, Tools

if TYPE_CHECKING:
    from torch import Tensor


def predict_rewards(given: Round, tools: Tools, kept: StepOutputs, candidates: Sequence[Candidate]) -> Tensor:
    """Return every member's reward of each candidate, (E, K), from the features that are kept with the candidates."""
    from ..reward_model import beliefs, checkpoint

    def encode() -> bytes:
        prompts = {prompt.prompt_id: prompt.text for prompt in given.plan.prompts}
        texts = [(prompts[candidate.prompt_id], candidate.response) for candidate in candidates]
        known = history.known_features(given, kept, frozenset(texts))
        return checkpoint.features_to_bytes(beliefs.encode_texts(texts, tools.open_encoder, known))

    def encode_outside() -> bytes:
        texts = [(row.text, str(row.chosen)) for row in given.plan.outside]
        texts += [(row.text, str(row.rejected)) for row in given.plan.outside]
        return checkpoint.features_to_bytes(beliefs.encode_texts(texts, tools.open_encoder))

    features = checkpoint.features_from_bytes(keep_bytes(kept, FEATURES.name, encode))
    if given.plan.outside:
        keep_bytes(kept, OUTSIDE_FEATURES.name, encode_outside)
    ensemble = history.ensemble_before(given, kept, features.shape[1])
    return beliefs.predict_rewards(ensemble, features, given.settings.reward_model)


def recall_rewards(given: Round, kept: StepOutputs) -> list[float] | None:
    """Return the members' mean reward of each candidate of the round, as when its duels were picked, or None."""
    if FEATURES.name not in kept.list_outputs(FEATURES.step, given.number):
        return None
    from ..reward_model import beliefs, checkpoint

    features = checkpoint.features_from_bytes(kept.read_output(FEATURES.step, FEATURES.name, given.number))
    ensemble = history.ensemble_before(given, kept, features.shape[1])
    return [float(value) for value in beliefs.predict_rewards(ensemble, features, given.settings.reward_model).mean(0)]
