"""The door of the labeling room."""

from kfp import dsl
from oatflow.components.images import ORACLE


@dsl.component(base_image=ORACLE, install_kfp_package=False)
def label(
    ledger: str,
    round: int,
    run: str,
    duels: dsl.Input[dsl.Dataset],
    preferences: dsl.Output[dsl.Dataset],
) -> int:
    """Ask the oracle who wins each duel.

    Args:
        ledger: URI of the experiment.
        round: Number of the round.
        run: Id of the pipeline run that claimed the round.
        duels: Window on the duels.
        preferences: Window on the oracle's preferences.

    Returns:
        1, or 0 where people have not answered yet: the next run carries on.
    """
    from oatflow.components.step_ending import explain_failure

    with explain_failure(memory="raise resources.oracle_memory, or lower labeling.oracle_batch_size"):
        from oatflow.components.ledger.ledger import Ledger
        from oatflow.components.ledger.windows import check_window, show_table
        from oatflow.components.rounds.steps import label_or_wait

        experiment = Ledger.open(ledger)
        check_window(duels, experiment, round, "sampling")
        if not label_or_wait(experiment, round, run):
            return 0
        show_table(preferences, experiment, round, "labeling", "preferences-*.parquet")
        return 1
