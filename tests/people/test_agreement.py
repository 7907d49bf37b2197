import numpy as np
import pytest
from oatflow.components.people.agreement import agreement_facts, alpha_interval, nominal_alpha, verdicts_on
from oatflow.components.people.annotations import Annotation


def by_units(*observers):
    """Turn one row an observer, with a dot for a missing value, into the values that each unit was given."""
    return [[value for value in unit if value != "."] for unit in zip(*observers, strict=True)]


def verdicts(**people):
    """Make annotations of one word a person, a letter a duel: first, second, tie, skip, or a dot for none."""
    words = {"f": "first", "s": "second", "t": "tie", "-": "skip"}
    size = len(next(iter(people.values())))
    return {
        f"duel-{n}": [Annotation(f"duel-{n}", who, words[said[n]]) for who, said in people.items() if said[n] != "."]
        for n in range(size)
    }


def krippendorff_alpha(answers):
    return nominal_alpha(verdicts_on(answers))


def test_krippendorffs_worked_example_of_two_observers_and_two_values():
    # "Computing Krippendorff's Alpha-Reliability" (2011), part A.
    assert nominal_alpha(by_units("0100000010", "1110010000")) == pytest.approx(0.095, abs=5e-4)


def test_krippendorffs_worked_example_of_two_observers_and_many_values():
    # Part B of the same; the letters of 12 articles.
    assert nominal_alpha(by_units("aabbdcccedda", "babbbccceddd")) == pytest.approx(0.692, abs=5e-4)


def test_krippendorffs_worked_example_of_four_observers_with_missing_values():
    # Part C of the same.
    observers = "123321412...", "1233224125..", ".33323422513", "12332441251."
    assert nominal_alpha(by_units(*observers)) == pytest.approx(0.743, abs=5e-4)


def test_the_encyclopedias_example_of_three_observers_with_missing_values():
    # Krippendorff's alpha, Wikipedia: 0.691 for nominal data.
    observers = ".....34121133.3", "1.213343.......", "..21344.21133.4"
    assert nominal_alpha(by_units(*observers)) == pytest.approx(0.691, abs=5e-4)


def test_an_alpha_worked_by_hand():
    # Four duels, one disagreement. Values: 5 first, 3 second. Coincidences: first-first 4, second-second 2, mixed 2.
    # Observed disagreement 2/8, expected 2*5*3/(8*7) = 30/56: alpha = 1 - (1/4)/(15/28) = 8/15.
    assert krippendorff_alpha(verdicts(ann="ffsf", ben="ffss")) == pytest.approx(8 / 15)


def test_full_agreement_is_one_and_full_disagreement_is_less_than_chance():
    assert krippendorff_alpha(verdicts(ann="fsft", ben="fsft")) == 1.0
    # Two duels: observed 1, expected 2*2*2/(4*3) = 2/3.
    assert krippendorff_alpha(verdicts(ann="fs", ben="sf")) == pytest.approx(-0.5)


def test_a_skip_counts_as_no_verdict():
    with_skips = krippendorff_alpha(verdicts(ann="ffsf-f", ben="ffssf-"))
    assert with_skips == krippendorff_alpha(verdicts(ann="ffsf..", ben="ffss..")) == pytest.approx(8 / 15)


def test_a_verdict_without_a_second_one_changes_nothing():
    assert krippendorff_alpha(verdicts(ann="ffsfttt", ben="ffss...")) == pytest.approx(8 / 15)


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"duel-0": []},
        verdicts(ann="f"),
        verdicts(ann="fst"),
        verdicts(ann="ff", ben="ff"),
        verdicts(ann="f.", ben=".s"),
        verdicts(ann="--", ben="fs"),
    ],
    ids=["nothing", "no answer", "one answer", "one person", "one value", "never the same duel", "all skipped"],
)
def test_where_agreement_is_not_defined_there_is_none(answers):
    assert krippendorff_alpha(answers) is None
    assert agreement_facts(answers, 1) == {}


def test_agreement_is_told_with_its_interval_and_how_many_duels_it_is_over():
    found = agreement_facts(verdicts(ann="ffsfssfsff.t", ben="ffssssfffft."), 7)
    assert found["agreed_upon"] == 10
    assert -1 <= found["krippendorff_low"] < found["krippendorff_alpha"] < found["krippendorff_high"] <= 1
    assert found == agreement_facts(verdicts(ann="ffsfssfsff.t", ben="ffssssfffft."), 7)


@pytest.mark.slow
def test_the_interval_holds_the_true_agreement_19_times_of_20():
    # Values of two are the same with 0.7, and either value is as likely as the other: alpha 1 - 0.3 / 0.5.
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(60):
        first, same = rng.integers(0, 2, 80), rng.random(80) < 0.7
        units = [[str(one), str(one if alike else 1 - one)] for one, alike in zip(first, same, strict=True)]
        low, high = alpha_interval(units, trial)
        held += low <= 0.4 <= high
    assert held >= 51


@pytest.mark.parametrize("people", [{"ann": "fsft", "ben": "fsft"}, {"ann": "fs", "ben": "ff"}], ids=["alike", "few"])
def test_duels_that_cannot_say_how_far_to_trust_them_give_no_interval(people):
    assert set(agreement_facts(verdicts(**people), 1)) == {"krippendorff_alpha", "agreed_upon"}
