"""What a round's training reads: its pairs out of the ledger, and the policy that it goes on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..ledger.ledger import Ledger
from ..ledger.plan import Plan
from ..prompts.settings import PromptSettings
from ..prompts.template import encode_prompt
from ..records.records import Candidate, Duel, Preference
from ..records.table import from_parquet
from .tokens import Pair, make_pairs

Read = Callable[[str, str], bytes]
"""Reads one output of this round: room, name."""


def read_pairs(ledger: Ledger, plan: Plan, read: Read, tokenizer: Any, longest: int | None) -> tuple[list[Pair], int]:
    """Return the round's pairs, and how many duels were clashes, from which nothing can be learned."""
    duels = from_parquet(read("sampling", "duels.parquet"), Duel, "duels.parquet")
    candidates = from_parquet(read("sampling", "candidates.parquet"), Candidate, "candidates.parquet")
    preferences = [row for part in parts(ledger, plan.round) for row in _preferences(read, part)]
    chat = ledger.section(PromptSettings, "prompts").apply_chat_template
    prompts = {prompt.prompt_id: encode_prompt(tokenizer, prompt.text, chat) for prompt in plan.prompts}
    clashes = sum(preference.clash for preference in preferences)
    return make_pairs(preferences, duels, candidates, prompts, longest), clashes


def parts(ledger: Ledger, round_: int) -> list[str]:
    """Name the round's tables of preferences, in their order."""
    done = ledger.done(round_, "labeling")
    return sorted(placed.name for placed in done.outputs if placed.name.startswith("preferences")) if done else []


def load_model(folder: Path) -> Any:
    """Load a causal language model in float32, with dropout off."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()


def _preferences(read: Read, part: str) -> list[Preference]:
    return from_parquet(read("labeling", part), Preference, part)
