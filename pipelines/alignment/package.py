"""From the pipeline as KFP compiles it to the package that is shipped.

KFP repeats a nested pipeline with all its components for each of its tasks. Here, executors that are the same are one
executor, and components that are the same are one component: Argo keeps all of it in one object of bounded size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from oatflow.components.errors import SettingsError

from .backend_rules import check_backend_rules
from .unrolling import unroll_rounds
from .workflow_size import workflow_size

Spec = dict[str, Any]


def pack(compiled: Path, rounds: int, images: Mapping[str, str], trainer: str | None) -> None:
    """Rewrite a compiled pipeline in place, into one of `rounds` rounds that KFP's backend accepts.

    `images`: what takes the place of which image. `trainer`: the image of a train step that trains by itself.

    Raises `SettingsError` for more rounds than fit into one run.
    """
    spec, platform = yaml.safe_load_all(compiled.read_text(encoding="utf-8"))
    executors: Spec = spec["deploymentSpec"]["executors"]
    for name, executor in executors.items():
        container = executor["container"]
        own = trainer if trainer and name.startswith("exec-train") else container["image"]
        container["image"] = images.get(own, own)
    kubernetes: Spec = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    _drop_unread(spec)
    _share_executors(spec, kubernetes)
    _share_components(spec)
    refuse_oversize(spec, kubernetes, rounds)
    spec = unroll_rounds(spec, rounds)
    check_backend_rules(spec, kubernetes)
    header = "".join(line for line in compiled.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
    documents = yaml.safe_dump_all([spec, platform], sort_keys=True)
    compiled.write_text(header + documents, encoding="utf-8")


def refuse_oversize(spec: Spec, kubernetes: Spec, rounds: int) -> None:
    """Raise `SettingsError`, saying how many rounds fit, where the Workflow of a run would become too large."""
    fitting = next(
        (number for number in range(rounds, 0, -1) if workflow_size(unroll_rounds(spec, number), kubernetes).fits), 0
    )
    if fitting < rounds:
        raise SettingsError(
            f"rounds={rounds}: one run takes at most {fitting}, as Kubernetes holds a run in one object of bounded "
            f"size; compile {fitting} and start another run with the same settings when it has ended"
        )


def _drop_unread(spec: Spec) -> None:
    """Drop what nothing reads from components and tasks, as each run holds it many times.

    KFP writes descriptions for every component, and the UI reads none of them below the form. For each resource that
    a parameter names, it gives the task an input `cpu_limit` and the like, whose value is a placeholder; the driver
    reads the parameter itself.
    """
    components: Spec = spec["components"]
    for component in components.values():
        for field in component.get("inputDefinitions", {}).get("parameters", {}).values():
            field.pop("description", None)
    for component in [spec["root"], *components.values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            declared = components[task["componentRef"]["name"]].get("inputDefinitions", {}).get("parameters", {})
            given = task.get("inputs", {}).get("parameters", {})
            for name in [name for name in given if name not in declared and not name.startswith("pipelinechannel--")]:
                del given[name]


def _share_executors(spec: Spec, platform: Spec) -> None:
    """Keep one of the executors that are the same, with the same settings of the platform."""
    executors: Spec = spec["deploymentSpec"]["executors"]
    kept: dict[str, str] = {}
    renamed: dict[str, str] = {}
    for name in _in_order(executors):
        text = json.dumps([executors[name], platform.get(name)], sort_keys=True)
        renamed[name] = kept.setdefault(text, name)
    for name, first in renamed.items():
        if name != first:
            del executors[name]
            platform.pop(name, None)
    for component in spec["components"].values():
        if "executorLabel" in component:
            component["executorLabel"] = renamed[component["executorLabel"]]


def _share_components(spec: Spec) -> None:
    """Keep one of the components that are the same, from the leaves up, until nothing changes."""
    components: Spec = spec["components"]
    while True:
        kept: dict[str, str] = {}
        renamed = {
            name: kept.setdefault(json.dumps(components[name], sort_keys=True), name) for name in _in_order(components)
        }
        if all(name == first for name, first in renamed.items()):
            return
        for name, first in renamed.items():
            if name != first:
                del components[name]
        for component in [spec["root"], *components.values()]:
            for task in component.get("dag", {}).get("tasks", {}).values():
                task["componentRef"]["name"] = renamed[task["componentRef"]["name"]]


def _in_order(named: Spec) -> list[str]:
    """Sort names so that the one without a number comes first and stays."""
    return sorted(named, key=lambda name: (len(name), name))
