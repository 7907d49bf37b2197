"""Makes the trainer of a round from what the round is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..policy.buffer import buffer_sizes
from ..policy.pairs import PairReader
from ..policy.schedule import rows_of_rounds, total_steps
from ..policy.trainer import RoundInputs, Trainer
from ..prompts.template import Tokenizer
from ..records.keep import FinishedSteps, Keep
from ..records.plan import STARTING_MODEL, Plan
from ..records.records import Prompt
from .experiment import ExperimentSettings
from .inputs import Round


def make_trainer(
    given: Round,
    *,
    finished: FinishedSteps,
    keep: Keep | None,
    prompts_of: Callable[[int], Sequence[Prompt]],
    starting_model: Path,
    tokenizer: Tokenizer,
    rank: int,
    world: int,
) -> Trainer:
    """Return the trainer of one worker.

    Args:
        given: The round.
        finished: Reads the tables of finished steps.
        keep: Keeps the reference's scores; None for all workers but worker 0.
        prompts_of: Returns the prompts of a round.
        starting_model: Folder of the starting model.
        tokenizer: Its tokenizer.
        rank: Number of this worker.
        world: How many workers there are.
    """
    plan, settings = given.plan, given.settings
    return Trainer(
        settings=settings.policy,
        seed=given.seed,
        given=RoundInputs(
            round=plan.round,
            is_first=plan.policy.round == STARTING_MODEL,
            outside=plan.outside,
            held_out=given.read_held_out(),
            # As long as the experiment's own answers may be: what fits a batch of those, fits one of these.
            longest_answer=settings.sampling.generate_max_length,
            rate_steps=count_rate_steps(settings, plan),
        ),
        starting_model=starting_model,
        reader=PairReader(
            finished=finished,
            prompts_of=prompts_of,
            settings=settings.policy,
            tokenizer=tokenizer,
            chat_template=settings.prompts.apply_chat_template,
            from_reference=settings.exploration.strategy.draws_from_reference,
        ),
        keep=keep,
        rank=rank,
        world=world,
    )


def count_rate_steps(experiment: ExperimentSettings, plan: Plan) -> float:
    """Return the length of the learning rate's course: the steps that the budget pays for, or a multiple.

    It counts the rounds as if no duel were a clash: what a clash saves is learned from in a later round.
    """
    settings, size = experiment.policy, experiment.prompts.rollout_batch_size
    budget = plan.queries_spent + plan.queries_left
    rows = rows_of_rounds(budget, plan.duels or size, experiment.exploration.count_rounds(budget, size))
    own = buffer_sizes(rows, settings.pi_buffer_maxlen, settings.buffer_clear_every)
    sizes = [size + len(plan.outside) for size in own]
    paid = total_steps(
        sizes, settings.max_epochs, settings.train_batch_size, settings.max_sgd_steps, settings.leftover_pairs
    )
    return paid * settings.max_step_adjustment
