"""What a step of a run on a cluster reports in its log, as lines of JSON. KFP serves the log; no store is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from oatflow.components.errors import ClusterError

from .kubeflow_client import Cluster, Run
from .run_steps import Step

# Steps that ask an oracle, which may be people, or a service that is down.
ASKING = ("label", "evaluate")


def read_end(cluster: Cluster, run: Run, step: Step) -> Mapping[str, Any]:
    """Return the event with which a step ended, and what it measured; {} where its log cannot be read."""
    return next((event for event in reversed(_read_events(cluster, run, step)) if event["event"] == "end"), {})


def read_wait(cluster: Cluster, run: Run, step: Step) -> str:
    """Return what a step that asks an oracle waits for, or "" where it waits for nothing or its log cannot be read."""
    events = _read_events(cluster, run, step) if step.name in ASKING and step.state == "running" else []
    return str(events[-1].get("why", "")) if events and events[-1]["event"] == "waits" else ""


def _read_events(cluster: Cluster, run: Run, step: Step) -> list[Mapping[str, Any]]:
    if not step.pod:
        return []
    try:
        lines = cluster.step_log(run.id, step.pod)
    except ClusterError:
        # Not every KFP serves logs; what is read from them is only an addition.
        return []
    events = [_parse_line(line) for line in lines if line.startswith('{"at": ')]
    return [event for event in events if "event" in event]


def _parse_line(line: str) -> Mapping[str, Any]:
    """Read one line; {} for one that was cut off."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}
