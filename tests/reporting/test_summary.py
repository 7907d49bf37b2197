import pytest
from oatflow.components.reporting.summary import headline, page_markdown, reading, summary_table
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
    [(0.51, 0.9, "is better than"), (0.5, 0.9, "cannot be told apart"), (0.3, 0.5, "cannot"), (0.3, 0.49, "is worse")],
)
def test_only_an_interval_without_one_half_decides(made_report, made_row, low, high, said):
    assert said in reading(made_report(rows=(made_row(low=low, high=high),)))


def test_the_table_has_a_dash_where_nothing_was_measured(made_row):
    row = made_row(1, clashes=3, win_rate=None, low=None, high=None, mean_reward=None, opponent_mean_reward=None)
    head, line = summary_table([row])
    assert dict(zip(head, line, strict=True)) == {
        "Round": "1", "Queries": "128", "Win rate": "–", "95% interval": "–", "Reward": "–", "Opponent's": "–",
        "Pairs": "64", "Clashes": "3", "Loss": "0.69", "Margin": "0.10", "Time": "1 min 12 s",
    }  # fmt: skip


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
