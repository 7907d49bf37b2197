"""Preferences made elsewhere: read like a preference set, and learned from beside the experiment's own."""

from __future__ import annotations

from ..errors import PromptError
from ..records.records import Prompt
from ..store.setting_stores import SettingStores
from .settings import OutsideSettings, PromptSettings
from .source import load_prompts

_NAMES = {
    "prompt_data=": "outside.outside_preferences=",
    "prompts.input_key=": "outside.outside_prompt_key=",
    "prompts.chosen_key=": "outside.outside_chosen_key=",
    "prompts.rejected_key=": "outside.outside_rejected_key=",
}
"""What the settings of a prompt set are called here."""


def load_outside(settings: OutsideSettings, stores: SettingStores | None = None) -> list[Prompt]:
    """Load all preferences of the set, in its order; none where no set is given. Raises `PromptError`."""
    if not settings.outside_preferences:
        return []
    as_prompts = PromptSettings(
        prompt_data=settings.outside_preferences, train_split=settings.outside_split,
        input_key=settings.outside_prompt_key, chosen_key=settings.outside_chosen_key,
        rejected_key=settings.outside_rejected_key,
    )  # fmt: skip
    try:
        return load_prompts(as_prompts, "train", stores, "outside.outside_preferences")
    except PromptError as error:
        raise PromptError(_in_our_names(str(error))) from error


def _in_our_names(letter: str) -> str:
    for theirs, ours in _NAMES.items():
        letter = letter.replace(theirs, ours)
    return letter
