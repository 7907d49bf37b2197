"""What the tests of the manifests need: kustomize, and what it makes of them, once a session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFESTS = Path(__file__).parents[2] / "manifests"
Render = Callable[[Path], list[dict[str, Any]]]

# The same, in the same order, as images/cpu/kustomize.sh looks for.
RENDERERS = (
    (str(Path(sys.executable).parent / "kubectl"), "kustomize"),
    ("kustomize", "build"),
    ("kubectl", "kustomize"),
)


@pytest.fixture(scope="session")
def render() -> Render:
    """Return what renders a kustomization into objects. Mark what uses this as slow."""
    renderer = _renderer()
    rendered: dict[Path, list[dict[str, Any]]] = {}

    def of(folder: Path) -> list[dict[str, Any]]:
        if folder not in rendered:
            rendered[folder] = list(yaml.safe_load_all(_run(renderer, folder)))
        return rendered[folder]

    return of


def _renderer() -> tuple[str, ...]:
    failures = []
    for renderer in RENDERERS:
        try:
            _run(renderer, MANIFESTS / "overlays" / "standalone")
        except (OSError, subprocess.CalledProcessError) as error:
            failures.append(f"{' '.join(renderer)}: {getattr(error, 'stderr', None) or error}")
        else:
            return renderer
    pytest.fail("\n".join(["nothing renders the manifests; images/cpu/kustomize.sh installs what does", *failures]))


def _run(renderer: tuple[str, ...], folder: Path) -> str:
    return subprocess.run([*renderer, str(folder)], capture_output=True, text=True, check=True).stdout
