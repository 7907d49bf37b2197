"""What a round's training reads: the pairs in its buffer, the held-out ones, and the model that it goes on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RecordError
from ..ledger.ledger import Ledger
from ..prompts.settings import PromptSettings
from ..prompts.template import encode_answer, encode_prompt
from ..records.records import Candidate, Duel, Preference, Prompt
from ..records.table import from_parquet, from_parts
from .buffer import buffered_rounds
from .settings import PolicySettings
from .tokens import Pair, fitted, make_pairs

OUTSIDE = "outside-"
"""What the names of pairs made elsewhere begin with; those of duels do not."""
Read = Callable[[str, str, int], bytes]
"""Reads one output of a finished step: room, name, round."""


@dataclass(frozen=True)
class Reader:
    """Reads an experiment's pairs in one tokenizer. `longest`: most tokens of a prompt with one completion, if any."""

    ledger: Ledger
    settings: PolicySettings
    tokenizer: Any
    longest: int | None
    read: Read

    def buffer(self, round_: int) -> dict[int, list[Pair]]:
        """Return the pairs that a round learns from, by the round that brought them, oldest first; clashes too."""
        maxlen = self.settings.pi_buffer_maxlen
        rounds = [round_] if maxlen is None else buffered_rounds(round_, self.settings.buffer_clear_every)
        found: dict[int, list[Pair]] = {}
        room = maxlen
        for each in reversed(rounds):
            pairs = self.pairs(each)
            found[each] = pairs if room is None else pairs[len(pairs) - min(room, len(pairs)) :]
            if room is not None and (room := room - len(pairs)) <= 0:
                break
        return dict(reversed(found.items()))

    def pairs(self, round_: int) -> list[Pair]:
        """Return a pair for each preference of a round."""
        duels = from_parquet(self.read("sampling", "duels.parquet", round_), Duel, "duels.parquet")
        candidates = from_parquet(self.read("sampling", "candidates.parquet", round_), Candidate, "candidates.parquet")
        parts = [self.read("labeling", part, round_) for part in preference_parts(self.ledger, round_)]
        preferences = from_parts(parts, Preference, "preferences")
        prompts = self.encoded(self.ledger.plan(round_).prompts)
        return make_pairs(preferences, duels, candidates, prompts, self.longest, self.invented_end)

    def outside(self, round_: int) -> list[Pair]:
        """Return a pair for each preference made elsewhere that a round learns from, whatever its buffer holds."""
        prompts = self.ledger.plan(round_).outside
        encoded = self.encoded(prompts)
        # As long as the experiment's own answers may be: what fits a batch of those, fits one of these.
        longest = int(self.ledger.experiment.settings["sampling"]["generate_max_length"]) if prompts else None
        return [
            Pair(f"{OUTSIDE}{row.prompt_id}", encoded[row.prompt_id], *self._answers(row, encoded, longest))
            for row in prompts
        ]

    def held_out(self) -> list[Pair]:
        """Return the held-out pairs of a preference set; none where the experiment learns from no such set."""
        prompts = [prompt for prompt in self.ledger.eval_prompts() if prompt.chosen is not None]
        encoded = self.encoded(prompts)
        pairs = [
            Pair(prompt.prompt_id, encoded[prompt.prompt_id], *self._answers(prompt, encoded)) for prompt in prompts
        ]
        return [pair for pair in pairs if not pair.is_identical]

    def encoded(self, prompts: Sequence[Prompt]) -> Mapping[str, tuple[int, ...]]:
        """Return the prompts' tokens by their ids."""
        chat = self.ledger.section(PromptSettings, "prompts").apply_chat_template
        return {prompt.prompt_id: tuple(encode_prompt(self.tokenizer, prompt.text, chat)) for prompt in prompts}

    @property
    def invented_end(self) -> int | None:
        """The token that a completion gets where it was cut off, if it does."""
        return int(self.tokenizer.eos_token_id) if self.settings.eos_overwrite else None

    def _answers(
        self, prompt: Prompt, encoded: Mapping[str, Sequence[int]], longest: int | None = None
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        assert prompt.chosen is not None and prompt.rejected is not None
        room = None if self.longest is None else self.longest - len(encoded[prompt.prompt_id])
        chosen, rejected = (
            fitted(encode_answer(self.tokenizer, text, longest)[0], room, self.invented_end)
            for text in (prompt.chosen, prompt.rejected)
        )
        if not chosen or not rejected:
            raise RecordError(
                f"prompt {prompt.prompt_id}: it leaves no room for an answer among the model's {self.longest} "
                "positions; lower prompts.prompt_max_length"
            )
        return chosen, rejected


def preference_parts(ledger: Ledger, round_: int) -> list[str]:
    """Name the round's tables of preferences, in their order."""
    done = ledger.done(round_, "labeling")
    return sorted(placed.name for placed in done.outputs if placed.name.startswith("preferences")) if done else []


def load_model(folder: Path, settings: PolicySettings) -> Any:
    """Load a causal language model in float32, with dropout off; code and pickles only where the settings say so."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=settings.trust_remote_code,
        use_safetensors=None if settings.allow_pickled_weights else True,
    ).eval()  # fmt: skip
