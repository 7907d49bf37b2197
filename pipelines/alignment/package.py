"""From the pipeline as KFP compiles it to the package that is shipped.

KFP repeats a nested pipeline with all its components for each of its tasks. Components that say the same are one
component here, so that the package hardly grows with the number of rounds: Argo keeps all of it in one object of
bounded size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Spec = dict[str, Any]


def pack(compiled: Path, images: Mapping[str, str], trainer: str | None) -> None:
    """Rewrite a compiled pipeline in place.

    `images`: what takes the place of which image. `trainer`: the image of a train step that trains by itself.
    """
    spec, *platforms = list(yaml.safe_load_all(compiled.read_text(encoding="utf-8")))
    executors: Spec = spec["deploymentSpec"]["executors"]
    for name, executor in executors.items():
        container = executor.get("container")
        if container:
            own = trainer if trainer and name.startswith("exec-train") else container["image"]
            container["image"] = images.get(own, own)
    for platform in platforms:
        _share_executors(spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"])
    _share_components(spec)
    header = "".join(line for line in compiled.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
    documents = yaml.safe_dump_all([spec, *platforms], sort_keys=True)
    compiled.write_text(header + documents, encoding="utf-8")


def _share_executors(spec: Spec, platform: Spec) -> None:
    """Keep one of the executors that run the same with the same of the platform."""
    executors: Spec = spec["deploymentSpec"]["executors"]
    kept: dict[str, str] = {}
    renamed: dict[str, str] = {}
    for name in _in_order(executors):
        says = json.dumps([executors[name], platform.get(name)], sort_keys=True)
        renamed[name] = kept.setdefault(says, name)
    for name, first in renamed.items():
        if name != first:
            del executors[name]
            platform.pop(name, None)
    for component in spec["components"].values():
        if "executorLabel" in component:
            component["executorLabel"] = renamed[component["executorLabel"]]


def _share_components(spec: Spec) -> None:
    """Keep one of the components that say the same, from the leaves up, until nothing changes."""
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
