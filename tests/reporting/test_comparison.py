import random
from math import inf

import pytest
from oatflow.components.records.records import Verdict
from oatflow.components.reporting.comparison_page import (
    in_short,
    render_comparison,
    seed_notes,
    write_headline,
    write_verdicts,
)
from oatflow.components.reporting.entrants import Entrant, Measurement, compare_entrants, describe_kind, read_entrant
from oatflow.components.reporting.label_efficiency import at_equal_labels, curve, equal_labels, reach
from oatflow.components.reporting.words import PREFERENCES, QUERIES

CONDITIONS = {"held-out prompts": "5097", "opponent": "the starting model", "starting model": "abcd", "judge": "vader"}
MEANING = {"exploration.exp_method": "passive", "policy.sync_params_every": 1, "policy.beta": 0.1}


def judged(rate, prompts=200, seed=0, longer=2):
    """Verdicts of which a share is won, on prompts that are as hard for everyone."""
    chance = random.Random(seed)
    return {
        f"p{number}": Verdict(
            f"p{number}", "Q?", "A.", "B.", 0.9 if number < round(rate * prompts) else 0.1,
            20 + longer + chance.choice((-9, -4, 4, 9)), 20, None, None,
        )
        for number in range(prompts)
    }  # fmt: skip


def entrant(name, rates=(0.5, 0.6), seed=0, each=64, conditions=None, unit=QUERIES, prompts=200, **meaning):
    measured = tuple(
        Measurement(round_, each * (round_ + 1), judged(rate, prompts)) for round_, rate in enumerate(rates)
    )
    return Entrant(name, seed, {**MEANING, **meaning}, {**CONDITIONS, **(conditions or {})}, unit, len(rates),
                   measured, "d" * 64)  # fmt: skip


def test_experiments_that_differ_in_their_seed_alone_are_one_group():
    found = compare_entrants([entrant("sea-0"), entrant("sea-1", seed=1), entrant("plain", **{"policy.beta": 0.2})])
    assert [(group.name, group.seeds) for group in found.groups] == [("sea", (0, 1)), ("plain", (0,))]
    assert found.left_out == () and found.differences == {"policy.beta": (0.1, 0.2)}


def test_two_groups_are_never_called_the_same():
    other = {"policy.beta": 0.2}
    found = compare_entrants([entrant("demo-0"), entrant("demo-1", seed=1), entrant("demo-2", **other),
                     entrant("demo-3", seed=1, **other)])  # fmt: skip
    assert [group.name for group in found.groups] == ["demo-0", "demo-2"]


def test_the_same_settings_and_seed_add_nothing_and_are_left_out():
    found = compare_entrants([entrant("a"), entrant("b")])
    assert found.left_out == (("b", "it has the settings and the seed of a, and adds nothing to it"),)


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ({"held-out prompts": "3d3b"}, "other held-out prompts (digest 3d3b instead of 5097)"),
        ({"judge": "gpt"}, "another judge (gpt instead of vader)"),
        (
            {"opponent": "the reference answers"},
            "another opponent (the reference answers instead of the starting model)",
        ),
        ({"judge": "gpt and vader"}, "its rounds were judged by different judges: gpt and vader"),
    ],
)
def test_what_cannot_be_compared_is_left_out_and_the_reason_given(conditions, reason):
    found = compare_entrants([entrant("a"), entrant("b", seed=1, conditions=conditions)])
    assert [group.name for group in found.groups] == ["a"]
    assert found.left_out == (("b", reason),)
    html = render_comparison(found)
    assert f"<strong>b</strong>: {reason}." in html and "Not compared" in html
    assert in_short(found)[-1] == f"not compared: b: {reason}"


def test_an_experiment_that_was_never_evaluated_is_left_out():
    found = compare_entrants([entrant("a", rates=()), entrant("b")])
    assert found.left_out == (("a", "no round of it was evaluated"),) and found.groups[0].name == "b"


def test_nothing_to_compare_is_said_and_nothing_is_drawn():
    html = render_comparison(compare_entrants([entrant("a", rates=())]))
    assert "None of these experiments can be compared" in html and "<svg" not in html


def test_equal_labels_take_the_last_measured_round_at_or_below_and_interpolate_nothing():
    found = compare_entrants(
        [entrant("a", (0.5, 0.6, 0.7)), entrant("b", (0.5, 0.9), each=100, **{"policy.beta": 0.2})]
    )
    assert equal_labels(found) == 192
    first, second = at_equal_labels(found, 0)
    assert (first.labels, first.rate.value) == ((192, 192), pytest.approx(0.7))
    assert (second.labels, second.rate.value) == ((100, 100), pytest.approx(0.5))


def test_differences_are_paired_by_prompt():
    # Both win the same prompts but for 10 of 200: paired, the difference is known far better than either rate.
    found = compare_entrants([entrant("a", (0.5,)), entrant("b", (0.55,), **{"policy.beta": 0.2})])
    first, second = at_equal_labels(found, 0)
    assert first.difference is None and second.difference.value == pytest.approx(0.05)
    assert 0 < second.difference.low < second.difference.high < 0.09
    assert second.rate.high - second.rate.low > 0.12


def test_prompts_that_somebody_was_not_judged_on_are_left_out_of_the_pairs_and_the_count():
    found = compare_entrants([entrant("a", (0.5,)), entrant("b", (0.5,), prompts=150, **{"policy.beta": 0.2})])
    assert [level.prompts for level in at_equal_labels(found, 0)] == [150, 150]


def test_a_group_that_measured_nothing_so_early_has_no_number():
    found = compare_entrants([entrant("a", (0.5,)), entrant("b", (0.5,), each=100, **{"policy.beta": 0.2})])
    first, second = at_equal_labels(found, 0)
    assert first is not None and second is None
    assert write_verdicts(found, [first, second])[1] == "b measured no round so early."
    assert render_comparison(found)


def test_the_interval_of_seeds_that_differ_is_wider_than_that_of_one():
    found = compare_entrants([entrant("a-0", (0.4,)), entrant("a-1", (0.6,), seed=1), entrant("a-2", (0.8,), seed=2)])
    (level,) = at_equal_labels(found, 0)
    assert level.rate.value == pytest.approx(0.6)
    assert level.rate.high - level.rate.low > 0.3
    assert [round(one.found.value, 3) for one in curve(found.groups[0], 0)] == [0.6]


def test_rounds_of_a_group_lie_at_the_mean_of_their_labels_as_far_as_all_seeds_measured():
    found = compare_entrants([entrant("a-0", (0.5, 0.6, 0.7)), entrant("a-1", (0.5, 0.6), seed=1, each=62)])
    assert [one.labels for one in curve(found.groups[0], 0)] == [63, 126]


def test_labels_to_a_level_are_those_of_the_first_round_whose_whole_interval_is_there():
    found = compare_entrants([entrant("a", (0.5, 0.62, 0.58, 0.75))])
    # Of 200 prompts, 62% say only that the policy wins between 55% and 68%.
    assert reach(found.groups[0], 0.6, 0).labels.value == 256
    assert reach(found.groups[0], 0.5, 0).labels.value == 128
    never = reach(found.groups[0], 0.9, 0)
    assert (never.labels.value, never.seeds, never.within) == (inf, 0, 256)


def test_a_level_counts_as_reached_when_more_than_half_of_the_seeds_are_there():
    seeds = [entrant("a-0", (0.9, 0.9)), entrant("a-1", (0.3, 0.9), seed=1), entrant("a-2", (0.3, 0.3), seed=2)]
    found = reach(compare_entrants(seeds).groups[0], 0.6, 0)
    assert (found.labels.value, found.seeds) == (128, 2)
    assert found.labels.low == 64 and found.labels.high == inf


def test_the_page_states_seeds_prompts_and_intervals_and_refuses_what_it_cannot_know():
    found = compare_entrants([entrant("sea-0", (0.5, 0.7)), entrant("sea-1", (0.5, 0.72), seed=1),
                     entrant("plain", **{"policy.beta": 0.2})])  # fmt: skip
    html = render_comparison(found, (0.6,))
    assert seed_notes(found) == [
        "plain: 1 seed; the interval is over prompts alone and says nothing about other seeds.",
        "sea: fewer than 5 seeds; intervals over so few tend to be too narrow.",
    ]
    assert "2 kinds of experiment after 128 queries, on 200 held-out prompts against the starting model" in html
    assert "not distinguishable" in html or ", worse" in html
    assert "To 60%" in html and ", by 2 of 2 seeds" in html
    assert html.count("<svg") == 2


def test_a_group_without_a_win_rate_at_equal_length_is_told_why():
    found = compare_entrants([entrant("a", (0.02,)), entrant("b", (0.5,), **{"policy.beta": 0.2})])
    html = render_comparison(found)
    assert "a has no win rate at equal length: needs 10 wins and 10 losses; there are 4 and 196." in html
    assert "b has no win rate at equal length" not in html


def test_the_same_experiments_give_the_same_page():
    found = compare_entrants([entrant("a"), entrant("b", **{"policy.beta": 0.2})])
    assert render_comparison(found) == render_comparison(found)


@pytest.mark.slow
def test_groups_are_told_apart_without_their_colours():
    found = compare_entrants([entrant(f"e{number}", **{"policy.beta": number}) for number in range(8)])
    html = render_comparison(found)
    assert all(sign in html for sign in "●■▲◆▼✚✖★")


def test_experiments_that_learn_from_a_set_and_from_an_oracle_are_compared_over_labels():
    offline = entrant("offline", unit=PREFERENCES, **{"prompts.chosen_key": "chosen"})
    found = compare_entrants([entrant("online"), offline])
    assert "2 kinds of experiment after 128 labels" in write_headline(found, at_equal_labels(found, 0))
    assert describe_kind(offline) == "offline: a preference set"


@pytest.mark.parametrize(
    ("every", "method", "said"),
    [
        (1, "passive", "online, two random answers"),
        (1, "EnnBAITS", "online, EnnBAITS"),
        (3, "passive", "iterative: every 3 rounds, two random answers"),
        (100, "passive", "offline: the starting model’s answers, two random answers"),
    ],
)
def test_how_an_experiment_learns_is_said(every, method, said):
    meaning = {"policy.sync_params_every": every, "exploration.exp_method": method}
    assert describe_kind(entrant("a", rates=[0.5] * 6, **meaning)) == said


def test_an_entrant_is_read_from_its_ledger(ledger):
    meaning = {"evaluation.opponent": "pretrain", "evaluation.eval_temperature": 0.0, "ledger.seed": 7,
               "evaluation.eval_generate_max_length": 512}  # fmt: skip
    found = read_entrant(ledger, meaning)
    assert (found.name, found.seed, found.rounds, found.unit) == ("first-light", 7, 2, QUERIES)
    assert "ledger.seed" not in found.meaning
    assert [(one.round, one.labels, len(one.verdicts)) for one in found.measured] == [(0, 2, 4)]
