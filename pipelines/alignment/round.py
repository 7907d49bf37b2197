"""One round of online alignment: the doors in the order of the data."""

from typing import Any

from kfp import dsl
from oatflow.components.evaluation.component import evaluate
from oatflow.components.labeling.component import label
from oatflow.components.policy.component import train
from oatflow.components.rounds.component import close_round, open_round
from oatflow.components.sampling.component import sample


def uncached(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Switch KFP's cache off: a step is repeated or adopted as the ledger says, not as equal inputs suggest."""
    return task.set_caching_options(False)


@dsl.pipeline(name="round", description="One round: prompts, candidates, duels, preferences, policy, verdicts.")
def alignment_round(ledger: str, settings: dict[str, Any], run: str) -> None:
    """Do the experiment's next round, if its budget is not spent.

    Args:
        ledger: URI of the experiment.
        settings: The experiment's settings by section.
        run: Id of the pipeline run.
    """
    opened = uncached(open_round(ledger=ledger, settings=settings, run=run))
    with dsl.If(opened.output >= 0, name="budget-left"):
        where = {"ledger": ledger, "round": opened.output, "run": run}
        sampled = uncached(sample(**where))
        labeled = uncached(label(**where, duels=sampled.outputs["duels"]))
        trained = uncached(train(**where, preferences=labeled.outputs["preferences"]))
        evaluated = uncached(evaluate(**where, policy=trained.outputs["policy"]))
        uncached(close_round(**where, policy=trained.outputs["policy"], verdicts=evaluated.outputs["verdicts"]))
