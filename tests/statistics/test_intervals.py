import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.statistics.intervals import wilson_interval


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
