"""One round of training, on one of its workers: values in, a folder with the new policy out.

Every worker runs the same program on the same pairs. Worker 0 alone writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import progress
from ..number_format import number_format
from ..records.keep import Keep, read_table
from ..records.records import Prompt, ReferenceScore
from ..records.tables import HELD_OUT_REFERENCE_SCORES, REFERENCE_SCORES, Table
from ..seeds import derive
from .adapter import add_adapter, load_adapter, merge_adapter, save_adapter
from .checkpoint import load_model, load_moment, read_step_count, save_optimizer, save_policy
from .learner import Learner
from .optimising import Optimiser
from .pairs import OUTSIDE, PairReader
from .reference import Scores, index_scores, score_under_reference
from .schedule import SCHEDULES, warmup_steps
from .scoring import fits_one_row
from .settings import PolicySettings
from .stopwatch import Stopwatch
from .tokens import Pair, optimisation_steps
from .workers import find_device, share_bytes, share_number

Curve = list[dict[str, float]]
_AVERAGED = {
    "loss": "rows",
    "reward_margin": "pairs",
    "accuracy": "pairs",
    "chosen_logprob": "pairs",
    "rejected_logprob": "pairs",
}
"""What a round averages over its steps, and what each step's mean is over."""


@dataclass(frozen=True)
class RoundInputs:
    """What a round learns from, and where it begins.

    Attributes:
        round: Its number.
        is_first: Whether it begins with the starting model; else with what an earlier round left.
        outside: Preferences made elsewhere that it learns from.
        held_out: Held-out prompts; those that bring two answers along are measured on.
        longest_answer: Most tokens of an answer that was made elsewhere.
        rate_steps: How many optimisation steps the course of the learning rate has, in the whole experiment.
    """

    round: int
    is_first: bool
    outside: Sequence[Prompt]
    held_out: Sequence[Prompt]
    longest_answer: int
    rate_steps: float


@dataclass
class Trainer:
    """One worker's part in one round.

    Attributes:
        settings: How to train.
        seed: The experiment's seed.
        given: What the round learns from.
        starting_model: Folder of the starting model, which is the reference too.
        reader: Reads the round's pairs, and the tables of earlier rounds.
        keep: Keeps the reference's scores; None on workers other than worker 0.
        rank: Number of this worker.
        world: How many workers there are.
    """

    settings: PolicySettings
    seed: int
    given: RoundInputs
    starting_model: Path
    reader: PairReader
    keep: Keep | None
    rank: int
    world: int
    watch: Stopwatch = field(default_factory=Stopwatch)
    tokens: int = 0

    def __post_init__(self) -> None:
        tokenizer = self.reader.tokenizer
        self.pad: int = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.precision = number_format(self.settings.precision, gpu=torch.cuda.is_available())

    def train_round(self, folder: Path) -> tuple[dict[str, int], dict[str, Any]]:
        """Score the pairs under the reference, learn from them, and write the new policy.

        Args:
            folder: Holds what an earlier round left, in `model` or `adapter`, and `optimizer`. The new policy is
                written to `new`, under the same names.

        Returns:
            The round's counts, and what was measured.
        """
        with self.watch.time_part("load"):
            model = load_model(self.starting_model, self.settings)
            reader = replace(self.reader, longest=getattr(model.config, "max_position_embeddings", None))
            buffer = reader.read_buffer(self.given.round)
            held_out = reader.make_held_out_pairs(self.given.held_out)
            outside = reader.make_outside_pairs(self.given.outside, self.given.longest_answer)
            rows = [*(pair for pairs in buffer.values() for pair in pairs), *outside]
            pairs = [pair for pair in rows if not pair.is_identical]
            one_row = fits_one_row(model, [*pairs, *held_out], self.pad)
        with self.watch.time_part("reference"):
            reference = self.score_pairs(model, pairs, held_out, list(buffer), one_row)
        with self.watch.time_part("load"):
            model = self.load_policy(model, folder)
            learner = Learner(model, self.settings, self.precision)
            taken = self.load_optimizer(learner, folder)
        optimiser = Optimiser(learner, self.settings, reference, self.pad, one_row, self.watch)
        curve = self.take_steps(optimiser, rows if self.settings.loss_reduction == "all" else pairs, taken)
        measured = optimiser.measure_pairs(held_out) if held_out else {}
        with self.watch.time_part("export"):
            self.write_policy(learner, folder / "new", taken + len(curve))
        counts = self.count_pairs(rows, curve, taken) | ({"held_out_pairs": len(held_out)} if held_out else {})
        facts = {
            **average_curve(curve),
            "curve": curve,
            "precision": self.precision,
            "world_size": self.world,
            "zero_stage": self.settings.zero_stage,
            "rows_per_pair": 1 if one_row else 2,
        }
        return counts, facts | measured

    def score_pairs(
        self, model: Any, pairs: Sequence[Pair], held_out: Sequence[Pair], rounds: Sequence[int], one_row: bool
    ) -> Scores:
        """Return the pairs' scores under the reference; a pair that an earlier one of `rounds` scored is not again."""
        if not self.settings.loss.needs_reference:
            return {}
        known: dict[str, ReferenceScore] = {}
        for round_ in rounds:
            if round_ != self.given.round:
                known |= index_scores(read_table(self.reader.finished, REFERENCE_SCORES, round_))
        new = [pair for pair in {pair.pair_id: pair for pair in pairs}.values() if pair.pair_id not in known]
        known |= self.keep_scores(model, REFERENCE_SCORES, new, one_row)
        if held_out and self.given.round == 0:
            known |= self.keep_scores(model, HELD_OUT_REFERENCE_SCORES, held_out, one_row)
        elif held_out:
            known |= index_scores(read_table(self.reader.finished, HELD_OUT_REFERENCE_SCORES, 0))
        return known

    def keep_scores(self, model: Any, table: Table[ReferenceScore], pairs: Sequence[Pair], one_row: bool) -> Scores:
        """Return the table of the pairs' scores; the workers compute it together where it is not kept yet."""
        kept = self.keep.find_output(table.name) if self.keep else None
        if not share_number(kept is not None):
            size, device = self.settings.train_batch_size_per_device, find_device()
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                scores = score_under_reference(model, pairs, size, self.pad, one_row, device)
            kept = self.keep.write_output(table.name, table.to_bytes(scores)) if self.keep else None
        return index_scores(table.from_bytes(share_bytes(kept)))

    def load_policy(self, starting_model: Any, folder: Path) -> Any:
        """Return the policy to train: in the first round, that is the starting model itself."""
        if self.settings.lora_rank and self.given.is_first:
            return add_adapter(starting_model, self.settings, derive(self.seed, "adapter"))
        if self.settings.lora_rank:
            return load_adapter(starting_model, folder / "adapter", trainable=True)
        return starting_model if self.given.is_first else load_model(folder / "model", self.settings)

    def load_optimizer(self, learner: Learner, folder: Path) -> int:
        """Load the optimizer's state that an earlier round left; returns how many steps it has made."""
        if self.given.is_first:
            return 0
        if not (folder / "optimizer").is_dir():
            # Former versions kept no state in a round that they took for the last: Adam's moments begin anew.
            return self.count_steps_before()
        taken = read_step_count(folder / "optimizer")
        learner.load_state(partial(load_moment, folder / "optimizer"), taken)
        return taken

    def count_steps_before(self) -> int:
        """Return how many optimisation steps earlier rounds have made."""
        report = self.reader.finished.read_report("policy", self.given.round - 1)
        return report.counts["optimizer_steps"] if report else 0

    def take_steps(self, optimiser: Optimiser, pairs: Sequence[Pair], taken: int) -> Curve:
        """Take the round's optimisation steps, after the `taken` ones of earlier rounds; returns their measurements."""
        epochs = range(self.settings.max_epochs)
        seeds = [derive(self.seed, self.given.round, "train", epoch) for epoch in epochs]
        chosen = self.settings
        steps = list(optimisation_steps(pairs, chosen.train_batch_size, seeds, chosen.leftover_pairs))
        steps = steps[: chosen.max_sgd_steps]
        curve: Curve = []
        for number, step in enumerate(steps, 1):
            curve.append(optimiser.take_step(step, self.find_rate(taken + number)))
            self.tokens += sum(pair.length for pair in step if not pair.is_identical)
            if self.rank == 0:
                shown = {"done": number, "of": len(steps), "tokens": self.tokens, "loss": curve[-1]["loss"]}
                progress.report_event("train", self.given.round, "work", **shown)
        return curve

    def find_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        chosen, total = self.settings, self.given.rate_steps
        warmup = warmup_steps(total, chosen.lr_warmup_ratio)
        return SCHEDULES[chosen.lr_scheduler](step, total, warmup, chosen.learning_rate, chosen.min_lr_ratio)

    def write_policy(self, learner: Learner, new: Path, steps: int) -> None:
        """Write the policy as a whole model, the adapter if one is trained, and the optimizer's state after `steps`."""
        adapted = bool(self.settings.lora_rank)
        weights = learner.gather_trained() if adapted else learner.gather_weights()
        state = learner.gather_state()
        if self.rank != 0:
            return
        model = learner.model.module
        if adapted:
            save_adapter(model, weights, new / "adapter")
            model = merge_adapter(load_model(self.starting_model, self.settings), new / "adapter")
            weights = model.state_dict()
        save_policy(model, weights, self.starting_model, new / "model")
        save_optimizer(state, steps, new / "optimizer")

    def count_pairs(self, rows: Sequence[Pair], curve: Curve, taken: int) -> dict[str, int]:
        """Return the round's counts.

        `unlabelled`: clashes, and duels that the oracle gave no label. `identical`: pairs that differ in text alone.
        """
        identical = [pair for pair in rows if pair.is_identical]
        unlabelled = sum(not pair.chosen for pair in identical)
        outside = sum(pair.duel_id.startswith(OUTSIDE) for pair in rows if not pair.is_identical)
        return {
            "pairs": len(rows) - len(identical),
            "unlabelled": unlabelled,
            "identical": len(identical) - unlabelled,
            "optimizer_steps": taken + len(curve),
            "steps_this_round": len(curve),
            "tokens": self.tokens,
            **({"outside_pairs": outside} if self.given.outside else {}),
        }


def average_curve(curve: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return means over the pairs of all steps; nothing where no step was taken."""
    return {
        name: math.fsum(point[name] * point[over] for point in curve) / math.fsum(point[over] for point in curve)
        for name, over in _AVERAGED.items()
        if curve
    }
