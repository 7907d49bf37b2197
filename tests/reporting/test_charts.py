import re
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib
import pytest
from oatflow.components.reporting.report_charts import (
    draw_charts,
    length_chart,
    logprob_chart,
    margin_chart,
    reward_chart,
    seconds_chart,
    win_rate_chart,
)
from oatflow.components.reporting.svg import _move_apart

OPPONENT = "the starting model"


def points(chart, color):
    """Where the markers of one colour lie on the drawing, left to right."""
    marks = [
        use for use in ElementTree.fromstring(chart.svg).iter("use") if f"fill: var(--{color})" in use.get("style")
    ]
    return [(float(use.get("x")), float(use.get("y"))) for use in marks if "fill-opacity" not in use.get("style")]


def test_points_lie_where_the_numbers_say(made_row):
    rows = [made_row(0, queries_total=64, win_rate=0.5), made_row(1, queries_total=128, win_rate=0.6),
            made_row(2, queries_total=256, win_rate=0.8)]  # fmt: skip
    (x0, y0), (x1, y1), (x2, y2) = points(win_rate_chart(rows, OPPONENT), "policy")
    assert (x2 - x1) / (x1 - x0) == pytest.approx(2, abs=1e-3)
    assert (y2 - y1) / (y1 - y0) == pytest.approx(2, abs=1e-3)
    assert y1 < y0


def test_the_better_of_policy_and_opponent_is_drawn_higher(made_row):
    chart = reward_chart([made_row(0), made_row(1)], OPPONENT)
    own, other = points(chart, "policy"), points(chart, "opponent")
    assert len(own) == len(other) == 2
    assert all(mine[0] == its[0] and mine[1] < its[1] for mine, its in zip(own, other, strict=True))


def test_the_same_rows_give_the_same_drawing(made_row):
    rows = [made_row(round_) for round_ in range(3)]
    assert draw_charts(rows, OPPONENT) == draw_charts(rows, OPPONENT)


def test_drawing_leaves_no_global_state_behind(made_row):
    before = dict(matplotlib.rcParams)
    draw_charts([made_row()], OPPONENT)
    assert dict(matplotlib.rcParams) == before


def test_drawings_take_all_colours_and_fonts_from_the_page(made_row):
    for chart in draw_charts([made_row(round_) for round_ in range(3)], OPPONENT).all:
        assert not re.search(r"(fill|stroke): (#|black|white|rgb)", chart.svg), chart.name
        assert set(re.findall(r"font-family: ([^;\"]+)", chart.svg)) == {"inherit"}
        assert "<style" not in chart.svg


def test_every_chart_has_its_numbers_and_says_what_it_shows(made_row):
    found = draw_charts([made_row(round_) for round_ in range(3)], OPPONENT).all
    assert [chart.name for chart in found] == ["win-rate", "reward", "margin", "seconds"]
    for chart in found:
        assert len(chart.table.body) == 3
        assert {len(row) for row in chart.table.body} == {len(chart.table.head)}
    assert "71% (95% interval 62% to 79%) after 192" in found[0].label


def test_seconds_are_means_over_the_rounds_in_which_a_step_ran(made_row):
    rows = [
        made_row(0, seconds={"train": (2.0, 30.0), "evaluate": (10.0, 20.0)}),
        made_row(1, seconds={"train": (4, 50)}),
    ]
    chart = seconds_chart(rows)
    assert "train 3.0 s of start-up and 40 s of work; evaluate 10 s of start-up and 20 s of work" in chart.label
    assert chart.table.head[1:3] == ("Train, start-up", "Train, work")
    assert chart.table.body == (("0", "2.0 s", "30 s", "10 s", "20 s"), ("1", "4.0 s", "50 s", "–", "–"))


def test_offline_curves_run_over_the_preferences_of_the_set(made_offline_row):
    found = draw_charts(
        [made_offline_row(round_, held_out_accuracy=0.5 + round_ / 10) for round_ in range(3)], OPPONENT
    ).all
    assert [chart.name for chart in found] == ["held-out", "margin", "seconds"]
    held_out, margin, _ = found
    assert "preferences over preferences: pairs ranked as in the set 50% after 64 preferences" in held_out.label
    assert "70% (95% interval 62% to 77%) after 192" in held_out.label
    assert held_out.table.head[:3] == ("Round", "Preferences", "Accuracy") and margin.table.head[1] == "Preferences"
    assert held_out.table.body[2] == ("2", "192", "70%", "62%", "77%", "0.21", "128")
    assert "preferences of the set" in held_out.svg and "queries" not in "".join(chart.svg for chart in found)
    (x0, y0), (x1, y1), (x2, y2) = points(held_out, "policy")
    assert (x2 - x1, y2 - y1) == pytest.approx((x1 - x0, y1 - y0), abs=1e-3) and y1 < y0


def test_there_is_no_chart_of_what_was_not_measured(made_row):
    blank = made_row(win_rate=None, mean_reward=None, reward_margin=None, seconds={})
    assert draw_charts([blank], OPPONENT).all == draw_charts([], OPPONENT).all == ()


@pytest.mark.parametrize("rounds", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 60))])
def test_any_number_of_rounds_can_be_drawn(made_row, rounds):
    assert len(draw_charts([made_row(round_) for round_ in range(rounds)], OPPONENT).all) == 4


def test_flat_and_extreme_numbers_can_be_drawn(made_row):
    assert win_rate_chart([made_row(win_rate=1.0, low=1.0, high=1.0, queries_total=0)], OPPONENT)
    assert margin_chart([made_row(reward_margin=0.0)])
    assert seconds_chart([made_row(seconds={"train": (0.0, 0.0)})])


def test_the_win_rate_at_equal_length_is_drawn_beside_the_raw_one_with_both_intervals(made_row, made_answers):
    rows = [made_row(0, answers=made_answers()), made_row(1, answers=made_answers(longer=8))]
    chart = win_rate_chart(rows, OPPONENT)
    assert [css for css, _ in chart.key] == ["policy", "series-4", "plain"]
    assert len(points(chart, "policy")) == len(points(chart, "series-4")) == 2
    head = chart.table.head
    assert head[2:8] == ("Win rate", "95% from", "to", "At equal length", "95% from", "to")
    assert head[8:] == ("Held-out prompts", "Sign test, p", "Decided prompts")
    assert chart.table.body[0][-1] == "118" and "at equal length" in chart.label


def test_a_round_without_a_win_rate_at_equal_length_leaves_a_gap_in_its_line_alone(made_row, made_answers):
    rows = [made_row(0, answers=made_answers(wins=118, losses=9)), made_row(1, answers=made_answers())]
    chart = win_rate_chart(rows, OPPONENT)
    assert (len(points(chart, "policy")), len(points(chart, "series-4"))) == (2, 1)
    assert chart.table.body[0][5:8] == ("–", "–", "–")


def test_answers_that_grow_longer_are_drawn_so(made_row, made_answers):
    rows = [made_row(round_, answers=made_answers(longer=5 * round_)) for round_ in range(3)]
    chart = length_chart(rows, OPPONENT)
    (_, first), _, (_, last) = points(chart, "policy")
    assert last < first and len({y for _, y in points(chart, "opponent")}) == 1
    assert [row[8] for row in chart.table.body] == ["0.00", "5.00", "10.00"]
    assert length_chart([made_row()], OPPONENT) is None


def test_means_of_known_rewards_come_with_their_intervals(made_row, made_answers):
    chart = reward_chart([made_row(0, answers=made_answers())], OPPONENT)
    assert chart.table.head[2:] == ("Policy", "95% from", "to", "Opponent", "95% from", "to")
    assert reward_chart([made_row(0)], OPPONENT).table.head[2:] == ("Policy", "Opponent")


def test_log_probabilities_of_chosen_and_rejected_answers_are_drawn_where_they_were_measured(made_row):
    rows = [made_row(round_, chosen_logprob=-40.0 - round_, rejected_logprob=-44.0 - 2 * round_) for round_ in (0, 1)]
    chart = logprob_chart(rows)
    assert "rejected -44.00 after 64 queries, -46.00 after 128; chosen -40.00 after 64" in chart.label
    assert chart.table.body[1][2:4] == ("-41.00", "-46.00")
    assert logprob_chart([made_row()]) is None


def test_numbers_for_programs_are_not_rounded_for_people(made_row):
    lines = win_rate_chart([made_row(win_rate=1 / 3)], OPPONENT).table.csv.splitlines()
    assert lines == ["Round,Queries,Win rate,95% from,to,Held-out prompts", "0,64,0.333333,0.62,0.79,128"]


def test_labels_at_the_ends_of_curves_never_lie_on_each_other():
    placed = sorted(_move_apart([100.0, 100.0, 101.0, 180.0]))
    assert min(high - low for low, high in pairwise(placed)) > 13.5
    assert placed[-1] == 180.0 and _move_apart([10.0, 90.0]) == [10.0, 90.0]
