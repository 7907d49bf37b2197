"""`oatflow simulate`: do strategies that choose their duels learn more from the same number of labels than random?"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oatflow.components.errors import RefusedInput
from oatflow.components.store.files import write_whole

from ..flags import Flag, add_flags, command

if TYPE_CHECKING:
    from oatflow.components.simulator.play import Rules
    from oatflow.components.simulator.tournament import Tournament
    from oatflow.components.simulator.worlds import World

OF_SYNTHETIC = {"reward": "linear", "candidates": 10, "features": 16}
"""What a pool settles by itself, and its defaults without one."""
LEAST = {"queries": 1, "prompts": 1, "seeds": 1, "jobs": 1, "candidates": 2, "features": 1, "temperature": 0}
_FLAGS: list[Flag] = [
    ("--strategies", {"metavar": "A,B", "help": "who plays besides random (default: all that an ensemble can play)"}),
    ("--reward", {"choices": ("linear", "neural"), "help": "known reward of Gaussian candidates (default: linear)"}),
    ("--pool", {"type": Path, "metavar": "FILE", "help": "play with the real candidates of this pool instead: "
                "safetensors with features (prompts, candidates, features) and rewards (prompts, candidates)"}),
    ("--queries", {"type": int, "default": 2560, "help": "labels that each strategy may spend (default: 2560)"}),
    ("--prompts", {"type": int, "default": 64, "help": "prompts of a round (default: 64)"}),
    ("--candidates", {"type": int, "metavar": "N", "help": "candidates of a prompt (default: 10; a pool has its own)"}),
    ("--features", {"type": int, "metavar": "D", "help": "features of a candidate (default: 16; a pool has its own)"}),
    ("--seeds", {"type": int, "default": 10, "metavar": "K", "help": "worlds that each strategy plays in, each with a "
                 "reward, prompts and an ensemble of its own (default: 10)"}),
    ("--temperature", {"type": float, "default": 1.0, "metavar": "T", "help": "of the oracle: the first answer wins "
                       "with probability sigmoid(difference of rewards / T); 0: the better one always (default: 1)"}),
    ("--law", {"choices": ("paper", "oat"), "default": "paper", "help": "oat: as Oat's code, where a clash stands and "
               "costs a query (default: paper, where it is repaired or free)"}),
    ("--jobs", {"type": int, "metavar": "J", "help": "processes (default: one a core); the numbers are the same"}),
    ("--out", {"type": Path, "default": Path("simulation"), "metavar": "FOLDER",
               "help": "folder for simulation.html and simulation.csv (default: ./simulation)"}),
]  # fmt: skip


def simulate_parser(commands: Any) -> None:
    """Add `oatflow simulate`."""
    parser = command(
        commands, "simulate", "compare strategies where the reward is known, at one budget of queries", _run_simulation,
        local=False,
    )  # fmt: skip
    add_flags(parser, _FLAGS)


def _run_simulation(given: argparse.Namespace) -> int:
    from oatflow.components.simulator.duels import PLAYERS, list_players
    from oatflow.components.simulator.tournament import play_tournament
    from oatflow.components.simulator.tournament_table import align_columns, state_findings, tabulate_tournament

    _check_given(given)
    strategies = list_players(given.strategies.split(",") if given.strategies else PLAYERS)
    worlds, described = _open_worlds(given)
    jobs = given.jobs or len(os.sched_getaffinity(0))
    tournament = play_tournament(
        worlds, strategies, _read_rules(given), jobs, _report_seed if sys.stderr.isatty() else _ignore_progress
    )
    print(described)
    for line in [*align_columns(tabulate_tournament(tournament)), *state_findings(tournament)]:
        print(line)
    _write_results(given.out, tournament, described, _settings(given, strategies))
    return 0


def _check_given(given: argparse.Namespace) -> None:
    """Refuse numbers that are too small, and what a pool would ignore."""
    for name, least in LEAST.items():
        value = getattr(given, name)
        if value is not None and not value >= least:
            raise RefusedInput(f"{name}={value}: expected at least {least}")
    for name, default in OF_SYNTHETIC.items():
        value = getattr(given, name)
        if given.pool is not None and value is not None:
            raise RefusedInput(f"{name}={value}: a pool has its own; leave it out, or leave pool out")
        setattr(given, name, default if value is None else value)


def _open_worlds(given: argparse.Namespace) -> tuple[list[World], str]:
    """Return a world for each seed, and what they are in words."""
    from oatflow.components.simulator.pool import read_pool
    from oatflow.components.simulator.worlds import PoolWorld, gaussian_world

    if given.pool is None:
        described = (
            f"Gaussian candidates with {given.features} features, {given.candidates} a prompt, "
            f"and a {given.reward} reward that is known."
        )
        return [
            gaussian_world(given.reward, given.candidates, given.features, seed) for seed in range(given.seeds)
        ], described
    pool = read_pool(given.pool)
    prompts, candidates, features = pool.features.shape
    described = f"{prompts} prompts with {candidates} candidates of {features} features: {pool.source}."
    return [PoolWorld(pool, seed) for seed in range(given.seeds)], described


def _read_rules(given: argparse.Namespace) -> Rules:
    """Return the rules; Oat's law comes with the habits of its reward model."""
    from oatflow.components.reward_model.settings import RewardModelSettings
    from oatflow.components.simulator.play import Rules

    habits = {"rm_full_batches": True, "rm_mask": "broadcast"} if given.law == "oat" else {}
    return Rules(given.queries, given.prompts, given.temperature, given.law, RewardModelSettings.parse(habits))


def _settings(given: argparse.Namespace, strategies: list[str]) -> dict[str, object]:
    names = ("queries", "prompts", "seeds", "temperature", "law")
    where = {"pool": given.pool.name} if given.pool else {name: getattr(given, name) for name in OF_SYNTHETIC}
    return {"strategies": ", ".join(strategies), **where, **{name: getattr(given, name) for name in names}}


def _write_results(out: Path, tournament: Tournament, described: str, settings: Mapping[str, object]) -> None:
    from oatflow.components.simulator.tournament_page import render_tournament
    from oatflow.components.simulator.tournament_table import write_csv

    for name, text in (
        ("simulation.csv", write_csv(tournament)),
        ("simulation.html", render_tournament(tournament, described, settings)),
    ):
        write_whole(out / name, text.encode())
        print(out / name)


def _report_seed(done: int, all_: int) -> None:
    print(f"\r{done} of {all_} plays", end="\n" if done == all_ else "", file=sys.stderr, flush=True)


def _ignore_progress(done: int, all_: int) -> None:
    """Say nothing: nobody watches."""
