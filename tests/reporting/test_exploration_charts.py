import pytest
from oatflow.components.reporting.curves import Explored
from oatflow.components.reporting.exploration_charts import (
    clash_chart,
    foresight_chart,
    online_chart,
    regret_chart,
    reliability_chart,
    uncertainty_chart,
)
from oatflow.components.reporting.foretold import Bin, Foretold
from oatflow.components.reporting.report_charts import draw_charts
from oatflow.components.reporting.words import percent
from oatflow.components.statistics.intervals import wilson_interval

OPPONENT = "the starting model"


def test_exploration_is_drawn_between_the_rewards_and_the_training(made_explored_row):
    found = draw_charts([made_explored_row(round_) for round_ in range(3)], OPPONENT).all
    assert [chart.name for chart in found] == [
        "win-rate", "reward", "regret", "online-win-rate", "foresight", "uncertainty", "margin", "seconds",
    ]  # fmt: skip
    for chart in found:
        assert {len(row) for row in chart.table.body} == {len(chart.table.head)} and len(chart.table.body) == 3


def test_regret_is_told_per_round_and_in_the_sum(made_explored_row):
    chart = regret_chart([made_explored_row(0, duel_regret=0.9), made_explored_row(1, regret_total=89.6)])
    assert "both answers of a duel 0.90 after 64 queries, 0.50 (95% interval 0.42 to 0.58) after 128" in chart.label
    assert "the ensemble’s choice 0.25 after 64 queries, 0.25 (95% interval 0.19 to 0.31) after 128" in chart.label
    assert "The sum over all duels so far is 89.60." in chart.note
    assert chart.table.body[1] == (
        "1", "128", "64", "0.50", "0.42", "0.58", "89.60", "0.25", "0.19", "0.31", "0.25",
    )  # fmt: skip


def test_a_passive_experiment_has_its_regret_drawn_as_the_baseline_and_nothing_of_an_ensemble(made_row):
    passive = Explored(duel_regret=0.7, regret_duels=64, regret_total=44.8)
    found = draw_charts([made_row(explored=passive)], OPPONENT).all
    assert [chart.name for chart in found] == ["win-rate", "reward", "regret", "margin", "seconds"]
    chart = found[2]
    assert "ensemble" not in chart.label and "ensemble" not in " ".join(text for _, text in chart.key)
    assert "series-" not in chart.svg


def test_a_sum_that_is_not_known_is_not_told(made_explored_row):
    chart = regret_chart([made_explored_row(0, regret_total=None)])
    assert "sum over all duels" not in chart.note
    assert chart.table.body[0][6] == "–"


def test_a_round_from_before_its_regret_had_an_interval_is_drawn_without_one(made_explored_row):
    old = made_explored_row(0, duel_regret_low=None, duel_regret_high=None)
    chart = regret_chart([old, made_explored_row(1)])
    assert chart.table.body[0][3:6] == ("0.50", "–", "–") and chart.table.body[1][3:6] == ("0.50", "0.42", "0.58")


def test_no_regret_at_all_is_drawn_on_the_floor(made_explored_row):
    none = dict.fromkeys(("duel_regret_low", "duel_regret_high", "simple_regret_low", "simple_regret_high"))
    rows = [made_explored_row(round_, duel_regret=0.0, simple_regret=0.0, **none) for round_ in (0, 1)]
    assert "0.00 after 128" in regret_chart(rows).label


def test_the_online_win_rate_is_of_the_duels_answers_with_their_interval(made_explored_row):
    chart = online_chart([made_explored_row(0), made_explored_row(1, online_win_rate=0.6)], OPPONENT)
    assert "55% after 64 queries, 60% (95% interval 45% to 64%) after 128" in chart.label
    assert chart.key[0] == ("policy", "● both answers of a duel against the starting model")
    assert chart.table.body[1] == ("1", "128", "60%", "45%", "64%", "64")


def test_foreseen_labels_come_with_wilsons_interval_brier_score_and_calibration_error(made_explored_row):
    chart = foresight_chart([made_explored_row(0)])
    low, high = wilson_interval(0.75, 64)
    assert chart.table.body == (("0", "64", "75%", percent(low), percent(high), "0.20", "0.08", "0.07", "64"),)
    assert f"(95% interval {percent(low)} to {percent(high)})" in chart.label


def test_a_round_in_which_nothing_was_foretold_is_left_out(made_explored_row):
    nothing = made_explored_row(0, rm_accuracy=None, rm_foretold=None)
    assert [row[0] for row in foresight_chart([nothing, made_explored_row(1)]).table.body] == ["1"]
    assert foresight_chart([nothing]) is None


def test_picked_pairs_are_told_from_all_pairs_in_percentage_points(made_explored_row):
    chart = uncertainty_chart([made_explored_row(0), made_explored_row(1, uncertainty_chosen=0.035)])
    assert chart.table.body == (("0", "64", "2.10", "1.40"), ("1", "128", "3.50", "1.40"))
    assert "all pairs 1.40 after 64 queries, 1.40 after 128; picked pairs 2.10 after 64" in chart.label


@pytest.mark.parametrize("rounds", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 60))])
def test_any_number_of_rounds_can_be_drawn(made_explored_row, rounds):
    assert len(draw_charts([made_explored_row(round_) for round_ in range(rounds)], OPPONENT).all) == 8


def test_clashes_are_drawn_as_a_share_of_the_duels_with_wilsons_interval(made_row):
    chart = clash_chart([made_row(0), made_row(1, clashes=16)])
    low, high = wilson_interval(0.25, 64)
    assert chart.table.body[1] == ("1", "128", "25%", percent(low), percent(high), "16", "64")
    assert clash_chart([made_row(0), made_row(1)]) is None


def test_clashes_before_they_were_repaired_are_told_where_they_were(made_row):
    rows = [made_row(0, clashes=1, explored=Explored(clash_rate_before=0.5))]
    assert clash_chart(rows).table.body[0][-1] == "50%"


def test_what_the_ensemble_promised_is_drawn_against_what_came_true():
    foretold = Foretold((Bin(0.55, 0.5, 0.3, 0.7, 20), Bin(0.9, 0.8, 0.5, 0.95, 10)), 3, 7)
    chart = reliability_chart(foretold)
    assert "of 10 duels foretold with 90%, 80% came true (95% interval 50% to 95%)" in chart.label
    assert chart.note.startswith("30 duels of rounds 3 to 7,")
    assert chart.table.body[0] == ("55%", "50%", "30%", "70%", "20")
    assert reliability_chart(None) is None
