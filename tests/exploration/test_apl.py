"""Active preference learning: which two of a prompt's candidates duel, and which prompts are worth a label."""

import json
from pathlib import Path

import torch
from oatflow.components.exploration.strategies import keep_certain, keep_likely, pair_by_margin

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_exploration.json").read_text())["apl"]
TWO, THREE = GOLDEN["implicit_rewards_logpi_minus_logref"][:4], GOLDEN["implicit_rewards_logpi_minus_logref"][4:]


def texts(pairs):
    return {str(prompt): [f" t{number} " for number in pair] for prompt, pair in enumerate(pairs.tolist())}


def test_the_candidates_whose_implicit_rewards_differ_most_duel_as_in_oat():
    assert texts(pair_by_margin(torch.tensor(THREE))) == GOLDEN["response_only"]["chosen_texts"]


def test_a_policy_that_is_still_its_reference_lets_the_first_two_duel_as_in_oat():
    assert texts(pair_by_margin(torch.zeros(2, 3))) == GOLDEN["response_only_policy_equals_ref"]["chosen_texts"]


def test_one_prompt_with_two_candidates_has_one_pair():
    assert pair_by_margin(torch.tensor([[-1.0, 3.0]])).tolist() == [[0, 1]]


def test_the_prompts_with_the_largest_margin_are_kept_as_in_oat():
    implicit = torch.tensor(TWO)
    kept = keep_certain(implicit[:, 0] - implicit[:, 1], keep=2)
    assert ["abcd"[prompt] for prompt in kept.tolist()] == GOLDEN["triplet"]["kept_prompts_ascending_score"]


def test_a_margin_counts_whoever_is_ahead():
    assert keep_certain(torch.tensor([0.1, -3.0, 2.0]), keep=1).tolist() == [1]


def test_the_prompts_of_the_lowest_entropy_are_kept_as_in_oat():
    golden = GOLDEN["entropy_filter"]
    kept = keep_likely(torch.tensor(golden["cumulative_logprobs"]), golden["keep"])
    assert kept.tolist() == golden["kept_indices"]


def test_fewer_prompts_than_are_to_be_kept_are_all_kept():
    assert sorted(keep_certain(torch.tensor([1.0, 2.0]), keep=5).tolist()) == [0, 1]
    assert keep_likely(torch.tensor([[-1.0, -2.0]]), keep=5).tolist() == [0]
