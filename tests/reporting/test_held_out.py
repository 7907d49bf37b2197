import pytest
from oatflow.components.evaluation.held_out import change, sum_up
from oatflow.components.reporting.curves import metrics_of


def test_prompts_are_counted_as_won_tied_and_lost_and_ties_of_equal_texts_apart(made_verdict):
    verdicts = [made_verdict("a"), made_verdict("b", policy_wins=0.5), made_verdict("c", "Meh.", 0.5),
                made_verdict("d", policy_wins=0.2)]  # fmt: skip
    found = sum_up(verdicts, 7)
    assert (found.wins, found.ties, found.losses, found.equal) == (1, 2, 1, 1)
    assert (found.prompts, found.decided, found.p_value) == (4, 2, 1.0)


def test_lengths_are_means_with_intervals_and_their_difference_is_paired_by_prompt(made_verdict):
    verdicts = [made_verdict(str(place), tokens=10 * place + 3, opponent_tokens=10 * place) for place in range(20)]
    found = sum_up(verdicts, 7)
    assert (found.tokens.value, found.opponent_tokens.value) == (98.0, 95.0)
    assert found.tokens.high - found.tokens.low > 20
    # All answers are longer by the same: that does not say how far others may be from it.
    assert (found.longer.value, found.longer.low, found.longer.high) == (3, None, None)


def test_rewards_that_nobody_knows_are_not_estimated(made_verdict):
    found = sum_up([made_verdict("a")], 7)
    assert found.reward.value == pytest.approx(0.2) and found.opponent_reward is None


def test_a_round_without_a_verdict_sums_up_to_nothing():
    assert sum_up([], 7) is None


def test_the_seed_decides_the_interval_at_equal_length_alone(made_answers):
    assert made_answers(seed=3) == made_answers(seed=3)
    assert made_answers(seed=3).longer == made_answers(seed=4).longer


def test_a_change_is_paired_over_the_prompts_that_both_rounds_have(made_verdict):
    before = sum_up([made_verdict(name, policy_wins=0.1) for name in "abc"], 7)
    after = sum_up([made_verdict(name, policy_wins=0.9) for name in "bcd"], 7)
    difference, prompts = change(before, after)
    assert (difference.value, difference.high, prompts) == (1.0, 1.0, 2)
    # Two prompts are few: Wilson's lower end for 2 of 2, on the scale from -1 to 1.
    assert difference.low == pytest.approx(2 * 2 / (2 + 1.959964**2) - 1)
    assert change(before, sum_up([made_verdict("z")], 7)) is None


def test_what_was_found_is_among_a_rounds_metrics(made_row, made_answers):
    metrics = metrics_of(made_row(answers=made_answers()))
    assert metrics["response_tokens"] == pytest.approx(24, abs=0.1) and metrics["opponent_tokens"] == 20
    assert metrics["length_controlled_low"] < metrics["length_controlled_win_rate"] < metrics["length_controlled_high"]
    assert "length_controlled_win_rate" not in metrics_of(made_row(answers=made_answers(wins=126, ties=1, losses=1)))
    assert "response_tokens" not in metrics_of(made_row())
