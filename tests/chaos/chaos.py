"""Experiments that are killed, raced and damaged at random, with a judge double that counts what it is paid.

    .venv/bin/python -m tests.chaos --seconds 600 --seed 1

Each experiment runs the scripted engine and trainer in real processes: most as rounds alone, a few as `oatflow align`.
SIGKILL ends a process (of `align`, any one of its processes) after a random time, until the experiment has been killed
often enough; then it must end undisturbed. A spending limit that ends it is raised. Now and then two processes start at
once, or an object of a copy is damaged, lost or exchanged, and the copy is carried on.

The last lines are the counts; the exit code is 1 if a promise was broken, and the seed of each broken one is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from oatflow.components.errors import OatflowError
from oatflow.components.ledger.ledger import Ledger
from oatflow.pipelines.alignment.config import gather

from ..oracles.openai_service import KEY, MODEL, OpenAIService, openai_service
from .rounds import BUG, start_process

FINISHED, HELD = 0, 3
FIRST_LIMITS = (10_000, 25_000, 10_000_000)
"""Spending limits to begin with, in tokens: a question takes about 300, and is feared to take four times as many."""
LONGEST_SECONDS = 120
"""How long one process may take undisturbed."""
STARTS_AFTER_KILLS = 12
"""How often an experiment may be started after its last kill: a start may need a higher limit, or wait for a claim."""


@dataclass
class Counts:
    """What has happened in all experiments."""

    experiments: int = 0
    kills: int = 0
    kills_survived: int = 0
    races: int = 0
    limits_reached: int = 0
    damages: Counter[str] = field(default_factory=Counter)
    paid_twice: int = 0
    billed: int = 0
    overspent: int = 0
    broken: list[str] = field(default_factory=list)
    """Each broken promise with the seed of its experiment."""
    cannot_go_on: int = 0

    def __str__(self) -> str:
        damages = ", ".join(f"{number} {what}" for what, number in sorted(self.damages.items())) or "none"
        return "\n".join([
            *(f"BROKEN  {line}" for line in self.broken),
            f"experiments {self.experiments}, of which cannot go on: {self.cannot_go_on}",
            f"kills {self.kills}, survived: {self.kills_survived}; races: {self.races}",
            f"questions paid twice: {self.paid_twice}",
            f"tokens billed: {self.billed:,}, above the limit: {self.overspent:,}; limits reached: "
            f"{self.limits_reached}",
            f"damages: {damages}",
        ])  # fmt: skip


class Experiment:
    """One experiment, and what its owner sees of it."""

    def __init__(self, seed: int, folder: Path, service: OpenAIService, counts: Counts):
        self.seed, self.folder, self.service, self.counts = seed, folder, service, counts
        self.random = random.Random(seed)
        self.uri = f"file://{folder}/ledger"
        self.limit = self.random.choice(FIRST_LIMITS)
        self.by_align = seed % 25 == 0
        self.strategy = self.random.choice(["passive", "passive", "passive", "EnnBAITS"])
        self.starts = 0

    def settings(self) -> dict[str, Any]:
        """The settings of its next run; the spending limit may have been raised."""
        ensemble = {"num_ensemble": 3} if self.strategy != "passive" else {}
        return {
            "prompts": {"rollout_batch_size": 5, "max_eval": 3, "max_train": 40},
            "sampling": {"num_samples": 4} if ensemble else {},
            "exploration": {"exp_method": self.strategy},
            "reward_model": ensemble,
            "labeling": {
                "max_queries": 15, "oracle_batch_size": 2, "preference_oracle": "judge",
                "unreadable_limit": 1, "lost_limit": 1,
            },
            "judge": {
                "judge_model": MODEL, "judge_url": self.service.url, "judge_timeout": 0.5, "judge_patience": 30,
                "judge_input_price": 1e6, "judge_output_price": 1e6, "judge_spending_limit": self.limit,
            },
        }  # fmt: skip

    def start(self, uri: str = "", run: str = "") -> Any:
        """Start a process that does what is left of it."""
        self.starts += 1
        file = self.folder / f"settings-{self.starts}.yaml"
        file.write_text(yaml.safe_dump({name: section for name, section in self.settings().items() if section}))
        log = self.folder / f"run-{self.starts}.log"
        if self.by_align and not uri:
            return AlignProcess(self.folder, self.uri, file, log)
        wanted = gather("scripted", file, {}).model_dump(mode="json")
        return start_process(uri or self.uri, wanted, run or f"run-{self.starts}", log)

    def said(self) -> str:
        """What the last process said at last."""
        log = self.folder / f"run-{self.starts}.log"
        return log.read_text(errors="replace").strip()[-600:] if log.exists() else ""

    def play(self) -> bool:
        """Kill, race and damage it at random, then let it end; returns whether it could."""
        survived = 0
        for _ in range(self.random.randint(1, 6)):
            if self.random.random() < 0.15:
                self._race()
            if self._kill():
                survived += 1
            self._check_money()
            if self.random.random() < 0.3:
                self._damage_a_copy()
        if not self._finish():
            return False
        self.counts.kills_survived += survived
        list(Ledger.open(self.uri).verify_objects())
        return True

    def _kill(self) -> bool:
        """Start it and kill it after a while; returns whether it was killed before its end."""
        process = self.start()
        longest = 12.0 if self.by_align else 1.6
        process.join(self.random.uniform(0.02, longest))
        killed = process.exitcode is None
        process.kill()
        process.join()
        self.counts.kills += killed
        self._check_end(process.exitcode)
        return killed

    def _race(self) -> None:
        """Start two processes at once: one works, and the other one is refused, or works once the first has ended."""
        self.counts.races += 1
        processes = [self.start(), self.start()]
        for process in processes:
            process.join(self.random.uniform(0.1, 3.0))
        for process in processes:
            process.kill()
            process.join()
            self._check_end(process.exitcode)

    def _finish(self) -> bool:
        """Start it until it has ended, and raise its spending limit where that is what ended it."""
        for _ in range(STARTS_AFTER_KILLS):
            process = self.start()
            process.join(LONGEST_SECONDS)
            if process.exitcode is None:
                process.kill()
                process.join()
                self._note(f"it was at work for {LONGEST_SECONDS} s: {self.said()}")
                return False
            self._check_money()
            self._check_end(process.exitcode)
            if "judge_spending_limit=" in self.said():
                self.counts.limits_reached += 1
                self.limit += 10_000
            elif process.exitcode == FINISHED:
                return True
            elif process.exitcode == HELD:
                time.sleep(1)
            else:
                self._note(f"it cannot go on (exit code {process.exitcode}): {self.said()}")
                return False
        self._note(f"it has not ended after {STARTS_AFTER_KILLS} starts: {self.said()}")
        return False

    def _damage_a_copy(self) -> None:
        """Damage an object of a copy, and carry the copy on, off the books: it ends, or says in a line why not."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        with suppress(FileNotFoundError):
            shutil.copytree(self.folder / "ledger", copy)
        found = sorted(path for path in copy.rglob("*") if path.is_file() and "rounds" in path.parts)
        if not found:
            return
        victim, other = self.random.choice(found), self.random.choice(found)
        how = self.random.choice(["flipped", "lost", "exchanged"])
        damage_object(victim, other, how, self.random)
        books = self.service.billed_tokens, self.service.answered.copy()
        process = self.start(f"file://{copy}", "copy")
        process.join(LONGEST_SECONDS)
        code = process.exitcode
        process.kill()
        process.join()
        self.service.billed_tokens, self.service.answered = books
        if code in (None, BUG):
            self._note(f"{victim.relative_to(copy)} {how}: exit code {code}: {self.said()}")
        self.counts.damages[f"{how} and {'gone on' if code == FINISHED else 'named'}"] += 1

    def _check_end(self, code: int | None) -> None:
        if code == BUG or (code and "Traceback" in self.said()):
            self._note(f"not an error of oatflow's: {self.said()}")

    def _check_money(self) -> None:
        if self.service.billed_tokens > self.limit:
            self.counts.overspent += self.service.billed_tokens - self.limit
            self._note(f"{self.service.billed_tokens:,} tokens were billed, limit {self.limit:,}")

    def _note(self, what: str) -> None:
        self.counts.broken.append(f"seed {self.seed}: {what}")


class AlignProcess:
    """`oatflow align`, of whose processes one, drawn at random, is killed first and then all the others."""

    def __init__(self, folder: Path, uri: str, settings: Path, log: Path):
        command = [sys.executable, "-m", "oatflow.pipelines.cli", "align", "--preset", "scripted", "--ledger", uri]
        environment = os.environ | {"OATFLOW_HOME": str(folder / "home")}
        with log.open("w") as said:
            self._process = subprocess.Popen(
                [*command, "--config", str(settings)], stdout=said, stderr=said, stdin=subprocess.DEVNULL,
                env=environment, cwd=folder,
            )  # fmt: skip

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()

    def join(self, seconds: float | None = None) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self) -> None:
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            family = [root, *root.children(recursive=True)]
            for process in [random.choice(family), *family]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def damage_object(victim: Path, other: Path, how: str, chance: random.Random) -> None:
    """Flip a bit of an object, remove it, or put another one's bytes in its place."""
    if how == "lost":
        victim.unlink()
        return
    data = bytearray((other if how == "exchanged" else victim).read_bytes())
    if how == "flipped" and data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    victim.unlink()
    victim.write_bytes(data)


def play_experiment(seed: int, counts: Counts) -> None:
    """Play one experiment in a folder of its own, with a judge of its own."""
    rate = random.Random(seed).choice([0.0, 0.0, 0.1])
    with tempfile.TemporaryDirectory() as folder, openai_service(rate, seed, hold=1.0) as service:
        experiment = Experiment(seed, Path(folder), service, counts)
        counts.experiments += 1
        try:
            ended = experiment.play()
        except OatflowError as error:
            counts.broken.append(f"seed {seed}: {error}")
            ended = False
        counts.cannot_go_on += not ended
        counts.billed += service.billed_tokens
        twice = sum(times - 1 for times in service.answered.values())
        counts.paid_twice += twice
        if twice:
            counts.broken.append(f"seed {seed}: {twice} questions were answered and paid twice")


def main() -> int:
    """Play experiments for a while; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="begin no experiment after so long (60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first experiment; the next has the next (0)")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    given = parser.parse_args()
    os.environ["OATFLOW_JUDGE_KEY"] = KEY
    counts, end, seed = Counts(), time.monotonic() + given.seconds, given.seed
    while time.monotonic() < end:
        play_experiment(seed, counts)
        seed += 1
    print(json.dumps(vars(counts)) if given.json else counts)
    return 1 if counts.broken else 0
