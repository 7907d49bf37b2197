"""Rounds in a process of their own, which may be killed at any moment. Forked from a server that has all imports."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from oatflow.components.errors import OatflowError
from oatflow.components.ledger import owner
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import NOTHING_TO_DO, open_round
from oatflow.components.rounds.steps import run_evaluation, run_fit, run_labeling, run_sampling, run_train

PRELOADED = [
    __name__, "oatflow.components.reward_model.fitting", "oatflow.components.oracles.judge",
    "oatflow.components.exploration.informed", "torch._dynamo",
]  # fmt: skip
"""What the server imports once for all processes; it takes seconds."""
BUG = 70
"""Exit code of a process that ended with what is no error of oatflow's."""


def play_rounds(uri: str, settings: dict[str, Any], run: str, only: int | None = None) -> None:
    """Do every round that is left, or at most `only` of them."""
    while only != 0 and (round_ := open_round(uri, settings, run)) != NOTHING_TO_DO:
        ledger = Ledger.open(uri)
        fit = (run_fit,) if ledger.read_plan(round_).learns_rewards else ()
        for step in (run_sampling, run_labeling, run_train, *fit, run_evaluation):
            step(ledger, round_, run)
        close_round(uri, round_, run)
        only = None if only is None else only - 1


def start_process(uri: str, settings: dict[str, Any], run: str, log: Path) -> BaseProcess:
    """Start a process that plays what is left of an experiment, and writes what it says to `log`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_play, args=(uri, settings, run, str(log)), daemon=True)
    process.start()
    return process


def _play(uri: str, settings: dict[str, Any], run: str, log: str) -> None:
    """Play rounds; the exit code is the error's, as the command line's is."""
    with open(log, "a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.environ["OATFLOW_PROGRESS"] = f"{log}.progress"
    os.environ.update(owner.environment_of(owner.this_process()))
    try:
        play_rounds(uri, settings, run)
    except OatflowError as error:
        print(f"oatflow: {error}", flush=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("oatflow: the claim was lost", flush=True)
        sys.exit(3)
    except Exception:
        traceback.print_exc()
        sys.exit(BUG)
