"""Begin an experiment: check everything that it starts from, then write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ObjectNotFound
from ..ledger import layout
from ..ledger.ledger import Experiment, Head, Ledger
from ..model_folder import check_lora_targets, check_model_folder, model_digest
from ..oracles.oracle import Circumstances
from ..oracles.registry import ORACLES, open_oracle
from ..policy.settings import PolicySettings
from ..policy.starting_model import find_starting_model
from ..prompts.outside import load_outside
from ..prompts.source import drop_too_long, load_prompts
from ..prompts.template import load_tokenizer
from ..records.records import Prompt
from ..records.sealed import digest_of, seal_document
from ..store.proof import prove_conditional_writes
from ..store.setting_stores import SettingStores
from .experiment import ExperimentSettings, split_operational


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an experiment begins with, checked: prompts that fit, by split, and the starting model's digest."""

    prompts: Mapping[str, list[Prompt]]
    dropped: Mapping[str, int]
    starting_model: str


def has_begun(ledger: Ledger) -> bool:
    """Return whether the ledger has an experiment; HEAD is written last of what an experiment begins with."""
    try:
        ledger.head_etag  # noqa: B018 (a cached property: what is read here is not read again)
    except ObjectNotFound:
        return False
    return True


def check_inputs(settings: ExperimentSettings, stores: SettingStores | None = None) -> Inputs:
    """Load and check everything that the experiment starts from; writes nothing.

    `stores` opens what the settings name, ``s3://bucket/folder``.
    """
    if settings.policy.trainer == "scripted":
        tokenizer, digest = load_tokenizer(None), "scripted"
    else:
        folder = check_starting_model(settings.policy, stores)
        tokenizer, digest = load_tokenizer(folder, settings.policy.trust_remote_code), model_digest(folder)
    kept, dropped = {}, {}
    for split, most in (("train", settings.prompts.max_train), ("eval", settings.prompts.max_eval)):
        prompts = load_prompts(settings.prompts, split, stores)[:most]
        kept[split], dropped[split] = drop_too_long(prompts, tokenizer, settings.prompts)
    if settings.outside.outside_preferences:
        outside = load_outside(settings.outside, stores)
        kept["outside"], dropped["outside"] = drop_too_long(outside, tokenizer, settings.prompts)
    check_oracles(settings, stores)
    return Inputs(kept, dropped, digest)


def check_oracles(settings: ExperimentSettings, stores: SettingStores | None = None) -> None:
    """See that whoever is to be asked is there and can answer. Raises `RefusedInput`, by the setting's name."""
    for name, section in settings.oracles.items():
        if ORACLES[name].opens_anywhere:
            open_oracle(name, section, Circumstances(stores=stores or SettingStores())).check_ready()


def check_starting_model(policy: PolicySettings, stores: SettingStores | None = None) -> Path:
    """Return the folder of the starting model: whole, nothing in it that was not allowed, and fit to be trained."""
    allowed = {"trust_remote_code": policy.trust_remote_code, "allow_pickled_weights": policy.allow_pickled_weights}
    folder = find_starting_model(policy, stores)
    check_model_folder(folder, **allowed)
    if policy.lora_rank:
        check_lora_targets(folder, policy.lora_targets)
    return folder


def begin_experiment(ledger: Ledger, settings: ExperimentSettings, inputs: Inputs) -> None:
    """Write what an experiment begins with. Of two runs that begin it at once, one wins and both go on from that."""
    prove_conditional_writes(ledger.store)
    everything, _ = split_operational(settings)
    tables = {split: ledger.write_prompts(split, prompts) for split, prompts in inputs.prompts.items()}
    experiment = Experiment(everything, inputs.starting_model, tables, inputs.dropped)
    frozen = ledger.write_document(layout.EXPERIMENT, experiment.to_json())
    ledger.begin_head(Head(-1, digest_of(seal_document(frozen)), 0))
