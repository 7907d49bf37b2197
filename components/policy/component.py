"""The KFP component that trains the policy."""

from kfp import dsl
from oatflow.components.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def train(
    ledger: str,
    round: int,
    run: str,
    preferences: dsl.Input[dsl.Dataset],
    policy: dsl.Output[dsl.Model],
) -> None:
    """Launch the training job on the round's preferences and wait for its policy.

    Args:
        ledger: URI of the experiment.
        round: Number of the round.
        run: Id of the pipeline run that claimed the round.
        preferences: Window on the preferences.
        policy: Window on the new policy: its files and their digests; the metadata has its address in the store.
    """
    from oatflow.components.step_ending import explain_failure

    with explain_failure(memory="raise resources.light_memory"):
        from oatflow.components.ledger.ledger import Ledger
        from oatflow.components.ledger.windows import check_window, show_folder
        from oatflow.components.rounds.train_step import run_train

        experiment = Ledger.open(ledger)
        check_window(preferences, experiment, round, "labeling")
        run_train(experiment, round, run)
        show_folder(policy, experiment, round, "policy", "model")
