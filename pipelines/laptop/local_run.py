"""Run a compiled pipeline on this machine: a child process of `oatflow align`, its output kept in a log.

What runs is the YAML that a cluster would get, through kfp.local. When the parent goes away for whatever reason,
its end of standard input closes, and this process takes its whole process group, steps included, with it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path


def main() -> None:
    """Parse the arguments, which only `oatflow align` gives, and run the pipeline."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pipeline", type=Path, required=True, help="compiled YAML")
    parser.add_argument("--arguments", required=True, help="the pipeline's parameters as JSON")
    parser.add_argument("--outputs", type=Path, required=True, help="where KFP puts its artifacts")
    given = parser.parse_args()
    threading.Thread(target=_die_with_parent, name="parent watch", daemon=True).start()
    run_pipeline(given.pipeline, json.loads(given.arguments), given.outputs)


def run_pipeline(pipeline: Path, arguments: dict[str, object], outputs: Path) -> None:
    """Run a compiled pipeline through kfp.local; raises if any of its tasks fails."""
    from kfp import components, local

    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(outputs), raise_on_error=True)
    components.load_component_from_file(str(pipeline))(**arguments)


def _die_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
