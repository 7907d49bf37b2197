from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.prompts.schedule import prompts_of_round

counts = st.integers(1, 40)
sizes = st.integers(1, 50)
seeds = st.integers(0, 2**63 - 1)


def rounds(count, size, seed, number):
    return [prompts_of_round(count, round_, size, seed) for round_ in range(number)]


@given(counts, sizes, seeds)
def test_every_epoch_holds_every_prompt_once(count, size, seed):
    stream = [index for chosen in rounds(count, size, seed, 3 * count // size + 2) for index in chosen]
    for epoch in range(3):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(counts, sizes, seeds)
def test_a_round_has_no_prompt_twice_unless_the_set_is_smaller(count, size, seed):
    for chosen in rounds(count, size, seed, 8):
        assert len(chosen) == size
        most = max(Counter(chosen).values())
        assert most == 1 if size <= count else most <= size // count + 2


@given(counts, sizes, seeds, st.integers(0, 50))
def test_a_round_depends_on_its_number_alone(count, size, seed, round_):
    assert prompts_of_round(count, round_, size, seed) == prompts_of_round(count, round_, size, seed)
    assert set(prompts_of_round(count, round_, size, seed)) <= set(range(count))


def test_five_prompts_in_rounds_of_two_walk_through_two_epochs_without_a_gap():
    stream = [index for chosen in rounds(5, 2, 0, 5) for index in chosen]
    assert sorted(stream[:5]) == sorted(stream[5:]) == [0, 1, 2, 3, 4]
    assert stream[4] != stream[5]


def test_the_order_is_this_one_for_good():
    assert prompts_of_round(10, 0, 10, 0) == GOLDEN
    assert prompts_of_round(10, 0, 10, 1) != GOLDEN
    assert prompts_of_round(10, 1, 10, 0) != GOLDEN


def test_one_prompt_is_asked_again_and_again():
    assert prompts_of_round(1, 3, 2, 0) == [0, 0]


GOLDEN = [6, 1, 9, 0, 2, 7, 5, 3, 4, 8]
