"""The door of the sampling room."""

from kfp import dsl
from oatflow.components.images import SAMPLER


@dsl.component(base_image=SAMPLER, install_kfp_package=False)
def sample(ledger: str, round: int, run: str, duels: dsl.Output[dsl.Dataset]) -> None:
    """Draw candidates from the policy and pick the duels.

    Args:
        ledger: URI of the experiment.
        round: Number of the round.
        run: Id of the pipeline run that claimed the round.
        duels: Window on the duels that were picked.
    """
    from oatflow.components.step_ending import explain_failure

    with explain_failure(memory="raise resources.sampler_memory, or on a GPU lower sampling.gpu_memory_utilization"):
        from oatflow.components.ledger.ledger import Ledger
        from oatflow.components.ledger.windows import show_table
        from oatflow.components.rounds.steps import run_sampling

        experiment = Ledger.open(ledger)
        run_sampling(experiment, round, run)
        show_table(duels, experiment, round, "sampling", "duels.parquet")
