"""The model card of an exported policy: what it is made of, and what was measured. Reads the ledger only.

A card goes where its model goes: it names no folder, no store, no address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.prompts.source import SUFFIXES
from oatflow.components.reporting.curves import RoundRow, read_rounds
from oatflow.components.reporting.report import OPPONENTS
from oatflow.components.reporting.words import count, interval, percent
from oatflow.components.rounds.experiment import ExperimentSettings

SAMPLING = ("num_samples", "temperature", "top_p", "generate_max_length")
TRAINING = (
    "learning_rate", "lr_scheduler", "train_batch_size", "max_epochs", "max_sgd_steps", "l2", "max_norm",
    "loss_reduction", "eos_overwrite", "sync_params_every", "pi_buffer_maxlen",
)  # fmt: skip
ADAPTER = ("lora_rank", "lora_alpha", "lora_targets")
ENSEMBLE = ("num_ensemble", "rm_hidden_dim", "enn_lambda", "rm_lr", "rm_sgd_steps", "rm_batch_size")
EXPLORATION = ("objective", "exp_method", "on_clash")
SYNTHETIC = ("max_model_data_ratio", "burn_in_period", "pure_model_based", "model_data_label")
_HUB = re.compile(r"([\w@][\w.@-]*/)?[\w][\w.-]*")
_JUDGE = re.compile(r"(judge/.*)@[^/@]+((?:/[^/]+){3})")
_USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```

or `vllm serve FOLDER`."""
_USE_ADAPTER = """This is the adapter alone; it belongs on the starting model, and on no other.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(starting_model), folder)
```"""
_CODE = """

The starting model brought code of its own, which is in this folder: read it, then load with `trust_remote_code`."""

_DIGESTS = "SHA-256; the policy's is that of its files in the ledger, in float32 and with any adapter merged."


@dataclass(frozen=True, slots=True)
class Form:
    """How a policy was written: the number format of its weights, the adapter alone or all of it, code along or not."""

    dtype: str
    adapter: bool
    brings_code: bool


def model_card(ledger: Ledger, round_: int, form: Form) -> str:
    """Return the card of a finished round's policy, as Markdown with the front matter of Hugging Face."""
    settings = ExperimentSettings.parse(ledger.experiment.settings)
    rows, name = read_rounds(ledger)[: round_ + 1], ledger.name
    row = rows[-1]
    parts = [
        f"---\n{yaml.safe_dump(front_matter(ledger, settings, form), sort_keys=False, allow_unicode=True)}---",
        f"# {name}, round {round_}",
        f"{base_model(ledger)}, aligned with preferences: the policy that round {round_} of the experiment `{name}` "
        "made. By oatflow, after [Sample-Efficient Alignment for LLMs](https://arxiv.org/abs/2411.01493).",
        _format_table([*list_facts(ledger, settings, row, form), *list_explored(settings, rows)]),
        f"## Use\n\n{_USE_ADAPTER if form.adapter else _USE}{_CODE * form.brings_code}",
        "## Settings\n\n" + _format_table(list_chosen(settings)),
        f"## Digests\n\n{_DIGESTS}\n\n" + _format_table(list_digests(ledger, row)),
        "## Software\n\nWhat worked on the round:\n\n" + _format_table(software(ledger, round_).items()),
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(ledger: Ledger, settings: ExperimentSettings, form: Form) -> dict[str, Any]:
    """Return what Hugging Face reads of a card."""
    base = base_model(ledger)
    return {
        **({"base_model": base} if _HUB.fullmatch(base) else {}),
        "base_model_relation": "adapter" if form.adapter else "finetune",
        "library_name": "peft" if form.adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["oatflow", "alignment", settings.policy.dap_algo, *(["lora"] * bool(settings.policy.lora_rank))],
    }


def base_model(ledger: Ledger) -> str:
    """Return the starting model's name."""
    return public_name(str(ledger.experiment.settings["policy"]["pretrain"]))


def public_name(name: str) -> str:
    """Return the name of a model or a prompt set: as on the hub, or else the last part of where it lies."""
    if _HUB.fullmatch(name) and not name.endswith(SUFFIXES) and not Path(name).exists():
        return name
    where = urlsplit(name)
    return PurePosixPath(where.path).name or where.netloc


def list_facts(ledger: Ledger, settings: ExperimentSettings, row: RoundRow, form: Form) -> list[tuple[str, str]]:
    """Return what the policy is and what was measured of it."""
    train, held_out = (count(len(prompts)) for prompts in (ledger.train_prompts(), ledger.eval_prompts()))
    turn = "one turn of the chat template" if settings.prompts.apply_chat_template else "plain text"
    offline = settings.prompts.offline
    oracle = (
        "none: the preferences came with the prompts" if offline else _describe_oracle(ledger, row.round, "labeling")
    )
    return [
        ("Round", f"{row.round} of rounds 0 to {ledger.read_head().round}"),
        ("Starting model", base_model(ledger)),
        ("Prompts", f"{public_name(settings.prompts.prompt_data)}: {train} to learn from, {held_out} held out; {turn}"),
        ("Oracle", oracle),
        ("Learned from", row.unit.said(row.learned_from) + ("" if offline else ", those of evaluation not counted")),
        ("Win rate", _win_rate(ledger, settings, row)),
        *([("Held-out accuracy", _held_out_accuracy(row))] if offline else []),
        ("Weights", form.dtype if form.dtype == "float32" else f"{form.dtype}, converted from float32"),
    ]


def list_explored(settings: ExperimentSettings, rows: Sequence[RoundRow]) -> list[tuple[str, str]]:
    """Return what picked the duels and what it believed, where that was not blind; and how many labels were its own."""
    if not settings.learns_rewards and settings.exploration.strategy.is_blind:
        return []
    pairs = sum(row.duels or 0 for row in rows)
    synthetic = sum(row.explored.synthetic or 0 for row in rows)
    return [
        ("Duels picked by", settings.exploration.exp_method),
        *([("Reward model", _reward_model(settings))] if settings.learns_rewards else []),
        *([("Synthetic pairs", _describe_synthetic(settings, synthetic, pairs))] if synthetic else []),
    ]


def list_chosen(settings: ExperimentSettings) -> list[tuple[str, str]]:
    """Return the settings that made the policy what it is: those that its loss reads, and none that it ignores."""
    policy = settings.policy
    adapter = [("Adapter", _name_model(policy, ADAPTER))] if policy.lora_rank else []
    sampling = [] if settings.prompts.offline else [("Candidates", _name_model(settings.sampling, SAMPLING))]
    rollout = SYNTHETIC if settings.exploration.model_rollout else ()
    exploration = [("Exploration", _name_model(settings.exploration, [*EXPLORATION, *rollout]))]
    ensemble = [("Ensemble", _name_model(settings.reward_model, ENSEMBLE))] if settings.learns_rewards else []
    return [
        ("Loss", _name_model(policy, ["dap_algo", *sorted(policy.loss.reads)])),
        ("Training", _name_model(policy, TRAINING)),
        *adapter,
        *sampling,
        *([] if settings.prompts.offline else exploration),
        *ensemble,
        ("Seed", str(settings.ledger.seed)),
    ]


def list_digests(ledger: Ledger, row: RoundRow) -> list[tuple[str, str]]:
    """Return what the policy can be told by, and what it came from."""
    prompts = ledger.experiment.prompts
    return [
        ("Policy", row.policy),
        ("Starting model", ledger.experiment.starting_model),
        ("Round record", row.digest),
        ("Prompts to learn from", prompts["train"].sha256),
        ("Held-out prompts", prompts["eval"].sha256),
    ]


def software(ledger: Ledger, round_: int) -> dict[str, str]:
    """Return the versions that worked on a round, by package."""
    marks = (ledger.find_done(round_, room) for room in ledger.read_plan(round_).rooms)
    found = {name: version for mark in marks if mark for name, version in mark.software.items()}
    return dict(sorted(found.items()))


def _reward_model(settings: ExperimentSettings) -> str:
    backbone = settings.reward_model.rm_backbone
    encoder = public_name(backbone) if backbone else "the starting model"
    return f"{settings.reward_model.num_ensemble} members on features of {encoder}; not part of this folder"


def _describe_synthetic(settings: ExperimentSettings, synthetic: int, pairs: int) -> str:
    by = "the oracle" if settings.exploration.model_data_label == "oracle" else "members of the reward model"
    return f"{count(synthetic)} of {count(pairs)} pairs ({percent(synthetic / pairs)}), labelled by {by}"


def _win_rate(ledger: Ledger, settings: ExperimentSettings, row: RoundRow) -> str:
    if row.win_rate is None:
        return "not measured in this round"
    best = settings.evaluation.num_bon
    answers = f" with the best of {best} answers in the eyes of the reward model" if best > 1 else ""
    return (
        f"{percent(row.win_rate)}{answers}, 95% interval {interval(row.low, row.high)}, on {count(row.held_out)} "
        f"held-out prompts against {OPPONENTS[settings.evaluation.opponent]}, judged by "
        f"{_describe_oracle(ledger, row.round, 'evaluation')}"
    )


def _held_out_accuracy(row: RoundRow) -> str:
    """Say how often the policy ranks held-out preferences as the set does."""
    if row.held_out_accuracy is None or row.held_out_interval is None:
        return "not measured in this round"
    between = interval(*row.held_out_interval)
    return f"{percent(row.held_out_accuracy)}, 95% interval {between}, on {count(row.held_out_pairs)} preferences"


def _describe_oracle(ledger: Ledger, round_: int, room: str) -> str:
    """Return the identity of who was asked in a step, without its host."""
    done = ledger.find_done(round_, room)
    if done is None or "oracle" not in done.facts:
        return "unknown: the step did not record it"
    return hide_host(str(done.facts["oracle"]))


def hide_host(identity: str) -> str:
    """Return an oracle's identity without the host of a judge or of a service, which is nobody else's business."""
    if identity.startswith("remote/oat/"):
        return "remote/oat"
    return _JUDGE.sub(r"\1\2", identity)


def _name_model(section: Any, names: Sequence[str]) -> str:
    return ", ".join(f"{name}={getattr(section, name)}" for name in names)


def _format_table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(_format_row(name, value) for name, value in rows)])


def _format_row(name: str, value: str) -> str:
    return "| {} | {} |".format(name, value.replace("|", r"\|"))
