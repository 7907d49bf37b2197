"""Synthetic pairs have Oat's law: a uniform share of the prompts, a uniform member, its best against its worst."""

import ast
import json
from collections import Counter
from math import sqrt
from pathlib import Path

import pytest
import torch
from oatflow.components.exploration.imagination import imagine_pairs, is_burnt_in
from oatflow.components.exploration.strategies import Beliefs

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_exploration.json").read_text())["model_rollout"]
REWARDS = torch.tensor(GOLDEN["rewards_E_M_N_1"], dtype=torch.float64).squeeze(-1)
MEMBERS, PROMPTS, CANDIDATES = REWARDS.shape
SUPPORT = [
    [{tuple(pair) for pair in member["pairs(best,worst)"]} for member in prompt]
    for prompt in GOLDEN["support_per_prompt_and_belief"]
]
DRAWS = 4_000


def beliefs(rewards, alike=None):
    members, prompts, candidates = rewards.shape
    texts = torch.arange(candidates).repeat(prompts, 1) if alike is None else alike
    return Beliefs(rewards, texts, torch.arange(members).repeat(prompts, 1))


def law_of(prompt):
    """Each member is as likely, and each of the pairs that tie for it."""
    law = Counter()
    for pairs in SUPPORT[prompt]:
        for pair in pairs:
            law[pair] += 1 / MEMBERS / len(pairs)
    return law


def assert_within_five_sigma(seen, law, draws):
    assert set(seen) <= set(law)
    for outcome, share in law.items():
        assert abs(seen.get(outcome, 0) - share) <= 5 * sqrt(share * (1 - share) / draws) + 1e-9, outcome


@pytest.mark.parametrize("ratio", GOLDEN["count_per_ratio"])
def test_a_fixed_number_of_prompts_rounded_down_gets_a_synthetic_pair(ratio):
    counts = {int(imagine_pairs(beliefs(REWARDS), float(ratio), seed).which.sum()) for seed in range(20)}
    assert counts == {GOLDEN["count_per_ratio"][ratio]}


def test_a_pair_is_the_best_and_the_worst_of_the_member_that_imagined_it():
    for seed in range(200):
        made = imagine_pairs(beliefs(REWARDS), 1.0, seed)
        for prompt, (member, pair) in enumerate(zip(made.member.tolist(), made.pairs.tolist(), strict=True)):
            assert tuple(pair) in SUPPORT[prompt][member]


def test_what_4000_seeds_imagine_is_within_five_sigma_of_the_law_as_is_what_oat_did():
    golden = GOLDEN["random_select_20k"]
    believed = beliefs(REWARDS)
    rounds = [imagine_pairs(believed, golden["max_model_data_ratio"], seed) for seed in range(DRAWS)]
    chosen = Counter(int(made.which.nonzero()) for made in rounds)
    uniform = dict.fromkeys(range(PROMPTS), 1 / PROMPTS)
    assert_within_five_sigma({prompt: count / DRAWS for prompt, count in chosen.items()}, uniform, DRAWS)
    assert_within_five_sigma(dict(enumerate(golden["selection_freq_per_prompt"])), uniform, golden["draws"])
    for prompt in range(PROMPTS):
        pairs = Counter(tuple(made.pairs[prompt].tolist()) for made in rounds if made.which[prompt])
        seen = {pair: count / chosen[prompt] for pair, count in pairs.items()}
        assert_within_five_sigma(seen, law_of(prompt), chosen[prompt])
        written = golden["pair_law_given_selected(chosen,rejected)"][prompt]
        oats = {ast.literal_eval(pair): share for pair, share in written.items()}
        share = golden["selection_freq_per_prompt"][prompt]
        assert_within_five_sigma(oats, law_of(prompt), share * golden["draws"])


def test_the_members_of_different_prompts_are_independent():
    rounds = [imagine_pairs(beliefs(REWARDS[:2, :2]), 1.0, seed) for seed in range(4000)]
    together = Counter(tuple(made.member.tolist()) for made in rounds)
    assert len(together) == 4
    assert all(abs(count - 1000) < 5 * sqrt(4000 * 3 / 16) for count in together.values())


def test_equal_texts_are_no_synthetic_pair():
    """To the only member, all candidates of the first prompt are worth the same: it has nothing to teach."""
    rewards = torch.tensor([[[0.7, 0.7, 0.7], [0.7, 0.7, 0.1]]])
    alike = torch.tensor([[0, 0, 0], [0, 0, 2]])
    for seed in range(20):
        made = imagine_pairs(beliefs(rewards, alike), 1.0, seed)
        assert made.which.tolist() == [False, True]
        assert made.pairs[1].tolist() in ([0, 2], [1, 2])


def test_one_prompt_and_one_member_are_enough():
    made = imagine_pairs(beliefs(torch.tensor([[[0.0, 2.0, -1.0]]])), 1.0, 0)
    assert (made.which.tolist(), made.member.tolist(), made.pairs.tolist()) == ([True], [0], [[1, 2]])
    assert not imagine_pairs(beliefs(torch.tensor([[[0.0, 2.0, -1.0]]])), 0.3, 0).which.any()


def test_the_same_seed_imagines_the_same():
    one, other = (imagine_pairs(beliefs(REWARDS), 0.5, 11) for _ in range(2))
    assert torch.equal(one.which, other.which) and torch.equal(one.pairs, other.pairs)


def test_a_larger_share_keeps_the_pairs_of_a_smaller_one():
    few, many = (imagine_pairs(beliefs(REWARDS), ratio, 11) for ratio in (0.3, 0.5))
    assert (few.which & ~many.which).sum() == 0
    assert torch.equal(few.pairs, many.pairs)


def test_the_rounds_of_the_burn_in_have_no_synthetic_pairs():
    golden = GOLDEN["burn_in"]
    after = [is_burnt_in(round_, golden["burn_in_period"]) for round_ in range(len(golden["ratio_per_call"]))]
    assert after == [ratio > 0 for ratio in golden["ratio_per_call"]]
    assert is_burnt_in(0, 0)
