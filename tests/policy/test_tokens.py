"""From records to pairs, and from pairs to steps and passes."""

from collections import Counter

import pytest
from oatflow.components.errors import RecordError
from oatflow.components.policy.tokens import Pair, forward_passes, make_pairs, optimisation_steps
from oatflow.components.records.records import Candidate, Duel, Preference

END = 2


def candidate(number, *tokens, prompt_tokens=3, finish="stop"):
    return Candidate("p", number, " ".join(map(str, tokens)), tokens, prompt_tokens, finish)


def duel(first=0, second=1, clash=False):
    return Duel("d", "p", "why?", "one", "other", first, second, clash)


def preference(chosen, clash=False):
    return Preference("d", "p", clash, None if clash else 0.5, chosen, None, None, "test")


def pairs(chosen, *candidates, longest=None, **of_duel):
    return make_pairs([preference(chosen)], [duel(**of_duel)], candidates, {"p": [7, 8, 9]}, longest)


def test_a_completion_is_exactly_what_was_sampled_with_its_end_only_if_that_was_sampled():
    ended, cut_short = candidate(0, 4, 5, END), candidate(1, 6, 6, finish="length")
    assert pairs("first", ended, cut_short) == [Pair("d", (7, 8, 9), (4, 5, END), (6, 6))]


def test_the_label_says_which_candidate_is_chosen():
    found = pairs("second", candidate(0, 4), candidate(3, 5), candidate(1, 6), second=3)
    assert found == [Pair("d", (7, 8, 9), (5,), (4,))]


def test_a_clash_makes_no_pair():
    assert make_pairs([preference(None, clash=True)], [duel(clash=True)], [candidate(0, 4)] * 2, {"p": [7, 8, 9]}) == []


def test_what_the_model_has_no_room_for_is_cut_and_no_end_is_invented():
    (pair,) = pairs("first", candidate(0, 4, 5, 6, END), candidate(1, 4, END), longest=5)
    assert (pair.chosen, pair.rejected) == ((4, 5), (4, END))


def test_a_completion_without_a_token_is_refused_by_name():
    with pytest.raises(RecordError, match="duel d: candidate 1 has no token"):
        pairs("first", candidate(0, 4), candidate(1))
    with pytest.raises(RecordError, match="no token"):
        pairs("first", candidate(0, 4), candidate(1, 4), longest=3)


def test_a_prompt_of_another_tokenizer_is_refused():
    with pytest.raises(RecordError, match="3 tokens here, and had 4 when it was sampled"):
        pairs("first", candidate(0, 4, prompt_tokens=4), candidate(1, 5, prompt_tokens=4))


def some(count):
    return [Pair(f"d{number}", (1,) * (1 + number % 5), (2,) * (1 + number % 3), (3,)) for number in range(count)]


@pytest.mark.parametrize(("count", "size", "sizes"), [(7, 3, [3, 3, 1]), (3, 3, [3]), (1, 8, [1]), (0, 4, [])])
def test_a_pass_over_the_pairs_leaves_none_out(count, size, sizes):
    steps = list(optimisation_steps(some(count), size, [11]))
    assert [len(step) for step in steps] == sizes
    assert Counter(pair for step in steps for pair in step) == Counter(some(count))


def test_the_order_depends_on_the_seed_alone():
    once, again, other = (list(optimisation_steps(some(16), 4, [seed])) for seed in (5, 5, 6))
    assert once == again != other


def test_every_epoch_has_an_order_of_its_own():
    steps = list(optimisation_steps(some(8), 8, [1, 2]))
    assert len(steps) == 2 and steps[0] != steps[1] and set(steps[0]) == set(steps[1])


@pytest.mark.parametrize("count", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_all_ranks_make_equally_many_passes_that_hold_each_pair_once(count, size, world):
    shares = [forward_passes(some(count), size, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert Counter(pair for share in shares for passed in share for pair in passed) == Counter(some(count))
    assert max(len(passed) for share in shares for passed in share) <= size
    assert len(shares[0]) == -(-count // (size * world))


def test_pairs_of_like_length_go_together():
    lengths = [[pair.length for pair in passed] for passed in forward_passes(some(12), 3, 0, 1)]
    assert [length for passed in lengths for length in passed] == sorted(pair.length for pair in some(12))
