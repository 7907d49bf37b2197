import pytest
import torch
from oatflow.components.exploration.choice import choose_duels
from oatflow.components.exploration.selection import pair_first_two
from oatflow.components.exploration.settings import ExplorationSettings
from oatflow.components.records.records import Candidate, Prompt, duel_id

PROMPTS = [Prompt("p", "How was it?"), Prompt("q", "And then?")]
PASSIVE = ExplorationSettings()


def candidates(prompt_id, *responses):
    return [Candidate(prompt_id, number, text, (1,), 3, "stop") for number, text in enumerate(responses)]


def no_chance(prompt_id, purpose):
    return 0


def as_drawn(duel):
    """Return the numbers and texts of a duel in the order of the candidates, whoever came first."""
    return sorted([(duel.first_candidate, duel.first), (duel.second_candidate, duel.second)])


def test_passive_exploration_takes_the_first_two_however_many_there_are():
    for number in (2, 3, 20):
        pick = pair_first_two(candidates("p", *map(str, range(number))), PASSIVE, no_chance)
        assert (pick.first, pick.second, pick.strategy) == (0, 1, "passive")


def test_one_candidate_cannot_duel():
    with pytest.raises(AssertionError, match="1 candidates cannot duel"):
        pair_first_two(candidates("p", "alone"), PASSIVE, no_chance)


@pytest.mark.parametrize(
    ("on_clash", "texts", "expected"),
    [
        ("redraw", ("a", "a", "a", "b", "c"), (0, 3)),
        ("redraw", ("a", "a"), (0, 1)),
        ("keep", ("a", "a", "b"), (0, 1)),
        ("random", ("a", "a", "b", "c"), (0, 3)),
        ("skip", ("a", "a", "b"), None),
        ("skip", ("a", "b"), (0, 1)),
    ],
)
def test_two_equal_first_draws_become_what_on_clash_says(on_clash, texts, expected):
    settings = ExplorationSettings(on_clash=on_clash)
    pick = pair_first_two(candidates("p", *texts), settings, lambda prompt_id, purpose: 7)
    assert (pick and (pick.first, pick.second)) == expected


def test_each_prompt_gets_one_duel_in_the_order_of_the_candidates():
    drawn = candidates("q", "fine", "bad") + candidates("p", "good", "good")
    fine, good = choose_duels(PROMPTS, 0, drawn, PASSIVE, 7).duels
    assert [as_drawn(duel) for duel in (fine, good)] == [[(0, "fine"), (1, "bad")], [(0, "good"), (1, "good")]]
    assert (fine.prompt_id, fine.prompt, fine.clash) == ("q", "And then?", False)
    assert (good.prompt_id, good.prompt, good.clash) == ("p", "How was it?", True)


def test_chance_decides_who_comes_first_and_a_duel_is_named_after_its_own_order():
    prompts = [Prompt(f"p{number}", "How was it?") for number in range(200)]
    drawn = [row for prompt in prompts for row in candidates(prompt.prompt_id, "good", "bad")]
    duels = choose_duels(prompts, 0, drawn, PASSIVE, 7).duels
    # 200 fair coins: more than five standard deviations from the middle would be no chance.
    assert 64 < sum(duel.first == "bad" for duel in duels) < 136
    assert all(duel.duel_id == duel_id("How was it?", duel.first, duel.second) for duel in duels)
    assert all(
        (duel.first_candidate, duel.second_candidate) == ((1, 0) if duel.first == "bad" else (0, 1)) for duel in duels
    )


def test_without_a_reward_model_nothing_is_predicted():
    (duel,) = choose_duels(PROMPTS[:1], 0, candidates("p", "good", "bad"), PASSIVE, 7).duels
    assert (duel.predicted, duel.uncertainty, duel.recommended, duel.synthetic) == (None, None, None, None)


def ensemble(*members):
    """Each member's rewards of all candidates, prompt by prompt: (E, K)."""
    return torch.tensor(members, dtype=torch.float32)


def test_the_strategy_chooses_by_what_the_ensemble_believes():
    # Both members want candidate 2; they disagree most about candidate 1.
    rewards = ensemble([0.0, 1.0, 3.0], [0.0, -2.0, 3.0])
    settings = ExplorationSettings(exp_method="EnnBAITS")
    (duel,) = choose_duels(PROMPTS[:1], 0, candidates("p", "a", "b", "c"), settings, 7, rewards).duels
    assert as_drawn(duel) == [(1, "b"), (2, "c")]
    assert (duel.strategy, duel.recommended, duel.synthetic) == ("EnnBAITS", 2, False)


def test_what_the_ensemble_expects_is_told_from_the_side_of_the_first():
    rewards = ensemble([0.0, 2.0], [0.0, 1.0], [0.0, 0.0])
    settings = ExplorationSettings(exp_method="EnnUncertainty")
    for seed in range(8):
        (duel,) = choose_duels(PROMPTS[:1], 0, candidates("p", "a", "b"), settings, seed, rewards).duels
        of_b = torch.sigmoid(torch.tensor([2.0, 1.0, 0.0]))
        expected = of_b.mean() if duel.first == "b" else 1 - of_b.mean()
        assert duel.predicted == pytest.approx(float(expected), abs=1e-6)
        assert duel.uncertainty == pytest.approx(float(of_b.std()), abs=1e-6)


def test_two_candidates_of_one_text_never_duel_where_another_differs():
    rewards = ensemble([3.0, 3.0, 0.0], [3.0, 3.0, 1.0])
    for method in ("EnnEETS", "EnnBAITS", "EnnUncertainty", "DRTS", "DeltaUCB"):
        settings = ExplorationSettings(exp_method=method, on_clash="second_best")
        (duel,) = choose_duels(PROMPTS[:1], 0, candidates("p", "same", "same", "other"), settings, 7, rewards).duels
        assert {duel.first, duel.second} == {"same", "other"}, method


SYNTHETIC = {"exp_method": "EnnEETS", "model_rollout": True, "burn_in_period": 2, "max_model_data_ratio": 0.5}


def many(prompts=8, members=3):
    table = [Prompt(f"p{number}", f"Question {number}?") for number in range(prompts)]
    drawn = [row for prompt in table for row in candidates(prompt.prompt_id, "a", "b", "c", "d")]
    rewards = torch.randn(members, len(drawn), generator=torch.Generator().manual_seed(5))
    return table, drawn, rewards


def test_synthetic_pairs_begin_after_the_burn_in_and_are_labelled_by_the_member_that_imagined_them():
    table, drawn, rewards = many()
    settings = ExplorationSettings(**SYNTHETIC)
    before = choose_duels(table, 1, drawn, settings, 7, rewards)
    assert not any(duel.synthetic for duel in before.duels) and before.facts["synthetic"] == 0
    after = choose_duels(table, 2, drawn, settings, 7, rewards)
    made = [duel for duel in after.duels if duel.synthetic]
    assert len(made) == after.facts["synthetic"] == 4 and len(after.duels) == 8
    by_prompt = rewards.reshape(3, 8, 4)
    for duel in made:
        own = by_prompt[duel.member, int(duel.prompt_id[1:])]
        assert {duel.first_candidate, duel.second_candidate} == {int(own.argmax()), int(own.argmin())}
        margin = own[duel.first_candidate] - own[duel.second_candidate]
        assert duel.member_first_wins == pytest.approx(float(torch.sigmoid(margin)), abs=1e-6)


def test_in_oats_way_the_oracle_labels_synthetic_pairs():
    table, drawn, rewards = many()
    settings = ExplorationSettings(**SYNTHETIC, model_data_label="oracle")
    duels = choose_duels(table, 2, drawn, settings, 7, rewards).duels
    assert [duel.member_first_wins for duel in duels if duel.synthetic] == [None] * 4
    assert not any(duel.labelled_by_member for duel in duels)


def test_pure_model_based_learning_keeps_synthetic_pairs_alone():
    table, drawn, rewards = many()
    settings = ExplorationSettings(**SYNTHETIC, pure_model_based=True)
    assert all(duel.synthetic for duel in choose_duels(table, 2, drawn, settings, 7, rewards).duels)
    assert len(choose_duels(table, 0, drawn, settings, 7, rewards).duels) == 8


def test_the_same_beliefs_and_seed_choose_the_same_duels_and_another_seed_others():
    table, drawn, rewards = many(prompts=40)
    settings = ExplorationSettings(exp_method="EnnBAITS")
    one, again, other = (choose_duels(table, 0, drawn, settings, seed, rewards).duels for seed in (1, 1, 2))
    assert one == again and one != other
