from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.labeling.budget import Affordable, within_budget
from oatflow.components.records.records import Duel


def duel(name):
    """A capital letter is a clash."""
    return Duel(name, "p", "?", "a", "b", 0, 1, name.isupper())


def names(affordable):
    return "".join(duel.duel_id for duel in affordable.duels)


def test_the_budget_is_spent_first_come_first_served():
    affordable = within_budget([duel(name) for name in "abcd"], 3)
    assert (names(affordable), affordable.queries) == ("abc", 3)


def test_clashes_and_repetitions_cost_nothing_even_when_the_budget_is_spent():
    affordable = within_budget([duel(name) for name in "XaaYbcaZ"], 2)
    assert (names(affordable), affordable.queries) == ("XaaYbaZ", 2)


def test_without_a_budget_only_clashes_are_kept():
    affordable = within_budget([duel(name) for name in "aXb"], 0)
    assert (names(affordable), affordable.queries) == ("X", 0)


def test_no_duels_need_no_budget():
    assert within_budget([], 5) == Affordable([], 0)


@given(st.text("abcdefXYZ", max_size=30), st.integers(0, 8))
def test_the_queries_are_the_different_duels_kept_and_never_more_than_the_budget(drawn, left):
    affordable = within_budget([duel(name) for name in drawn], left)
    kept = names(affordable)
    different = set(filter(str.islower, drawn))
    assert affordable.queries == len(set(filter(str.islower, kept))) == min(left, len(different))
    assert all(kept.count(name) in (0, drawn.count(name)) for name in drawn)
