"""The door of the reward model's room."""

from kfp import dsl
from oatflow.components.images import SAMPLER


@dsl.component(base_image=SAMPLER, install_kfp_package=False)
def fit_reward_model(
    ledger: str,
    round: int,
    run: str,
    preferences: dsl.Input[dsl.Dataset],
    reward_model: dsl.Output[dsl.Model],
) -> None:
    """Let the epistemic reward model learn from the round's preferences; nothing where the experiment has none.

    Args:
        ledger: URI of the experiment.
        round: Number of the round.
        run: Id of the pipeline run that claimed the round.
        preferences: Window on the preferences.
        reward_model: Window on the ensemble: its files and their digests.
    """
    from oatflow.components.step_ending import explain_failure

    with explain_failure(memory="raise resources.light_memory, or lower reward_model.rm_encode_batch_size"):
        from oatflow.components.ledger.ledger import Ledger
        from oatflow.components.ledger.windows import check_window, show_files

        experiment = Ledger.open(ledger)
        check_window(preferences, experiment, round, "labeling")
        if experiment.read_plan(round).learns_rewards:
            from oatflow.components.rounds.steps import run_fit

            run_fit(experiment, round, run)
        show_files(reward_model, experiment, round, "reward_model")
