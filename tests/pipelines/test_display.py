import io
import json
import re

import pytest
from oatflow.components.reporting.curves import Explored, RoundRow
from oatflow.pipelines.laptop.display import Display, RunState
from rich.console import Console


class Run:
    """A run that tells its progress into a file, with a clock that is set by hand, and a display that follows it."""

    def __init__(self, folder, terminal=False, width=120, budget=9, learns_rewards=False):
        self.at, self.file, self.out = 1000.0, folder / "progress.jsonl", io.StringIO()
        self.file.touch()
        console = Console(file=self.out, force_terminal=terminal, width=width, highlight=False)
        self.display = Display("first-light", 3, budget, self.file, console, lambda: self.at, learns_rewards)
        self.display.start()

    def tell(self, step, round_, event, after=0.0, **facts):
        self.at += after
        with self.file.open("a") as file:
            file.write(json.dumps({"at": self.at, "step": step, "round": round_, "event": event, **facts}) + "\n")
        self.display.poll()

    def step(self, name, round_, seconds, **end):
        self.tell(name, round_, "start")
        self.tell(name, round_, "end", after=seconds, seconds=seconds, **end)

    def round(self, round_, **label):
        self.step("open", round_, 1.0, queries_spent=3 * round_)
        self.step("sample", round_, 20.0, counts={"prompts": 3, "generated_tokens": 4533})
        self.step("label", round_, 2.0, counts={"queries": 3, "clashes": 0} | label)
        self.step("train", round_, 40.0, facts={"loss": 0.6512})
        self.step("evaluate", round_, 36.0, facts={"win_rate": 0.5, "low": 0.4, "high": 0.6})
        self.step("close", round_, 1.0)

    @property
    def lines(self):
        return self.out.getvalue().splitlines()

    @property
    def state(self):
        return self.display.state


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_off_a_terminal_every_finished_step_and_round_is_one_plain_line(run):
    run.round(0, clashes=1)
    assert run.lines == [
        "round 0  open        1.0 s",
        "round 0  sample       20 s  3 prompts, 4,533 tokens",
        "round 0  label       2.0 s  3 queries, 1 clash",
        "round 0  train        40 s  loss 0.65",
        "round 0  evaluate     36 s",
        "round 0  done in 1 min 40 s, 3 of 9 queries, win rate 50% [40, 60], about 3 min 20 s left",
    ]


def test_no_time_left_is_shown_before_a_round_was_timed(run):
    run.step("open", 0, 1.0)
    assert run.state.time_left(run.at) is None
    run.round(1)
    assert run.state.time_left(run.at) == 100.0
    run.tell("open", 2, "start", after=5.0)
    assert run.state.time_left(run.at + 30.0) == 70.0
    assert run.state.time_left(run.at + 300.0) == 0.0


def test_a_round_that_was_resumed_counts_what_its_adopted_steps_took(run):
    run.tell("open", 1, "start")
    run.tell("sample", 1, "start")
    run.tell("sample", 1, "end", seconds=25.0)
    run.tell("train", 1, "start")
    run.tell("train", 1, "end", after=40.0, seconds=40.0)
    run.tell("close", 1, "end", after=1.0, seconds=1.0)
    assert run.state.finished[0].seconds == 66.0


def test_queries_are_unknown_until_they_are_told(run):
    run.tell("open", 1, "start")
    assert run.state.queries is None
    run.tell("open", 1, "end", queries_spent=3)
    assert run.state.queries == 3
    run.tell("label", 1, "start")
    run.tell("label", 1, "work", done=2, of=4)
    assert run.state.queries == 3, "a duel may be a clash, which costs no query"
    run.tell("label", 1, "work", done=3, of=4, queries=2)
    assert run.state.queries == 5
    run.tell("label", 1, "end", counts={"queries": 3})
    assert run.state.queries == 6
    run.tell("close", 1, "end")
    run.tell("open", 2, "start")
    assert run.state.queries == 6


def test_tokens_per_second_are_taken_between_two_counts_and_not_from_the_start_up(run):
    run.tell("sample", 0, "start")
    run.tell("sample", 0, "work", after=20.0, done=0, of=4, tokens=100)
    step = run.state.now.steps["sample"]
    assert step.tokens_per_second is None
    run.tell("sample", 0, "work", after=2.0, done=2, of=4, tokens=1100)
    run.tell("sample", 0, "work", after=2.0, done=4, of=4, tokens=2100)
    assert step.tokens_per_second == 500.0
    run.tell("sample", 0, "end", seconds=24.0)
    assert run.lines[-1].endswith("500 tokens/s")


def test_half_a_line_waits_for_its_other_half(run):
    line = json.dumps({"at": run.at, "step": "open", "round": 0, "event": "start"})
    with run.file.open("a") as file:
        file.write(line[:20])
    run.display.poll()
    assert run.state.now is None
    with run.file.open("a") as file:
        file.write(line[20:] + "\n")
    run.display.poll()
    assert list(run.state.now.steps) == ["open"]


def test_a_round_without_evaluation_claims_no_win_rate(run):
    run.round(0)
    run.step("open", 1, 1.0)
    run.step("evaluate", 1, 1.0, facts={})
    run.step("close", 1, 1.0)
    assert "win rate" not in run.lines[-1]
    assert (run.state.win_rate, run.state.win_rate_round) == ((0.5, 0.4, 0.6), 0)


def test_offline_a_round_counts_preferences_and_shows_their_held_out_accuracy(tmp_path):
    run = Run(tmp_path, budget=None)
    run.step("open", 0, 1.0, queries_spent=0)
    run.step("label", 0, 2.0, counts={"queries": 0, "labels": 3, "clashes": 0})
    run.step("train", 0, 40.0, facts={"loss": 0.6512, "held_out_accuracy": 0.75})
    run.step("evaluate", 0, 1.0)
    run.step("close", 0, 1.0)
    assert run.lines[1] == "round 0  label       2.0 s  3 preferences"
    assert run.lines[-1].startswith("round 0  done in 45 s, held-out accuracy 75%, about")
    assert "quer" not in "".join(run.lines) and "win rate" not in "".join(run.lines)


def test_the_steps_of_exploration_say_what_they_measured(tmp_path):
    run = Run(tmp_path, learns_rewards=True)
    run.step("sample", 0, 20.0, counts={"prompts": 3}, facts={"synthetic": 1, "uncertainty_all": 0.01})
    run.step("fit", 0, 3.0, counts={"pairs": 2, "left_out": 1, "buffer": 2}, facts={"rm_loss": 0.62})
    run.step("evaluate", 0, 9.0, facts={"duel_regret": 0.5, "online_win_rate": 0.47, "rm_accuracy": 0.44})
    assert run.lines == [
        "round 0  sample       20 s  3 prompts, 1 synthetic",
        "round 0  fit         3.0 s  2 pairs, loss 0.62",
        "round 0  evaluate    9.0 s  regret 0.50, online win rate 47%, 44% of the labels foreseen",
    ]


@pytest.mark.parametrize("learns_rewards", [True, False])
def test_the_fit_is_awaited_after_the_training_where_a_reward_model_is_learned(tmp_path, learns_rewards):
    run = Run(tmp_path, terminal=True, learns_rewards=learns_rewards)
    run.tell("open", 0, "start")
    console = Console(file=io.StringIO(), width=120)
    console.print(run.display._draw())
    ahead = re.findall(r"· (\w+)", console.file.getvalue())
    run.display.stop()
    assert ahead == ["sample", "label", "train", *["fit"] * learns_rewards, "evaluate", "close"]


def test_notes_are_passed_on(run):
    run.tell("align", 0, "note", text="starting the S3 server")
    assert run.lines == ["starting the S3 server"]
    assert run.state.now is None


def test_a_terminal_sees_round_queries_bar_and_win_rate(tmp_path):
    run = Run(tmp_path, terminal=True)
    run.round(0)
    run.tell("open", 1, "end", queries_spent=3)
    run.tell("train", 1, "start")
    run.tell("train", 1, "work", after=20.0, done=4, of=8, loss=0.5)
    console = Console(file=io.StringIO(), width=120)
    console.print(run.display._draw())
    shown = console.file.getvalue()
    assert "first-light   round 1 (2 of 3 planned)   3 of 9 queries   win rate 50% [40, 60] after round 0" in shown
    assert "━" in shown and "4/8 loss 0.50" in shown
    assert "2 min 00 s elapsed, about 3 min 00 s left" in shown
    run.tell("train", 1, "failed", error="out of memory")
    run.display.stop()
    assert "failed" in run.out.getvalue()
    assert run.out.getvalue().count("\x1b[?25h") == 1


def test_a_narrow_terminal_keeps_the_columns_that_tell_most():
    row = RoundRow(
        3, 64, 64, 0, 64, 256, None, None, 64, 0.69, 0.1, 0.6, 0.71, 0.62, 0.79, 0.7, 0.64, 0.35, 128, *[None] * 3,
        4533, {"train": (6.0, 44.5)}, "a" * 64, "b" * 64, 1e9,
    )  # fmt: skip

    def printed(width, terminal=True):
        console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
        Display.final_table([row], console)
        return console.file.getvalue().splitlines()

    assert printed(50)[1].split() == ["3", "256", "71%", "[62,", "79]", "50", "s"]
    assert all(len(line) <= 50 for line in printed(50))
    assert len(printed(200)[0].split()) == len(printed(20, terminal=False)[0].split()) == 13


def test_on_a_narrow_terminal_exploration_keeps_what_it_is_measured_by():
    explored = Explored(
        duel_regret=0.5, online_win_rate=0.47, online_low=0.4, online_high=0.6, rm_accuracy=0.7, rm_foretold=64,
        synthetic=19,
    )  # fmt: skip
    row = RoundRow(
        3, 64, 64, 0, 64, 256, None, None, 64, 0.69, 0.1, 0.6, 0.71, 0.62, 0.79, 0.7, 0.64, 0.35, 128, *[None] * 3,
        4533, {"train": (6.0, 44.5)}, "a" * 64, "b" * 64, 1e9, explored,
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    Display.final_table([row], console)
    head, line = console.file.getvalue().splitlines()
    assert "Online win rate" in head and "Regret" in head and "Synthetic" not in head and len(line) <= 80


def test_events_of_an_unknown_step_are_shown_too():
    state = RunState(3, 9)
    state.take({"at": 1.0, "step": "fit", "round": 0, "event": "start"})
    assert list(state.now.steps) == ["fit"]
