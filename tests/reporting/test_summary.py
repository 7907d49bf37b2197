import pytest
from oatflow.components.reporting.page import render_report
from oatflow.components.reporting.summary import headline, how_picked, page_markdown, reading, summary_table
from oatflow.components.reporting.words import count, duration, interval, percent, rounded, seconds


def test_the_headline_states_interval_prompts_opponent_and_judge(made_report):
    assert headline(made_report()) == (
        "After 384 queries the policy wins 71% [62, 79] of 128 held-out prompts against the starting model, "
        "judged by simulated/vader-3.3.2/T=0.1."
    )


def test_the_headline_is_about_the_last_evaluated_round(made_report, made_row):
    rows = (made_row(0), made_row(1, win_rate=None, low=None, high=None))
    assert headline(made_report(rows=rows)).startswith("After 64 queries the policy wins 71%")


def test_nothing_evaluated_is_said_to_be_so(made_report, made_row):
    rows = (made_row(0, win_rate=None, low=None, high=None, queries_total=1),)
    assert headline(made_report(rows=rows)) == (
        "After 1 query nothing has been evaluated yet, so there is no win rate to report."
    )
    assert reading(made_report(rows=rows)) == ""


def test_without_a_finished_round_there_is_nothing_to_report(made_report):
    assert headline(made_report(rows=())) == "No round is finished yet, so there is nothing to report."


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.51, 0.9, "is better than"),
        (0.5, 0.9, "is not yet distinguishable"),
        (0.3, 0.5, "not yet"),
        (0.3, 0.49, "is worse"),
    ],
)
def test_only_an_interval_without_one_half_decides(made_report, made_row, low, high, said):
    assert said in reading(made_report(rows=(made_row(low=low, high=high),)))


def test_the_table_has_a_dash_where_nothing_was_measured(made_row):
    row = made_row(1, clashes=3, win_rate=None, low=None, high=None, mean_reward=None, opponent_mean_reward=None)
    head, _, line = summary_table([made_row(0), row])
    assert dict(zip(head, line, strict=True)) == {
        "Round": "1", "Queries": "128", "Win rate": "–", "95% interval": "–", "Reward": "–", "Opponent's": "–",
        "Pairs": "64", "Clashes": "3", "Loss": "0.69", "Margin": "0.10", "Time": "1 min 12 s",
    }  # fmt: skip


def test_a_column_that_no_round_has_a_number_for_is_left_out(made_row, made_offline_row):
    head, line = summary_table([made_offline_row(1)])
    assert dict(zip(head, line, strict=True)) == {
        "Round": "1", "Preferences": "128", "Held-out accuracy": "75% [67, 82]", "Pairs": "64", "Clashes": "0",
        "Loss": "0.69", "Margin": "0.10", "Time": "1 min 12 s",
    }  # fmt: skip
    assert "Held-out accuracy" not in summary_table([made_row()])[0]
    assert "Win rate" not in summary_table([made_row(win_rate=None)])[0]


def test_exploration_has_its_columns_where_it_was_measured(made_explored_row, made_row):
    head, _, line = summary_table([made_explored_row(0), made_explored_row(1, synthetic=19, rm_foretold=45)])
    cells = dict(zip(head, line, strict=True))
    assert {name: cells[name] for name in ("Online win rate", "Regret", "Foreseen", "Synthetic")} == {
        "Online win rate": "55% [45, 64]", "Regret": "0.50 [0.42, 0.58]", "Foreseen": "75% [61, 85]", "Synthetic": "19",
    }  # fmt: skip
    assert not {"Online win rate", "Regret", "Foreseen", "Synthetic"} & set(summary_table([made_row()])[0])


def test_an_experiment_that_makes_no_synthetic_pairs_has_no_column_of_zeros(made_explored_row):
    assert "Synthetic" not in summary_table([made_explored_row(0), made_explored_row(1)])[0]
    rows = [made_explored_row(0), made_explored_row(1, synthetic=1)]
    assert [line[summary_table(rows)[0].index("Synthetic")] for line in summary_table(rows)[1:]] == ["0", "1"]


def test_a_duel_says_what_picked_it_and_what_was_foretold(made_duel):
    duel = made_duel(strategy="EnnBAITS", synthetic=False, predicted=0.53, uncertainty=0.018).duel
    assert how_picked(duel) == ("Picked by EnnBAITS. The ensemble’s prediction: the first wins with 53% ± 1.8 points.")
    assert how_picked(made_duel(strategy="APL").duel) == "Picked by APL."
    assert how_picked(made_duel(strategy="EnnPassive", predicted=0.5, uncertainty=0.0).duel).startswith(
        "The ensemble’s prediction"
    )


def test_a_duel_that_nothing_picked_says_nothing(made_duel):
    assert how_picked(made_duel().duel) == how_picked(made_duel(strategy="passive").duel) == ""


def test_a_synthetic_pair_says_who_labelled_it(made_duel):
    told = {"strategy": "EnnBAITS", "synthetic": True, "member": 7}
    assert how_picked(made_duel(**told, member_first_wins=0.9).duel) == (
        "Synthetic pair: labelled by member 7 of the ensemble, without asking the oracle."
    )
    assert how_picked(made_duel(**told).duel) == (
        "Synthetic pair: proposed by member 7 of the ensemble, labelled by the oracle."
    )


def test_a_win_rate_of_the_best_of_several_answers_is_said_to_be_that(made_report):
    best = {"evaluation": {"opponent": "pretrain", "num_bon": 4}}
    assert headline(made_report(settings=best)).startswith(
        "After 384 queries the policy, best of 4 answers by its reward model, wins 71% [62, 79] of 128"
    )
    fixed = best | {"policy": {"learn_rm_only": True}}
    assert " the starting model, best of 4 answers by its reward model, wins" in headline(made_report(settings=fixed))


def test_offline_the_headline_states_pairs_and_interval_and_no_query(made_report, made_offline_row):
    report = made_report(rows=(made_offline_row(0), made_offline_row(1)), verdicts=())
    assert headline(report) == (
        "After 128 preferences the policy ranks 75% [67, 82] of 128 held-out pairs as the preference set does."
    )
    assert "ranks the better answer above the worse one" in reading(report)
    assert "Nothing was sampled" in reading(report)


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [(0.61, "ranks the better"), (0.52, "are not yet distinguishable"), (0.3, "prefers the worse")],
)
def test_only_an_interval_without_one_half_tells_ranks_from_chance(made_report, made_offline_row, accuracy, said):
    assert said in reading(made_report(rows=(made_offline_row(held_out_accuracy=accuracy),)))


def test_a_win_rate_that_was_measured_offline_comes_first(made_report, made_offline_row):
    row = made_offline_row(win_rate=0.71, low=0.62, high=0.79, held_out=100)
    assert headline(made_report(rows=(row,))).startswith("After 64 preferences the policy wins 71% [62, 79] of 100")
    assert {"Win rate", "Held-out accuracy"} <= set(summary_table([row])[0])


def test_offline_without_held_out_pairs_nothing_is_claimed(made_report, made_offline_row):
    row = made_offline_row(held_out_accuracy=None, held_out_margin=None, held_out_pairs=None, labels=1, labels_total=1)
    assert headline(made_report(rows=(row,))) == (
        "After 1 preference nothing has been evaluated yet, so there is no win rate to report."
    )


def test_markdown_tells_the_same_in_short(made_report):
    lines = page_markdown(made_report()).splitlines()
    assert lines[0] == "# first-light"
    assert lines[2].startswith("After 384 queries")
    assert len([line for line in lines if line.startswith("|")]) == 2 + 6
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_numbers_read_as_people_write_them():
    assert [percent(0.714), percent(0.0), percent(None)] == ["71%", "0%", "–"]
    assert interval(0.62, 0.791) == "[62, 79]"
    assert [rounded(0.1234), rounded(0.0), rounded(0.00042), rounded(-1.5)] == ["0.12", "0.00", "4.2e-04", "-1.50"]
    assert count(4533) == "4,533"
    assert [seconds(0.25), seconds(9.96), seconds(41.3)] == ["0.2 s", "10 s", "41 s"]
    assert [duration(59.6), duration(374), duration(3661)] == ["1 min 00 s", "6 min 14 s", "1 h 01 min"]


def test_labels_that_cannot_be_trusted_come_before_the_result(made_report, made_row):
    alarm = "None of the round's 64 duels gave a pair to learn from: 64 undecided. Run oatflow audit-oracle --count 16."
    report = made_report(rows=(made_row(0), made_row(1, alarms=(alarm,))))
    assert headline(report).startswith("The labels of round 1 cannot be trusted. After 128 queries the policy wins")
    page = page_markdown(report)
    assert page.index("cannot be trusted") < page.index(f"Round 1: {alarm}") < page.index("| Round |")
    html = render_report(report)
    assert html.index("cannot be trusted") < html.index("64 undecided") < html.index("<main>")
    both = made_report(rows=tuple(made_row(number, alarms=(alarm,)) for number in (0, 1)))
    assert headline(both).startswith("The labels of 2 of 2 rounds cannot be trusted.")
