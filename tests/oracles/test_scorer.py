"""The reward model as an oracle: who has the better score tends to win."""

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch
from oatflow.components.errors import ModelError, SettingsError
from oatflow.components.oracles.registry import open_oracle
from oatflow.components.oracles.scorer import ScorerOracle
from oatflow.components.oracles.settings import ScorerSettings
from oatflow.components.records.records import Duel

from .tiny_scorer import write_reward_model

SERVER = json.loads((Path(__file__).parents[1] / "golden" / "oat_oracles.json").read_text())["oracles"]["server"]
ANSWERS = {"a": "warm and good !", "b": "warm", "c": "never again"}


def duel(prompt, first, second):
    return Duel(f"{prompt}/{first}/{second}", prompt, prompt, first, second, 0, 1, False)


@pytest.fixture
def open_reward_model(tmp_path):
    def open_(**settings):
        folder = write_reward_model(tmp_path / "reward")
        return open_oracle("scorer", ScorerSettings(scorer_model=str(folder), **settings))

    return open_


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_better_score_wins_by_the_bradley_terry_law(open_reward_model, temperature):
    oracle = open_reward_model(scorer_temperature=temperature)
    pairs = [[ANSWERS[name] for name in pair] for pair in SERVER["preference_request"]]
    teach(oracle.scorer, {ANSWERS[name]: score for name, score in SERVER["scores"].items()})
    answers = oracle.compare_duels([duel("soup", *pair) for pair in pairs])
    assert [answer.first_reward for answer in answers] == pytest.approx([1.0, -2.0], abs=1e-4)
    assert [answer.second_reward for answer in answers] == pytest.approx([0.25, 1.0], abs=1e-4)
    if temperature == 1:
        expected = SERVER["batch_first_win_prob"]
    else:
        expected = torch.sigmoid(torch.tensor([0.75, -3.0]) / temperature).tolist()
    assert [answer.first_wins for answer in answers] == pytest.approx(expected, abs=1e-4)
    assert all(answer.orders is None and answer.cost is None for answer in answers), "order plays no part"


def teach(scorer, scores):
    """Give the head the weights with which the network's last states have these scores."""
    states = []
    watch = scorer.network.score.register_forward_pre_hook(lambda _, given: states.append(given[0][0, -1]))
    for response in scores:
        scorer.score_texts([("soup", response)])
    watch.remove()
    target = torch.tensor([*scores.values()], dtype=torch.float64)
    weights = torch.linalg.lstsq(torch.stack(states).double(), target, driver="gelsd").solution
    scorer.network.score.weight.data[0] = weights.float()


@pytest.mark.slow
def test_both_members_of_all_duels_are_scored_in_one_go_and_repeated_texts_once(open_reward_model):
    oracle = open_reward_model()
    seen = []
    oracle.scorer.network.register_forward_pre_hook(
        lambda _, __, given: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    answers = oracle.compare_duels([duel("soup", *pair) for pair in combinations(ANSWERS.values(), 2)])
    assert seen == [3], "three texts in three duels"
    assert len(answers) == 3
    assert answers[0].second_reward == answers[2].first_reward
    oracle.compare_duels([duel("you ate ?", "warm", "warm"), duel("soup", "warm", "bad")])
    assert seen[1:] == [3], "the same answer to another prompt is another text"
    assert oracle.compare_duels([]) == []


@pytest.mark.slow
def test_an_answer_does_not_depend_on_what_else_is_asked(open_reward_model):
    oracle = open_reward_model()
    duels = [duel("soup " * times, "good", "never again " * times) for times in (1, 9, 4)]
    together = [answer.first_wins for answer in oracle.compare_duels(duels)]
    assert together == pytest.approx([oracle.compare_duels([each])[0].first_wins for each in duels], abs=1e-5)


@pytest.mark.slow
def test_the_oracle_is_named_by_model_and_temperature(open_reward_model):
    oracle = open_reward_model(scorer_temperature=0.5)
    assert oracle.identity == f"reward_model/{oracle.scorer.identity}/T=0.5"
    assert oracle.identity.startswith("reward_model/reward@")
    assert not oracle.paid and oracle.spending is None and oracle.known_reward is None


def test_an_oracle_without_a_model_is_refused_at_once():
    with pytest.raises(SettingsError, match="scorer_model='': name the reward model"):
        ScorerOracle(ScorerSettings())


def test_a_model_that_is_not_there_is_found_out_before_anything_is_asked():
    oracle = ScorerOracle(ScorerSettings(scorer_model="./nothing"))
    with pytest.raises(ModelError, match=r"scorer_model='./nothing': there is no such folder"):
        oracle.check_ready()
