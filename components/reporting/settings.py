"""Settings of tracking: where finished rounds are sent, besides their report."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from ..settings import Section, operational_field


class TrackingSettings(Section):
    """Where the numbers of each finished round go. A tracker that fails disturbs no round."""

    track: Literal["none", "wandb", "mlflow"] = operational_field("none")
    """Send each finished round to Weights & Biases or to MLflow. Keys come from the environment (WANDB_API_KEY)."""
    track_seconds: float = operational_field(60.0, gt=0)
    """How long a round may be kept waiting for its tracking; what is not sent by then goes with the next round."""
    wandb_project: str = Field("oatflow", min_length=1, json_schema_extra={"operational": True})
    """W&B project of the run; an experiment is one run, which every round carries on."""
    wandb_entity: str = operational_field("")
    """W&B user or team; by default the key's own."""
    wandb_mode: Literal["online", "offline"] = operational_field("online")
    """offline leaves a folder that `wandb sync` sends; the newest holds all rounds."""
    wandb_dir: str = operational_field("")
    """Folder for W&B's files; by default WANDB_DIR, else ./wandb."""
    mlflow_uri: str = operational_field("")
    """MLflow's tracking server or folder; by default MLFLOW_TRACKING_URI."""

    @field_validator("mlflow_uri")
    @classmethod
    def _without_a_password(cls, value: str) -> str:
        if urlsplit(value).username is not None or urlsplit(value).password is not None:
            raise ValueError(
                "no name or password in an address, which is kept for all to read; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD in the environment"
            )
        return value
