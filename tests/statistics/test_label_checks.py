from random import Random

import pytest
from oatflow.components.statistics.label_checks import LabelCounts, check_labels, read_label_counts

SOUND = {
    "duels": 64, "clashes": 4, "queries": 60, "undecided": 10, "first_wins": 27, "second_wins": 23, "learnable": 50,
    "agreed": 55, "compared": 60,
}  # fmt: skip


def alarms_of(**other):
    return {alarm.name: alarm for alarm in check_labels(LabelCounts(**{**SOUND, **other}))}


def test_a_sound_round_raises_no_alarm():
    assert alarms_of() == {}


def test_a_round_of_which_nothing_is_known_raises_no_alarm():
    assert check_labels(LabelCounts()) == ()
    assert check_labels(read_label_counts({"duels": 64, "queries": 60, "first_chosen": 31})) == ()


@pytest.mark.parametrize(
    ("counts", "cause", "check"),
    [
        ({"clashes": 64, "queries": 0}, "64 clashes", ""),
        ({"clashes": 0, "queries": 64, "undecided": 64}, "64 undecided", "an answer beats an empty one"),
        ({"clashes": 0, "queries": 64, "unreadable": 60, "lost": 4}, "60 unreadable, 4 lost", "can be read"),
        ({"duels": 2, "clashes": 0, "queries": 2, "undecided": 2}, "the round's 2 duels", "an answer beats"),
    ],
    ids=["clashes", "undecided", "unreadable and lost", "a round of two duels"],
)
def test_a_round_without_a_pair_to_learn_from_says_why_and_what_to_check(counts, cause, check):
    counts = {"undecided": 0, "first_wins": 0, "second_wins": 0, **counts}
    alarm = alarms_of(learnable=0, **counts)["no pair to learn from"]
    assert cause in alarm.sentence
    assert check in alarm.check
    assert bool(alarm.check) == bool(check)


@pytest.mark.parametrize("counts", [{"duels": 8, "unpaid": 8}, {"duels": 8, "unpaid": 7, "queries": 1, "undecided": 1}])
def test_a_round_that_could_not_be_paid_for_is_no_alarm(counts):
    assert check_labels(LabelCounts(**counts, learnable=0)) == ()


def test_a_single_duel_proves_nothing():
    assert check_labels(LabelCounts(duels=1, queries=1, undecided=1, learnable=0)) == ()


@pytest.mark.parametrize("size", range(2, 9))
def test_a_few_answers_raise_no_alarm_if_one_of_them_teaches_something(size):
    few = {"duels": size, "queries": size, "undecided": size - 1, "first_wins": 1, "second_wins": 0, "learnable": 1}
    assert check_labels(LabelCounts(**few, agreed=0, compared=size)) == ()
    assert check_labels(LabelCounts(**{**few, "undecided": 0, "first_wins": size, "learnable": size})) == ()


def false_alarm_rate(make_counts, trials=3000):
    random = Random(17)
    return sum(bool(check_labels(LabelCounts(**make_counts(random)))) for _ in range(trials)) / trials


@pytest.mark.parametrize("size", [12, 20, 64, 256])
def test_a_sound_oracle_raises_an_alarm_in_less_than_one_of_a_thousand_rounds(size):
    def sound(random):
        first = sum(random.random() < 0.5 for _ in range(size))
        undecided = sum(random.random() < 0.6 for _ in range(size))
        agreed = sum(random.random() < 0.78 for _ in range(size))
        return {"duels": size, "queries": size, "first_wins": first, "second_wins": size - first, "learnable": size,
                "undecided": undecided, "agreed": agreed, "compared": size}  # fmt: skip

    assert false_alarm_rate(sound) <= 0.001


def test_an_oracle_at_chance_is_found_in_most_rounds():
    def chance(random):
        agreed = sum(random.random() < 0.5 for _ in range(64))
        return {"duels": 64, "queries": 64, "learnable": 64, "agreed": agreed, "compared": 64}

    assert false_alarm_rate(chance) > 0.75


def test_undecided_answers_are_an_alarm_only_above_the_limit():
    assert not alarms_of(undecided=45) and not alarms_of(undecided=50), "a little above it may be chance"
    alarm = alarms_of(undecided=58)["undecided answers"]
    assert "58 of 60 answers name no winner" in alarm.sentence
    assert not check_labels(LabelCounts(**SOUND | {"undecided": 59}), undecided_limit=1.0)
    assert "undecided answers" in {
        alarm.name for alarm in check_labels(LabelCounts(**SOUND | {"undecided": 20}), undecided_limit=0.1)
    }


@pytest.mark.parametrize(
    ("sides", "raised"),
    [((50, 0), True), ((0, 50), True), ((49, 1), True), ((40, 10), False), ((11, 0), False), ((12, 0), True)],
)
def test_answers_on_one_side_are_an_alarm_where_a_fair_oracle_hardly_gives_them(sides, raised):
    found = alarms_of(first_wins=sides[0], second_wins=sides[1])
    assert ("all answers on one side" in found) == raised


def test_a_judge_that_always_prefers_what_it_is_shown_first_is_an_alarm_though_the_order_of_the_duels_hides_it():
    alarm = alarms_of(position_bias=0.5, shown=60)["all answers on one side"]
    assert alarm.sentence == ("In 60 of 60 decided duels the answer shown first wins, although their order is random.")
    assert "sides changed" in alarm.check


@pytest.mark.parametrize(
    ("agreed", "compared", "raised"), [(60, 60, False), (32, 60, True), (37, 60, False), (5, 10, False)]
)
def test_agreement_whose_interval_includes_chance_is_an_alarm(agreed, compared, raised):
    assert bool(alarms_of(agreed=agreed, compared=compared)) == raised


def test_annotators_who_agree_by_chance_are_an_alarm():
    known = {"krippendorff_alpha": -0.05, "krippendorff_low": -0.25, "agreed_upon": 40}
    (alarm,) = check_labels(read_label_counts(known))
    assert "-0.05" in alarm.sentence and "--labels" in alarm.check
    assert not check_labels(read_label_counts({**known, "krippendorff_alpha": 0.3, "krippendorff_low": 0.05}))
    assert not check_labels(read_label_counts({**known, "krippendorff_alpha": 0.2, "krippendorff_low": -0.1}))


def test_the_counts_are_read_from_what_a_labeling_step_records():
    recorded = {
        "duels": 8, "clashes": 1, "queries": 6, "over_budget": 1, "undecided": 2, "first_wins": 1, "second_wins": 3,
        "learnable": 4, "consistent": 2 / 3, "asked_in_both_orders": 6, "oracle": "judge/1",
    }  # fmt: skip
    found = read_label_counts(recorded)
    assert (found.duels, found.unpaid, found.readable, found.agreed, found.learnable) == (8, 1, 6, 4, 4)
