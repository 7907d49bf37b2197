"""Settings of the prompts room."""

from __future__ import annotations

from pydantic import Field

from ..settings import Section


class PromptSettings(Section):
    """Where prompts come from, and how many make a round; offline, their better and worse answers come with them."""

    prompt_data: str = ""
    """Prompt set: a .jsonl or .parquet file, a folder with train/test files, s3://bucket/key, or a hub data set
    (name or config@name)."""
    eval_data: str | None = None
    """Prompt set for evaluation, if it is not the test split of prompt_data."""
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
