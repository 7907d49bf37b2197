"""The door of the evaluation room."""

from kfp import dsl
from oatflow.components.images import SAMPLER


@dsl.component(base_image=SAMPLER, install_kfp_package=False)
def evaluate(
    ledger: str,
    round: int,
    run: str,
    policy: dsl.Input[dsl.Model],
    reward_model: dsl.Input[dsl.Model],
    verdicts: dsl.Output[dsl.Dataset],
) -> None:
    """Let the new policy answer held-out prompts, and the oracle compare its answers with the opponent's.

    Args:
        ledger: URI of the experiment.
        round: Number of the round.
        run: Id of the pipeline run that claimed the round.
        policy: Window on the new policy.
        reward_model: Window on the ensemble, where the experiment has one.
        verdicts: Window on the verdicts.
    """
    from oatflow.components.step_ending import explain_failure

    with explain_failure(memory="raise resources.sampler_memory, or on a GPU lower sampling.gpu_memory_utilization"):
        from oatflow.components.ledger.ledger import Ledger
        from oatflow.components.ledger.windows import check_window, show_table
        from oatflow.components.rounds.evaluate_step import run_evaluation

        experiment = Ledger.open(ledger)
        check_window(policy, experiment, round, "policy")
        check_window(reward_model, experiment, round, "reward_model")
        run_evaluation(experiment, round, run)
        show_table(verdicts, experiment, round, "evaluation", "verdicts.parquet")
