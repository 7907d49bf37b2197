import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.statistics.intervals import estimate_mean, mean_interval, wilson_interval


def test_the_interval_is_wilsons():
    # 81 of 263: the example of Newcombe (1998), Statistics in Medicine 17, table I.
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


@given(st.integers(1, 500), st.floats(0, 1))
def test_the_share_lies_in_its_interval_and_its_complement_mirrors_it(cases, part):
    share = round(part * cases) / cases
    low, high = wilson_interval(share, cases)
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    assert wilson_interval(1 - share, cases) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_values_that_are_all_equal_have_a_mean_and_no_interval():
    assert mean_interval([0.1] * 40) is None and mean_interval([3.0]) is None
    found = estimate_mean([48.0] * 40)
    assert (found.value, found.low, found.high) == (48.0, None, None)


def test_without_skewness_the_interval_is_students():
    low, high = mean_interval([-1.0, 0.0, 1.0])
    assert (low, high) == pytest.approx((-4.30265 / 3**0.5, 4.30265 / 3**0.5), rel=1e-4)


def test_a_long_tail_draws_the_interval_to_its_side():
    low, high = mean_interval([0.0] * 15 + [1.0, 1.0, 2.0, 8.0])
    mean = 12 / 19
    assert high - mean > 1.5 * (mean - low)
    mirrored = mean_interval([0.0] * 15 + [-1.0, -1.0, -2.0, -8.0])
    assert mirrored == pytest.approx((-high, -low))


# `measure_coverage.py` has the whole table.
@pytest.mark.parametrize(("law", "truth"), [("exponential", 1.0), ("mixture", 0.4)])
def test_the_interval_of_twenty_skewed_values_holds_their_mean(law, truth):
    random, held = np.random.default_rng(5), 0
    for _ in range(2000):
        values = random.exponential(1.0, 20) * (1 if law == "exponential" else random.random(20) < 0.4)
        low, high = mean_interval(values) or (0.0, 0.0)
        held += low <= truth <= high
    assert 0.935 <= held / 2000 <= 0.98
