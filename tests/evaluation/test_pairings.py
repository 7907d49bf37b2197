import pytest
from oatflow.components.evaluation.pairings import (
    HeldOutAnswer,
    Pairing,
    find_mean,
    is_evaluated,
    make_duel,
    make_verdict,
)
from oatflow.components.records.records import Preference, Prompt, duel_id


def pairing(number=0, ours="ours", theirs="theirs"):
    name = f"prompt-{number}"
    return Pairing(Prompt(name, f"{number}?"), HeldOutAnswer(name, ours, 1), HeldOutAnswer(name, theirs, 2))


def preference(first_wins, first=None, second=None):
    return Preference("d", "p", first_wins is None, first_wins, None, first, second, "oracle")


def placed(policy_first):
    """A pairing in whose duel the policy comes first, or second."""
    return next(p for p in map(pairing, range(100)) if (make_duel(p, 0).first == "ours") == policy_first)


def test_a_place_in_the_duel_tells_nothing_of_who_is_who():
    duels = [make_duel(pairing(number), 0) for number in range(400)]
    policy_first = sum(duel.first == "ours" for duel in duels)
    assert abs(policy_first - 200) < 3 * 10  # three standard deviations of 400 coins
    assert all((duel.first == "ours") == (duel.first_candidate == 0) for duel in duels)
    assert all({duel.first, duel.second} == {"ours", "theirs"} for duel in duels)


def test_another_seed_deals_other_places():
    dealt = [[make_duel(pairing(number), seed).first for number in range(50)] for seed in (0, 0, 1)]
    assert dealt[0] == dealt[1] != dealt[2]


def test_an_unchanged_answer_makes_the_same_duel_again():
    duel = make_duel(pairing(7), 0)
    assert duel == make_duel(pairing(7), 0)
    assert duel.duel_id == duel_id("7?", duel.first, duel.second)
    assert duel.duel_id != make_duel(pairing(7, ours="better"), 0).duel_id


@pytest.mark.parametrize("policy_first", [True, False])
def test_a_verdict_takes_the_side_of_the_policy(policy_first):
    chosen = placed(policy_first)
    row = make_verdict(chosen, make_duel(chosen, 0), preference(0.75, 0.5, -0.25))
    assert (row.response, row.opponent_response, row.response_tokens, row.opponent_tokens) == ("ours", "theirs", 1, 2)
    assert (row.policy_wins, row.reward, row.opponent_reward) == (
        (0.75, 0.5, -0.25) if policy_first else (0.25, -0.25, 0.5)
    )


def test_equal_answers_are_a_tie_without_rewards():
    equal = pairing(0, "same", "same")
    duel = make_duel(equal, 0)
    assert duel.clash
    row = make_verdict(equal, duel, preference(None))
    assert (row.policy_wins, row.reward, row.opponent_reward) == (0.5, None, None)


def test_a_mean_is_of_what_is_known():
    assert find_mean([0.5, None, 1.0]) == 0.75
    assert find_mean([None]) is None
    assert find_mean([]) is None


def test_every_so_many_rounds_are_measured_and_the_last_one_always():
    assert [r for r in range(8) if is_evaluated(r, 3, last=r == 7)] == [2, 5, 7]
    assert [r for r in range(3) if is_evaluated(r, 1, last=r == 2)] == [0, 1, 2]
    assert [r for r in range(3) if is_evaluated(r, 9, last=r == 2)] == [2]
    assert [r for r in range(3) if is_evaluated(r, 0, last=r == 2)] == []
