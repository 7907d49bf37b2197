"""What the ensemble believes of a round's answers, before it learns from their duels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..ledger.ledger import Ledger
from ..ledger.plan import Plan
from ..ledger.step import Step
from ..model_folder import resolve_pretrain
from ..prompts.schedule import prompts_of_round
from ..prompts.settings import PromptSettings
from ..records.records import Candidate
from ..records.table import from_parquet
from ..seeds import derive
from ..starting_model import starting_folder, trusts_remote_code, unpickles_weights
from .checkpoint import features_from_bytes, features_to_bytes, from_bytes
from .encoder import Encoder, open_encoder
from .fitting import Ensemble, begin
from .network import rewards
from .settings import RewardModelSettings

FEATURES, ENSEMBLE = "features.safetensors", "ensemble.safetensors"
OUTSIDE_FEATURES = "outside_features.safetensors"
Text = tuple[str, str]
"""A prompt and an answer to it."""


def believed_rewards(ledger: Ledger, features: Tensor, ensemble: Ensemble) -> Tensor:
    """Return every member's reward of K answers, (E, K), from their features, (K, D)."""
    settings = ledger.section(RewardModelSettings, "reward_model")
    with torch.inference_mode():
        return rewards(ensemble.weights, features, settings.rm_act_fn)


def candidate_features(ledger: Ledger, step: Step, plan: Plan, candidates: Sequence[Candidate]) -> Tensor:
    """Return the candidates' features, (K, D), and leave them in the ledger. A text is encoded once in an experiment.

    What an earlier attempt of the step wrote, stands.
    """
    written = step.find_output(FEATURES)
    if written is None:
        prompts = {prompt.prompt_id: prompt.text for prompt in plan.prompts}
        texts = [(prompts[candidate.prompt_id], candidate.response) for candidate in candidates]
        known = known_features(ledger, step, plan.round, frozenset(texts))
        written = step.write_output(FEATURES, features_to_bytes(encode(ledger, texts, known)))
    return features_from_bytes(written)


def note_outside_features(ledger: Ledger, step: Step, plan: Plan) -> None:
    """Leave the features of the preferences from outside in the ledger, (2B, D): the better answers, then the worse."""
    if plan.outside and step.find_output(OUTSIDE_FEATURES) is None:
        texts = [(row.text, str(row.chosen)) for row in plan.outside]
        texts += [(row.text, str(row.rejected)) for row in plan.outside]
        step.write_output(OUTSIDE_FEATURES, features_to_bytes(encode(ledger, texts)))


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


def ensemble_before(ledger: Ledger, step: Step, round_: int, features: int) -> Ensemble:
    """Return the ensemble that stands when a round begins; before the first, its seeded initial weights."""
    if round_ == 0:
        settings = ledger.section(RewardModelSettings, "reward_model")
        return begin(settings, features, derive(ledger.seed, "reward model"))
    return from_bytes(step.read_output("reward_model", ENSEMBLE, round_=round_ - 1))


def ensemble_after(step: Step) -> Ensemble:
    """Return the ensemble that has learned from the step's round."""
    return from_bytes(step.read_output("reward_model", ENSEMBLE))


def known_features(ledger: Ledger, step: Step, round_: int, texts: frozenset[Text]) -> dict[Text, Tensor]:
    """Return the features of those texts that an earlier round has encoded: answers repeat where prompts do."""
    found: dict[Text, Tensor] = {}
    for earlier in _rounds_that_share_prompts(ledger, round_):
        prompts = {prompt.prompt_id: prompt.text for prompt in ledger.plan(earlier).prompts}
        data = step.read_output("sampling", "candidates.parquet", round_=earlier)
        candidates = from_parquet(data, Candidate, "candidates.parquet")
        features = features_from_bytes(step.read_output("sampling", FEATURES, round_=earlier))
        for candidate, row in zip(candidates, features, strict=True):
            text = (prompts[candidate.prompt_id], candidate.response)
            if text in texts:
                found[text] = row
    return found


def _rounds_that_share_prompts(ledger: Ledger, round_: int) -> Iterator[int]:
    """Walk earlier rounds with a prompt of this one, from the schedule alone: nothing is read for it."""
    size = ledger.section(PromptSettings, "prompts").rollout_batch_size
    count, seed = len(ledger.train_prompts()), derive(ledger.seed, "prompts")
    here = set(prompts_of_round(count, round_, size, seed))
    for earlier in range(round_):
        if here.intersection(prompts_of_round(count, earlier, size, seed)):
            yield earlier
