"""Live progress of `oatflow align`: what the steps tell, as a person at a terminal, or a log, wants to see it.

`RunState` takes the events in and knows where the run stands; `Display` follows the progress file and draws the state.
Nothing is shown that was not measured: no time left before a round has been timed, no rate before tokens were counted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from oatflow.components.reporting.curves import RoundRow
from oatflow.components.reporting.metrics import describe_live
from oatflow.components.reporting.summary import summary_table
from oatflow.components.reporting.words import count, duration, interval, percent, rounded, seconds
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

STEPS = ("open", "sample", "label", "train", "fit", "evaluate", "close")
_EXPENDABLE = (
    "Clashes", "Pairs", "Opponent's", "Loss", "Margin", "Synthetic", "Reward", "Foreseen", "Time", "Online win rate",
    "Regret",
)  # fmt: skip


@dataclass
class StepState:
    """One step of a round so far.

    `waits`: what it waits for. `first` and `last` are the times and token counts that a rate is taken between.
    """

    name: str
    started: float
    done: int | None = None
    of: int | None = None
    loss: float | None = None
    queries: int = 0
    first: tuple[float, int] | None = None
    last: tuple[float, int] | None = None
    seconds: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    failed: bool = False
    waits: str | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens over the time in which they were counted, or None before two counts."""
        if self.first is None or self.last is None or self.last[0] <= self.first[0]:
            return None
        return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])

    def work(self, event: Mapping[str, Any]) -> None:
        """Take in a report of work in progress; `tokens` and `queries` count from the beginning of the step."""
        self.waits = None
        self.done, self.of = event.get("done", self.done), event.get("of", self.of)
        self.loss, self.queries = event.get("loss", self.loss), event.get("queries", self.queries)
        if "tokens" in event:
            self.last = (event["at"], event["tokens"])
            self.first = self.first or self.last

    def notes(self) -> str:
        """Say what the step measured, or measures, or waits for."""
        if self.waits is not None:
            return self.waits
        parts = [*describe_live(self.counts)]
        if self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        loss = self.facts.get("loss", self.facts.get("rm_loss", self.loss))
        if loss is not None:
            parts.append(f"loss {rounded(loss)}")
        parts += describe_live(self.facts)
        return ", ".join(parts)


@dataclass
class RoundState:
    """One round so far."""

    number: int
    started: float
    steps: dict[str, StepState] = field(default_factory=dict)
    seconds: float | None = None


@dataclass
class RunState:
    """Where a run stands. `rounds`: how many are planned to be done when the run ends; `queries`: spent so far.

    `budget`: queries that it may spend, or None where the experiment is offline and no query counts. `most`: how many
    rounds the experiment has at most when the run ends, if there is a limit.
    """

    rounds: int
    budget: int | None
    most: int | None = None
    now: RoundState | None = None
    finished: list[RoundState] = field(default_factory=list)
    queries_before: int | None = None
    win_rate: tuple[float, float, float] | None = None
    win_rate_round: int | None = None
    held_out_accuracy: float | None = None
    held_out_round: int | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one event in."""
        name, kind = event["step"], event["event"]
        if self.now is None or self.now.number != event["round"]:
            self._begin_round(event)
        assert self.now is not None
        step = self.now.steps.get(name)
        if step is None or kind == "start":
            step = self.now.steps[name] = StepState(name, event["at"])
        if kind == "work":
            step.work(event)
        elif kind == "waits":
            step.waits = event["why"]
        elif kind == "failed":
            step.failed = True
        elif kind == "end":
            self._end(step, event)

    @property
    def queries(self) -> int | None:
        """Queries spent in the experiment so far, or None where this run has not been told."""
        label = self.now.steps.get("label") if self.now else None
        if self.queries_before is None or label is None:
            return self.queries_before
        return self.queries_before + label.counts.get("queries", label.queries)

    def time_left(self, at: float) -> float | None:
        """Estimate the seconds left from the rounds that were timed, or None before the first."""
        timed = [round_.seconds for round_ in self.finished if round_.seconds is not None]
        if not timed:
            return None
        mean = sum(timed) / len(timed)
        if self.now is None:
            return mean * (self.rounds - self.finished[-1].number - 1)
        return mean * (self.rounds - self.now.number - 1) + max(0.0, mean - (at - self.now.started))

    def _begin_round(self, event: Mapping[str, Any]) -> None:
        self.now = RoundState(event["round"], event["at"])
        if event["round"] == 0:
            self.queries_before = 0

    def _end(self, step: StepState, event: Mapping[str, Any]) -> None:
        assert self.now is not None
        step.seconds = event.get("seconds", event["at"] - step.started)
        step.counts, step.facts = event.get("counts", {}), event.get("facts", {})
        if step.name == "open":
            self.queries_before = event.get("queries_spent", self.queries_before)
            # Clashes save queries, which pay for further rounds.
            planned = event.get("rounds_planned", self.rounds)
            self.rounds = planned if self.most is None else min(planned, self.most)
        if step.name == "evaluate" and step.facts.get("win_rate") is not None:
            self.win_rate = (step.facts["win_rate"], step.facts["low"], step.facts["high"])
            self.win_rate_round = self.now.number
        if step.name == "train" and step.facts.get("held_out_accuracy") is not None:
            self.held_out_accuracy = step.facts["held_out_accuracy"]
            self.held_out_round = self.now.number
        if step.name == "close":
            self._end_round(event["at"])

    def _end_round(self, at: float) -> None:
        assert self.now is not None
        # A round that goes on after a kill adopts finished steps at once; what they took counts all the same.
        in_steps = sum(step.seconds or 0.0 for step in self.now.steps.values())
        self.now.seconds = max(at - self.now.started, in_steps)
        self.queries_before = self.queries
        self.finished.append(self.now)
        self.now = None


class Display:
    """Follows a progress file and shows the run: live on a terminal, otherwise one plain line a step."""

    def __init__(
        self,
        name: str,
        rounds: int,
        budget: int | None,
        progress_file: Path,
        console: Console | None = None,
        clock: Callable[[], float] = time.time,
        learns_rewards: bool = False,
        most: int | None = None,
    ):
        self.state = RunState(rounds, budget, most)
        self._name, self._file, self._clock = name, progress_file, clock
        self._console = console or Console(highlight=False)
        self._started = clock()
        self._steps_ahead = [step for step in STEPS if learns_rewards or step != "fit"]
        self._read, self._spinner = 0, Spinner("dots", style="cyan")
        self._live: Live | None = None

    def start(self) -> None:
        """Begin to show."""
        self._started = self._clock()
        if self._console.is_terminal:
            self._live = Live(self._draw(), console=self._console, auto_refresh=False)
            self._live.start()

    def poll(self) -> None:
        """Take in what was told since the last call, and show it. Never waits."""
        for event in self._new_events():
            if event["event"] == "note":
                self._say(event["text"])
                continue
            self.state.take(event)
            self._say_what_ended(event)
        if self._live is not None:
            self._live.update(self._draw(), refresh=True)

    def stop(self) -> None:
        """Show the last state and leave the terminal as it was."""
        self.poll()
        if self._live is not None:
            self._live.stop()
            self._live = None

    @staticmethod
    def final_table(rows: Sequence[RoundRow], console: Console | None = None) -> None:
        """Print the table of rounds; on a narrow terminal without its least telling columns."""
        console = console or Console(highlight=False)
        lines = _fit_columns(summary_table(rows), console.width if console.is_terminal else 1000)
        head, *body = lines
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for cells, style in [(head, "bold"), *((cells, "") for cells in body)]:
            line = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
            console.print(Text(line, style), soft_wrap=True)

    def _new_events(self) -> Iterator[dict[str, Any]]:
        with self._file.open("rb") as file:
            file.seek(self._read)
            told = file.read()
        whole = told[: told.rfind(b"\n") + 1]
        self._read += len(whole)
        yield from map(json.loads, whole.splitlines())

    def _say_what_ended(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "waits" and self._live is None:
            self._say(f"round {event['round']}  {event['step']:9} waits: {event['why']}")
        if event["event"] != "end":
            return
        if event["step"] == "close":
            self._say(self._round_line(self.state.finished[-1]))
        elif self._live is None and self.state.now is not None:
            step = self.state.now.steps[event["step"]]
            self._say(f"round {event['round']}  {step.name:9} {seconds(step.seconds):>7}  {step.notes()}".rstrip())

    def _say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def _round_line(self, round_: RoundState) -> str:
        parts = [f"round {round_.number}  done in {duration(round_.seconds)}"]
        parts += self._queries()
        if self.state.win_rate_round == round_.number:
            parts.append(self._win_rate())
        if self.state.held_out_round == round_.number:
            parts.append(self._held_out())
        left = self.state.time_left(self._clock())
        if self._live is None and left:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def _queries(self) -> list[str]:
        if self.state.queries is None or self.state.budget is None:
            return []
        return [f"{count(self.state.queries)} of {count(self.state.budget)} queries"]

    def _held_out(self) -> str:
        return f"held-out accuracy {percent(self.state.held_out_accuracy)}"

    def _win_rate(self) -> str:
        assert self.state.win_rate is not None
        rate, low, high = self.state.win_rate
        return f"win rate {percent(rate)} {interval(low, high)}"

    def _draw(self) -> RenderableType:
        steps = [self._steps(self.state.now)] if self.state.now else []
        return Group("", self._title(), *steps, self._clock_line())

    def _title(self) -> Text:
        state, parts = self.state, [Text(self._name, "bold")]
        if state.now is not None:
            parts.append(Text(f"round {state.now.number} ({state.now.number + 1} of {state.rounds} planned)"))
        parts += map(Text, self._queries())
        if state.win_rate is not None:
            parts.append(Text(f"{self._win_rate()} after round {state.win_rate_round}", "green"))
        if state.held_out_accuracy is not None:
            parts.append(Text(f"{self._held_out()} after round {state.held_out_round}", "green"))
        return Text("   ").join(parts)

    def _steps(self, round_: RoundState) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(width=8)
        table.add_column(width=7, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis")
        for name in dict.fromkeys((*self._steps_ahead, *round_.steps)):
            table.add_row(*self._step_row(name, round_.steps.get(name)))
        return table

    def _step_row(self, name: str, step: StepState | None) -> tuple[RenderableType, ...]:
        if step is None:
            return Text("·", "dim"), Text(name, "dim")
        if step.failed:
            return Text("✗", "bold red"), Text(name, "red"), "", Text(" failed", "red")
        running = step.seconds is None
        taken = self._clock() - step.started if running else step.seconds
        mark = self._spinner if running else Text("✓", "green")
        return mark, name, seconds(taken), _draw_bar(step) if running and step.of else Text(f" {step.notes()}", "dim")

    def _clock_line(self) -> Text:
        line = f"{duration(self._clock() - self._started)} elapsed"
        left = self.state.time_left(self._clock())
        return Text(line if left is None else f"{line}, about {duration(left)} left", "dim")


class StepBar:
    """Prints lines and, on a terminal, keeps one below them: how many steps are over, and what is at work."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.time):
        self._console, self._clock = console or Console(highlight=False), clock
        self._over, self._of = 0, 0
        self._at_work: Sequence[tuple[str, datetime | None]] = ()
        self._spinner, self._started = Spinner("dots", style="cyan"), clock()
        self._live: Live | None = None

    @classmethod
    def for_stream(cls, stream: TextIO) -> StepBar:
        """Return one that prints to a stream."""
        return cls(Console(file=stream, highlight=False))

    def __enter__(self) -> StepBar:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def print_line(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(Text(line), soft_wrap=True)

    def update(self, over: int, of: int, at_work: Sequence[tuple[str, datetime | None]]) -> None:
        """Show that so many steps are over, and which are at work since when."""
        self._over, self._of, self._at_work = over, of, at_work

    def _draw(self) -> RenderableType:
        now = self._clock()
        work = [
            f"{name} for {duration(max(0.0, now - since.timestamp()))}" if since else name
            for name, since in self._at_work
        ]
        grid = Table.grid(padding=(0, 1))
        for _ in range(3):
            grid.add_column(no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(max(self._of, 1), self._over, width=16, complete_style="cyan", finished_style="green")
        elapsed = f"{self._over}/{self._of} steps, {duration(now - self._started)}"
        grid.add_row(self._spinner, bar, f"{elapsed}   {', '.join(work) or 'between two steps'}")
        return grid


def describe_measurements(name: str, end: Mapping[str, Any]) -> str:
    """Return what a step measured in words, from the event of its end."""
    return StepState(name, 0.0, counts=end.get("counts", {}), facts=end.get("facts", {})).notes()


def describe_win_rate(facts: Mapping[str, Any]) -> str:
    """Return the win rate with its interval, or "" where none was measured."""
    if facts.get("win_rate") is None:
        return ""
    return f"win rate {percent(facts['win_rate'])} {interval(facts.get('low'), facts.get('high'))}"


def _draw_bar(step: StepState) -> RenderableType:
    grid = Table.grid(padding=(0, 0, 0, 1))
    bar = ProgressBar(step.of, step.done or 0, width=24, complete_style="cyan", finished_style="green")
    grid.add_row(bar, f"{step.done}/{step.of}", Text(step.notes(), "dim"))
    return grid


def _fit_columns(lines: list[list[str]], width: int) -> list[list[str]]:
    """Leave out columns, the least telling first, until the table is narrow enough."""
    for name in [name for name in _EXPENDABLE if name in lines[0]]:
        if sum(max(map(len, column)) + 2 for column in zip(*lines, strict=True)) - 2 <= width:
            break
        place = lines[0].index(name)
        lines = [cells[:place] + cells[place + 1 :] for cells in lines]
    return lines
