import pytest
from oatflow.components.reporting.queries import Queried, oracle_notes


def test_a_position_bias_is_told_with_its_interval_and_its_duels():
    (said,) = oracle_notes(Queried(position_bias=0.1, position_spread=0.4, shown=100))
    # 10 points, give or take 1.96 times 40 / sqrt(100).
    assert said == (
        "Position bias: what is shown first wins +10.0 points more than half, 95% interval +2.2 points to +17.8 points "
        "(100 duels)."
    )


@pytest.mark.parametrize("spread", [None, 0.0], ids=["not measured", "all alike"])
def test_duels_that_do_not_say_how_far_to_trust_a_bias_give_no_interval(spread):
    (said,) = oracle_notes(Queried(position_bias=0.5, position_spread=spread, shown=1))
    assert said == "Position bias: what is shown first wins +50.0 points more than half (1 duel)."


def test_a_winner_in_both_orders_is_told_with_wilsons_interval():
    (said,) = oracle_notes(Queried(consistent=0.75, asked_in_both_orders=64))
    assert said == "Asked in both orders, 75% [63, 84] of 64 duels have the same winner (95% interval)."


def test_the_annotators_agreement_is_told_with_its_interval_where_there_is_one():
    found = {"krippendorff_alpha": 0.62, "agreed_upon": 20}
    whole = Queried(**found, krippendorff_low=0.31, krippendorff_high=0.86)
    start = "The annotators' agreement (Krippendorff's alpha) is 0.62"
    assert oracle_notes(whole) == [f"{start}, 95% interval 0.31 to 0.86 (20 duels judged by two or more)."]
    assert oracle_notes(Queried(**found)) == [f"{start} (20 duels judged by two or more)."]
    # From before it was counted.
    assert oracle_notes(Queried(krippendorff_alpha=0.62)) == [f"{start}."]
