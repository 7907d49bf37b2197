import re

import numpy as np
import pytest
from oatflow.components.reward_model.settings import RewardModelSettings
from oatflow.components.simulator.play import Moment, Play, Rules
from oatflow.components.simulator.tournament import (
    SeedMean,
    Tournament,
    average_play,
    average_seeds,
    measure_curve,
    measure_difference,
    play_tournament,
    summarise_strategies,
)
from oatflow.components.simulator.tournament_charts import draw_tournament
from oatflow.components.simulator.tournament_page import render_tournament
from oatflow.components.simulator.tournament_table import (
    align_columns,
    compare_with_random,
    format_mean,
    state_findings,
    tabulate_tournament,
    write_csv,
)
from oatflow.components.simulator.worlds import gaussian_world
from oatflow.components.statistics.exact import student_quantile

SMALL = RewardModelSettings.parse({"num_ensemble": 3, "rm_hidden_dim": 8, "rm_batch_size": 16})
RULES = Rules(queries=48, prompts=16, reward_model=SMALL)


def worlds(count):
    return [gaussian_world("linear", candidates=4, features=3, seed=seed) for seed in range(count)]


def made(strategy, seed, *win_rates, step=10, regret=1.0):
    """A play with these win rates, the first one before the first round."""
    moments = [Moment(step * n, regret, 0.0, 0.5, rate, 0.75) for n, rate in enumerate(win_rates)]
    return Play(strategy, seed, tuple(moments))


def compared(*plays, queries=40):
    names = dict.fromkeys(play.strategy for play in plays)
    return Tournament(Rules(queries=queries, prompts=10), tuple(names), plays)


@pytest.fixture(scope="module")
def small():
    return play_tournament(worlds(2), ["EnnEETS"], RULES)


def test_random_is_always_there_and_everybody_has_the_same_budget(small):
    assert small.strategies == ("random", "EnnEETS") and small.seeds == 2
    assert {play.spent for play in small.plays} == {48}
    assert [(play.strategy, play.seed) for play in small.plays] == [
        ("random", 0), ("EnnEETS", 0), ("random", 1), ("EnnEETS", 1),
    ]  # fmt: skip


@pytest.mark.slow
def test_processes_change_nothing(small):
    assert repr(play_tournament(worlds(2), ["EnnEETS"], RULES, jobs=2)) == repr(small)


def test_every_play_is_told():
    told = []
    play_tournament(worlds(1), ["EnnEETS"], RULES, tell=lambda done, all_: told.append((done, all_)))
    assert told == [(1, 2), (2, 2)]


def test_an_interval_by_hand():
    # Mean 2, standard deviation 1, three values: 4.3027 / sqrt(3) on either side.
    assert average_seeds([1.0, 2.0, 3.0]) == SeedMean(
        2.0, pytest.approx(2 - 2.4841, abs=1e-4), pytest.approx(4.4841, abs=1e-4)
    )
    assert average_seeds([0.7]) == SeedMean(0.7, None, None)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (4, 2.7764), (30, 2.0423), (31, 2.0395), (100, 1.9840)]
)
def test_students_quantiles(freedom, quantile):
    assert student_quantile(freedom) == pytest.approx(quantile, abs=1e-4)


def test_nineteen_of_twenty_intervals_hold_the_true_mean():
    samples = np.random.default_rng(0).standard_normal((2000, 5))
    held = [value.low <= 0 <= value.high for value in map(average_seeds, samples)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_the_last_quarter_of_the_queries_counts_for_the_model_and_every_round_for_the_duels():
    play = made("random", 0, 0.0, 0.2, 0.4, 0.6, 0.8)
    assert average_play(play, "win_rate") == 0.8
    play = Play("random", 0, tuple(Moment(n, float(n), 0.0, 0.0, 0.0, 0.0) for n in range(5)))
    assert average_play(play, "duel_regret") == 2.5


def test_differences_to_random_are_paired_by_seed():
    # Worlds differ much, strategies always by 0.1.
    plays = [made("random", 0, 0.0, 0.3), made("random", 1, 0.0, 0.8), made("A", 0, 0.0, 0.4), made("A", 1, 0.0, 0.9)]
    random, other = summarise_strategies(compared(*plays))
    assert random.against_random is None
    difference = other.against_random["win_rate"]
    assert (difference.mean, difference.low, difference.high) == pytest.approx((0.1, 0.1, 0.1))
    # Two seeds say nothing of the mean, but no rate is below 0 or above 1.
    assert (other.measures["win_rate"].low, other.measures["win_rate"].high) == (0.0, 1.0)
    [(queries, ahead)] = measure_difference(compared(*plays, queries=10), "A", "win_rate")
    assert queries == 10 and (ahead.low, ahead.high) == pytest.approx((0.1, 0.1))


def test_a_curve_holds_what_was_last_measured_at_each_number_of_queries():
    play = Play(
        "random",
        0,
        tuple(Moment(q, 0.0, 0.0, 0.0, rate, 0.0) for q, rate in [(0, 0.1), (7, 0.2), (25, 0.3), (40, 0.4)]),
    )
    points = measure_curve(compared(play), "random", "win_rate")
    assert [(queries, value.mean) for queries, value in points] == [(10, 0.2), (20, 0.2), (30, 0.3), (40, 0.4)]


def test_numbers_as_people_read_them():
    assert format_mean(SeedMean(0.714, 0.699, 0.729), share=True) == "71.4% [69.9, 72.9]"
    assert format_mean(SeedMean(0.01, -0.002, 0.02), share=True, signed=True) == "+1.0 [-0.2, 2.0]"
    assert format_mean(SeedMean(-0.00001, None, None), share=False) == "0.000"
    assert format_mean(SeedMean(float("nan"), None, None), share=True) == "–"


def test_a_verdict_needs_an_interval_on_one_side_of_zero():
    better, worse, unsure = [(0.9, 0.9), (0.1, 0.1), (0.2, 0.8)]
    plays = [made("random", seed, 0.0, 0.5) for seed in (0, 1)]
    for name, rates in (("A", better), ("B", worse), ("C", unsure)):
        plays += [made(name, seed, 0.0, rate + 0.01 * seed) for seed, rate in enumerate(rates)]
    first, second, *rest = state_findings(compared(*plays, queries=10))
    assert first.endswith("A better than random; B worse; C not distinguishable from it.")
    assert second.endswith("A, B, C not distinguishable from it.")
    assert len(rest) == 1 and "none of these 6 comparisons" in rest[0]


def test_no_rate_is_above_all_and_no_regret_below_none():
    plays = [made(name, seed, 0.0, rate, regret=regret) for name in ("random", "A")
             for seed, (rate, regret) in enumerate([(0.99, 0.01), (0.8, 0.4)])]  # fmt: skip
    for summary in summarise_strategies(compared(*plays)):
        assert (summary.measures["win_rate"].low, summary.measures["win_rate"].high) == (0.0, 1.0)
        assert summary.measures["duel_regret"].low == 0.0
    ((_, value),) = measure_curve(compared(*plays, queries=10), "A", "win_rate")
    assert format_mean(value, share=True) == "89.5% [0.0, 100.0]"


def test_of_many_strategies_that_are_no_better_hardly_one_is_called_better_by_chance():
    random, called = np.random.default_rng(2), 0
    for _ in range(100):
        plays = [made("random", seed, 0.0, rate) for seed, rate in enumerate(random.normal(0.5, 0.1, 5))]
        for name in "ABCDEFG":
            plays += [made(name, seed, 0.0, rate) for seed, rate in enumerate(random.normal(0.5, 0.1, 5))]
        called += any(compare_with_random(summarise_strategies(compared(*plays))).values())
    # Without a correction it is about every fourth.
    assert called <= 9


def test_less_regret_is_better():
    plays = [made("random", seed, 0.0, 0.5, regret=2.0) for seed in (0, 1)]
    plays += [made("A", seed, 0.0, 0.5, regret=1.0) for seed in (0, 1)]
    assert state_findings(compared(*plays, queries=10))[1].endswith("A better than random.")


def test_one_seed_decides_nothing():
    said = state_findings(compared(made("random", 0, 0.0, 0.5), made("A", 0, 0.0, 0.9), queries=10))
    assert all("one seed cannot separate the strategies" in line for line in said)


def test_an_unspent_budget_is_told():
    said = state_findings(compared(made("random", 0, 0.0, 0.5), made("A", 0, 0.0, 0.9, step=3), queries=10))
    assert said[-1].startswith("A spent 3 of 10 queries")


def test_the_table_has_a_row_for_everybody_and_its_columns_stand_in_line(small):
    rows = tabulate_tournament(small)
    assert [row[0] for row in rows] == ["Strategy", "random", "EnnEETS"]
    assert rows[1][2] == "–" and re.fullmatch(r"[+-]\d+\.\d \[-?\d+\.\d, -?\d+\.\d\]", rows[2][2])
    assert len({len(line) for line in align_columns(rows)}) == 1


def test_the_csv_has_a_line_for_every_round_of_every_play(small):
    head, *rows = write_csv(small).splitlines()
    assert head == "strategy,seed,round,queries,win_rate,simple_regret,pair_accuracy,duel_regret,clash_rate"
    assert len(rows) == sum(len(play.moments) for play in small.plays)
    assert rows[0].startswith("random,0,0,0,0.") and rows[0].endswith(",,")


def test_the_page_shows_every_strategy_in_every_chart_and_needs_nothing_else(small):
    html = render_tournament(small, "a world of <Gaussians>", {"queries": 48})
    assert "a world of &lt;Gaussians&gt;" in html
    assert not re.search(r"(src|href)=[\"']?(http|//)|url\(http", html) and html.count("<script") == 1
    charts = draw_tournament(small)
    assert [chart.name for chart in charts] == ["win-rate", "ahead", "simple-regret", "duel-regret"]
    for chart in charts:
        assert chart.svg in html
        for place, strategy in enumerate(small.strategies):
            drawn = chart.name != "ahead" or strategy != "random"
            assert (f"var(--series-{place})" in chart.svg) == (f"{strategy} ends at" in chart.label) == drawn


def test_the_same_comparison_gives_the_same_page(small):
    again = play_tournament(worlds(2), ["EnnEETS"], RULES)
    assert render_tournament(small, "w", {}) == render_tournament(again, "w", {})


def test_a_page_of_one_seed_and_one_round_works():
    one = play_tournament(worlds(1), [], Rules(queries=1, prompts=1, reward_model=SMALL))
    assert "Random alone, 1 seed, 1 query each" in render_tournament(one, "w", {})
