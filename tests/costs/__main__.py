"""What early and late rounds cost, and the report after them, on a scripted experiment in a directory.

    .venv/bin/python -m tests.costs --rounds 10,100,400

For each of these rounds it prints the operations on the store, and CPU and wall seconds (medians of five rounds, up to
this one). A round is done as its steps do it, each of which opens the ledger anew. The exit code is 1 where a later one
needs more than 10 % more store operations than the first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from oatflow.components.ledger.ledger import Ledger
from oatflow.components.reporting.page import write_report
from oatflow.components.store.local import LocalStore
from oatflow.pipelines.alignment.config import gather

from ..chaos.rounds import play_rounds

OPERATIONS = ("get", "put", "put_if_absent", "replace", "list", "delete", "upload", "download")
MEASURED_ROUNDS = 5
MOST_GROWTH = 1.1


@dataclass(frozen=True)
class Cost:
    """What a piece of work cost."""

    operations: int
    cpu: float
    wall: float


class OperationCounter:
    """Counts operations on stores in directories, but not what such an operation does itself."""

    def __init__(self) -> None:
        self.total = 0
        self._inside = False
        for name in OPERATIONS:
            setattr(LocalStore, name, self._count_calls(getattr(LocalStore, name)))

    def _count_calls(self, original: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object) -> object:
            if self._inside:
                return original(*given)
            self.total += 1
            self._inside = True
            try:
                return original(*given)
            finally:
                self._inside = False

        return call

    def measure(self, work: Callable[[], object]) -> Cost:
        """Do the work, and return what it cost."""
        operations, cpu, wall = self.total, time.process_time(), time.perf_counter()
        work()
        return Cost(self.total - operations, time.process_time() - cpu, time.perf_counter() - wall)


def median_cost(costs: list[Cost]) -> Cost:
    """Return the median of each number."""
    operations = round(statistics.median(cost.operations for cost in costs))
    return Cost(
        operations, statistics.median(cost.cpu for cost in costs), statistics.median(cost.wall for cost in costs)
    )


def main() -> int:
    """Play rounds and print what some of them cost; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tests.costs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", default="10,100,400", help="which rounds, counted from 1 (10,100,400)")
    parser.add_argument("--strategy", default="passive", help="exp_method (passive)")
    given = parser.parse_args()
    shown = sorted(int(number) for number in given.rounds.split(","))
    wanted = {
        "rollout_batch_size": "8", "max_eval": "8", "reward": "length", "exp_method": given.strategy,
        "max_queries": str(16 * shown[-1]),
    }  # fmt: skip
    settings = gather("scripted", None, wanted).model_dump(mode="json")
    counter = OperationCounter()
    rounds: list[Cost] = []
    lines: list[tuple[str, Cost]] = []
    reports: list[tuple[str, Cost]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OATFLOW_PROGRESS"] = f"{folder}/progress"
        uri = f"file://{folder}/experiment"
        for number in range(1, shown[-1] + 1):
            rounds.append(counter.measure(lambda: play_rounds(uri, settings, "run", 1)))
            if number in shown:
                lines.append((f"round {number}", median_cost(rounds[-MEASURED_ROUNDS:])))
                reports.append((f"report after {number}", counter.measure(lambda: write_report(Ledger.open(uri)))))
                assert Ledger.open(uri).read_head().round == number - 1, "every round was played"
    print(f"{'':20}{'store operations':>18}{'CPU seconds':>14}{'wall seconds':>14}")
    for name, cost in [*lines, *reports]:
        print(f"{name:20}{cost.operations:18,}{cost.cpu:14.3f}{cost.wall:14.3f}")
    return int(any(grows(table) for table in (lines, reports)))


def grows(table: list[tuple[str, Cost]]) -> bool:
    """Whether a later line has more store operations than the first by more than a tenth."""
    return max(cost.operations for _, cost in table) > MOST_GROWTH * table[0][1].operations


if __name__ == "__main__":
    sys.exit(main())
