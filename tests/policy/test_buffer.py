"""Which preferences a round learns from, worked out by hand."""

import pytest
from oatflow.components.policy.buffer import buffer_sizes, buffered_rounds


def test_nothing_is_forgotten_where_the_buffer_is_never_cleared():
    assert [list(buffered_rounds(round_, None)) for round_ in range(3)] == [[0], [0, 1], [0, 1, 2]]


def test_a_buffer_that_is_cleared_every_three_rounds_begins_anew_with_the_fourth():
    expected = [[0], [0, 1], [0, 1, 2], [3], [3, 4], [3, 4, 5], [6]]
    assert [list(buffered_rounds(round_, 3)) for round_ in range(7)] == expected


def test_a_buffer_that_is_cleared_every_round_holds_the_round_itself():
    assert [list(buffered_rounds(round_, 1)) for round_ in range(3)] == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("maxlen", "clear_every", "expected"),
    [
        (None, None, [2, 2, 2, 2, 1]),
        (None, 3, [2, 2, 2, 2, 1]),
        (5, None, [2, 4, 5, 5, 5]),
        (5, 3, [2, 4, 5, 2, 3]),
        (5, 1, [2, 2, 2, 2, 1]),
        (1, None, [1, 1, 1, 1, 1]),
        (100, None, [2, 4, 6, 8, 9]),
        (100, 2, [2, 4, 2, 4, 1]),
    ],
)
def test_five_rounds_of_two_preferences_the_last_of_one(maxlen, clear_every, expected):
    assert buffer_sizes([2, 2, 2, 2, 1], maxlen, clear_every) == expected


def test_an_experiment_without_rounds_needs_no_buffer():
    assert buffer_sizes([], 5, 3) == []
