"""Active preference learning on a round's candidates: who duels, who does not, and what becomes of clashes."""

import math

import pytest
from oatflow.components.exploration.choice import choose_duels
from oatflow.components.exploration.settings import ExplorationSettings
from oatflow.components.records.plan import Plan, PolicyPointer
from oatflow.components.records.records import Candidate, Prompt


def drawn(prompt_id, *scored):
    """Return candidates out of (text, log-probability, that under the reference)."""
    return [
        Candidate(prompt_id, number, text, (1,), 3, "stop", logprob, reference)
        for number, (text, logprob, reference) in enumerate(scored)
    ]


def duels_of(*groups, seed=7, **settings):
    """Return each duel's prompt and the numbers of its candidates."""
    prompts = tuple(Prompt(group[0].prompt_id, "Why?") for group in groups)
    plan = Plan(0, 9, prompts, *[PolicyPointer(-1, "a")] * 2, 0, 9)
    settings = ExplorationSettings(exp_method="APL", **settings)
    chosen = choose_duels(plan.prompts, plan.round, [row for group in groups for row in group], settings, seed).duels
    assert all(duel.strategy == "APL" for duel in chosen)
    return [(duel.prompt_id, tuple(sorted((duel.first_candidate, duel.second_candidate)))) for duel in chosen]


SURE = drawn("sure", ("a", -1.0, -1.0), ("b", -2.0, -3.0), ("c", -3.0, -1.0))
UNSURE = drawn("unsure", ("a", -7.0, -1.0), ("b", -8.0, -8.0), ("c", -9.0, -9.0))
ALIKE = drawn("alike", ("a", -1.0, -1.0), ("a", -9.0, -2.0), ("b", -2.0, -1.0))


def test_the_prompts_of_likely_answers_get_a_duel_of_the_two_whose_implicit_rewards_differ_most():
    assert duels_of(SURE, UNSURE, apl_keep=1) == [("sure", (1, 2))]
    assert duels_of(SURE, UNSURE, apl_keep=2) == [("sure", (1, 2)), ("unsure", (0, 1))]


@pytest.mark.parametrize(("prompts", "duels"), [(1, 1), (2, 1), (5, 2), (8, 4)])
def test_by_default_half_of_the_prompts_get_a_duel_and_one_at_least(prompts, duels):
    groups = [drawn(str(number), ("a", -number, -1.0), ("b", -number, -2.0)) for number in range(prompts)]
    assert duels_of(*groups) == [(str(number), (0, 1)) for number in range(duels)]


def test_by_certainty_only_the_prompts_of_the_largest_margins_get_a_duel_of_their_two_answers():
    near = drawn("near", ("a", -1.0, -1.0), ("b", -2.0, -2.5))
    far = drawn("far", ("a", -90.0, -70.0), ("b", -80.0, -81.0))
    assert duels_of(near, far, apl_keep=1, apl_certainty_only=True) == [("far", (0, 1))]


@pytest.mark.parametrize(
    ("on_clash", "expected"),
    [
        ("redraw", [("alike", (1, 2))]),
        ("second_best", [("alike", (1, 2))]),
        ("keep", [("alike", (0, 1))]),
        ("random", [("alike", (0, 2))]),
        ("skip", []),
    ],
)
def test_of_two_equal_texts_becomes_what_on_clash_says(on_clash, expected):
    assert duels_of(ALIKE, on_clash=on_clash) == expected


@pytest.mark.parametrize("on_clash", ["redraw", "second_best", "random", "keep"])
def test_where_all_texts_are_equal_the_clash_stays(on_clash):
    same = drawn("same", ("a", -1.0, -1.0), ("a", -1.0, -1.0))
    for only in (False, True):
        assert duels_of(same, on_clash=on_clash, apl_certainty_only=only) == [("same", (0, 1))]


def test_candidates_that_nobody_scored_are_no_silent_zeros():
    with pytest.raises(TypeError):
        duels_of(drawn("p", ("a", None, None), ("b", -1.0, math.nan)))
