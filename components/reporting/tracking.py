"""Sends finished rounds to a tracker: Weights & Biases here, MLflow in `mlflow_tracking`.

A tracker runs in its own process with a time limit. If it crashes, hangs, cannot reach its server or is not installed,
oatflow logs one line and the round goes on. No record of what was sent is kept: the server knows its last round and is
sent the rounds after it, so missed rounds are sent with the next one and none is sent twice. An offline W&B folder does
not know what others hold, so it always holds all rounds; the newest folder replaces the ones before it.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .. import progress
from ..errors import OatflowError
from ..jobs.orphans import die_with_parent
from ..ledger.ledger import Ledger
from .settings import TrackingSettings
from .tracked import SampleTable, TrackedPolicy, TrackedRound, axis_of, run_id, settings_of, tracked_rounds

PROGRAM = "oatflow.components.reporting.tracking"
TROUBLE = "oatflow tracking: "
"""What the line begins with that says what went wrong, among all that a tracker prints."""
KEY = "WANDB_API_KEY"
INSTALL = {"wandb": "wandb", "mlflow": "mlflow-skinny"}
"""What to install for each tracker, by the name that it is imported by."""


def track_round(ledger: Ledger, round_: int, settings: TrackingSettings | None = None) -> None:
    """Send a finished round, and those before it that were not sent, within `track_seconds`.

    `settings`: by default those of the run that did the round. Logs any failure in one line and raises nothing.
    """
    whom = ""
    try:
        settings = settings or settings_of(ledger, round_)
        if settings.track == "none":
            return
        whom = f" ({settings.track})"
        trouble = _find_missing(settings) or _in_a_process_of_its_own(ledger.store.uri, settings)
    except (OatflowError, OSError) as error:
        trouble = str(error)
    if trouble:
        progress.report_event("track", round_, "note", text=f"round {round_} is done, but not tracked{whom}: {trouble}")


def send_rounds(ledger: Ledger, settings: TrackingSettings) -> None:
    """Send what a tracker does not have yet; raises whatever the tracker raises."""
    if settings.track == "mlflow":
        from .mlflow_tracking import send_to_mlflow

        send_to_mlflow(ledger, settings)
    else:
        send_to_wandb(ledger, settings)


def send_to_wandb(ledger: Ledger, settings: TrackingSettings) -> None:
    """Continue the experiment's run. A round's metrics are sent last, so a round that has them is complete."""
    import wandb

    if settings.wandb_dir:
        Path(settings.wandb_dir).mkdir(parents=True, exist_ok=True)
    quiet = wandb.Settings(
        silent=True, console="off", disable_git=True, save_code=False, init_timeout=settings.track_seconds / 2,
        x_disable_stats=True, x_disable_meta=True, x_save_requirements=False,
    )  # fmt: skip
    with wandb.init(
        project=settings.wandb_project, entity=settings.wandb_entity or None, mode=settings.wandb_mode,
        dir=settings.wandb_dir or None, id=run_id(ledger), resume="allow" if settings.wandb_mode == "online" else None,
        name=ledger.name, config=dict(ledger.experiment.settings), settings=quiet,
    ) as run:  # fmt: skip
        for found in tracked_rounds(ledger, sent=run.step):
            _log_round(run, found, ledger.name)


def _log_round(run: Any, found: TrackedRound, experiment: str) -> None:
    axis = axis_of(found.metrics)
    run.define_metric(axis)
    run.define_metric("*", step_metric=axis)
    if found.policy is not None:
        run.log_artifact(_policy_reference(found.policy, experiment), aliases=[f"round-{found.number}", "latest"])
    run.log({**found.metrics, **{name: _wandb_table(table) for name, table in found.tables.items()}}, step=found.number)


def _wandb_table(table: SampleTable) -> Any:
    import wandb

    return wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows])


def _policy_reference(policy: TrackedPolicy, experiment: str) -> Any:
    """Return an artifact that says where a policy lies and what its digest is; not a byte of it is uploaded."""
    import wandb
    from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry

    where = {"uri": policy.uri, "sha256": policy.digest}
    artifact = wandb.Artifact(f"{experiment}-policy", type="model", metadata=where)
    # Not `add_reference`: for s3:// it takes boto3 and the store's keys, to compute a digest that we have.
    artifact.manifest.add_entry(ArtifactManifestEntry(path="policy", ref=policy.uri, digest=policy.digest))
    return artifact


def _find_missing(settings: TrackingSettings) -> str:
    """Return what the tracker needs and lacks, or ""."""
    if importlib.util.find_spec(settings.track) is None:
        remedy = f"pip install {INSTALL[settings.track]}, or set tracking.track=none"
        return f"{settings.track} is not installed here; {remedy}"
    if settings.track == "wandb" and settings.wandb_mode == "online" and not os.environ.get(KEY):
        return f"wandb_mode='online' takes a key in {KEY}, which is not set; set it, or wandb_mode=offline"
    return ""


def _in_a_process_of_its_own(uri: str, settings: TrackingSettings) -> str:
    """Run `main` under a limit on its time; returns what went wrong, in one line, or nothing."""
    command = [sys.executable, "-m", PROGRAM, uri, settings.model_dump_json()]
    with tempfile.TemporaryDirectory(prefix="oatflow-tracking-") as scratch, open(f"{scratch}/said", "wb") as said:
        # Into a file, not a pipe: what a tracker leaves running may hold a pipe open, and us with it.
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            return f"its process cannot be started ({error})"
        try:
            code = process.wait(settings.track_seconds)
        except subprocess.TimeoutExpired:
            return f"it took longer than track_seconds={settings.track_seconds:g} and was stopped"
        finally:
            _end_process(process)
        return _last_line(Path(scratch) / "said", code) if code else ""


def _end_process(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started; also after Ctrl-C, which does not reach them by itself."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(said: Path, code: int) -> str:
    lines = [line.strip() for line in said.read_text(errors="replace").splitlines() if line.startswith(TROUBLE)]
    return lines[-1].removeprefix(TROUBLE) if lines else f"its process ended with exit code {code}"


def main(uri: str, settings: str) -> None:
    """Send, as a process of its own; what goes wrong is its last line, and its exit code is 1."""
    die_with_parent(os.getppid())
    try:
        send_rounds(Ledger.open(uri), TrackingSettings.model_validate_json(settings))
    except Exception as error:
        sys.exit(f"{TROUBLE}{type(error).__name__}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main(*sys.argv[1:])
