"""Settings of the prompts room."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ..settings import Section


class PromptSettings(Section):
    """Where prompts come from, and how many make a round; offline, their better and worse answers come with them."""

    prompt_data: str = ""
    """Prompt set: a .jsonl or .parquet file, a folder with train/test files, s3://bucket/key (on the ledger's
    server, unless it ends in ?endpoint=URL), or a hub data set (name or config@name)."""
    eval_data: str | None = None
    """Prompt set for evaluation, if it is not the test split of prompt_data; named as prompt_data is."""
    train_split: str = "train"
    """Split that rounds learn from."""
    eval_split: str = "test"
    """Split that is held out for evaluation."""
    input_key: str = "prompt"
    """Column that holds the prompt."""
    output_key: str | None = None
    """Column that holds a reference answer, where there is one."""
    chosen_key: str | None = None
    """Column that holds the better of two answers, as text or as chat messages. With rejected_key the experiment is
    offline: it learns from these preferences; nothing is sampled to learn from, and no oracle is asked for labels."""
    rejected_key: str | None = None
    """Column that holds the worse of the two answers."""
    apply_chat_template: bool = True
    """Wrap each prompt as one user turn of the tokenizer's chat template; off for plain text."""
    prompt_max_length: int = Field(1024, ge=1)
    """Longest prompt in tokens, template included; longer ones are dropped, counted and reported."""
    max_train: int | None = Field(None, ge=1)
    """Use only the first so many training prompts."""
    max_eval: int = Field(1000, ge=1)
    """Use only the first so many held-out prompts."""
    rollout_batch_size: int = Field(128, ge=1)
    """Prompts in one round."""

    @property
    def offline(self) -> bool:
        """Whether rounds learn from the preferences in the prompt set."""
        return self.chosen_key is not None


class OutsideSettings(Section):
    """Preferences made elsewhere, from which every round learns beside its own. No query is spent on them."""

    outside_preferences: str = ""
    """Set of preferences that join every round's training: a .jsonl or .parquet file, a folder, s3://bucket/key
    (on the ledger's server, unless it ends in ?endpoint=URL), or a hub data set (name or config@name). What
    `oatflow export-preferences` writes is one."""
    outside_batch_size: int | None = Field(None, ge=1)
    """Outside preferences in one round, each learned from once before any is again; by default rollout_batch_size."""
    outside_split: str = "train"
    """Split of the set, where it has several."""
    outside_prompt_key: str = "prompt"
    """Column that holds the prompt."""
    outside_chosen_key: str = "chosen"
    """Column that holds the better answer, as text or as chat messages."""
    outside_rejected_key: str = "rejected"
    """Column that holds the worse answer."""

    @model_validator(mode="after")
    def _is_given(self) -> Self:
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if not self.outside_preferences and value != field.default:
                raise ValueError(
                    f"outside.{name}={value!r}: there is no set; give outside_preferences, or leave it out"
                )
        return self

    def per_round(self, rollout_batch_size: int) -> int:
        """Return how many outside preferences a round learns from; none without a set."""
        return (self.outside_batch_size or rollout_batch_size) if self.outside_preferences else 0
