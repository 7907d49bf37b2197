import pytest
from oatflow.components.oracles.agreement import krippendorff_alpha, nominal_alpha
from oatflow.components.oracles.annotations import Annotation


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
