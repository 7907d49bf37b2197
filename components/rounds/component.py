"""The doors that begin and end a round."""

from typing import Any

from kfp import dsl
from oatflow.components.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def open_round(ledger: str, settings: dict[str, Any], run: str) -> int:
    """Begin the experiment if it is new, claim its next round, and write the round's plan.

    Args:
        ledger: URI of the experiment, s3://bucket/prefix?endpoint=http://host:port.
        settings: The experiment's settings by section; frozen at the first round.
        run: Who asks; the id of the pipeline run.

    Returns:
        Number of the round, or -1 when the experiment's budget is spent.
    """
    from oatflow.components.rounds.opening import open_round as work

    return work(ledger, settings, run)


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def close_round(
    ledger: str,
    round: int,
    run: str,
    policy: dsl.Input[dsl.Model],
    verdicts: dsl.Input[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """Commit the round: chain it to the one before, move HEAD, and write the report.

    Args:
        ledger: URI of the experiment.
        round: Number of the round.
        run: Id of the pipeline run that claimed the round.
        policy: Window on the policy that the round made.
        verdicts: Window on the held-out verdicts.
        metrics: What the round measured.
        report: The experiment so far, one self-contained page.
        summary: The same in a few lines.
    """
    from pathlib import Path

    from oatflow.components.ledger.ledger import Ledger
    from oatflow.components.ledger.windows import check_window
    from oatflow.components.reporting.page import markdown_report, measured, write_report
    from oatflow.components.rounds.closing import close_round as work

    check_window(policy, Ledger.open(ledger), round, "policy")
    check_window(verdicts, Ledger.open(ledger), round, "evaluation")
    closed = work(ledger, round, run)
    for name, value in measured(closed, round).items():
        metrics.log_metric(name, value)
    Path(report.path).write_text(write_report(closed), encoding="utf-8")
    Path(summary.path).write_text(markdown_report(closed), encoding="utf-8")
