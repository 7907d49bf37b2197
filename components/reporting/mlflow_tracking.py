"""Sends finished rounds to MLflow: one run per experiment, metrics by round. Called by `tracking`."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

from ..ledger.ledger import Ledger
from .settings import TrackingSettings
from .tracked import SampleTable, TrackedRound, run_id, tracked_rounds

PROJECT, TAG = "oatflow", "oatflow.run"


def send_to_mlflow(ledger: Ledger, settings: TrackingSettings) -> None:
    """Continue the experiment's run. A round's metrics are sent last, so a round that has them is complete."""
    from mlflow import MlflowClient

    client = MlflowClient(settings.mlflow_uri or None)
    run = _find_run(client, ledger)
    # The server knows the last round that it has.
    steps = [point.step for point in client.get_metric_history(run, "round")]
    for found in tracked_rounds(ledger, sent=max(steps, default=-1) + 1):
        _log_round(client, run, found)
    client.set_terminated(run)


def _find_run(client: Any, ledger: Ledger) -> str:
    """Return the id of the experiment's run, found by its tag or created."""
    known = client.get_experiment_by_name(PROJECT)
    project = known.experiment_id if known else client.create_experiment(PROJECT)
    found = client.search_runs([project], f"tags.`{TAG}` = '{run_id(ledger)}'")
    if found:
        return str(found[0].info.run_id)
    name = ledger.name
    run = str(client.create_run(project, run_name=name, tags={TAG: run_id(ledger)}).info.run_id)
    client.log_dict(run, dict(ledger.experiment.settings), "settings.json")
    return run


def _log_round(client: Any, run: str, found: TrackedRound) -> None:
    from mlflow.entities import Metric

    for name, table in found.tables.items():
        client.log_text(run, _to_csv(table), f"round-{found.number:05d}/{name}.csv")
    if found.policy is not None:
        client.set_tag(run, f"policy.{found.number:05d}", f"{found.policy.uri} sha256={found.policy.digest}")
    now = int(1000 * time.time())
    client.log_batch(run, [Metric(name, value, now, found.number) for name, value in found.metrics.items()])


def _to_csv(table: SampleTable) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([table.columns, *table.rows])
    return text.getvalue()
