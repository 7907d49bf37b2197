"""From records to pairs, as Oat where it is asked to be, and from pairs to steps and passes."""

import json
from collections import Counter
from pathlib import Path

import pytest
from oatflow.components.errors import RecordError
from oatflow.components.policy.tokens import Pair, fit_completion, forward_passes, make_pairs, optimisation_steps
from oatflow.components.prompts.template import encode_answer, encode_prompt
from oatflow.components.records.records import Candidate, Duel, Preference

END = 2


def candidate(number, *tokens, prompt_tokens=3, finish="stop"):
    return Candidate("p", number, " ".join(map(str, tokens)), tokens, prompt_tokens, finish)


def duel(first=0, second=1, clash=False):
    return Duel("d", "p", "why?", "one", "other", first, second, clash)


def preference(chosen, clash=False):
    return Preference("d", "p", clash, None if clash else 0.5, chosen, None, None, "test")


def pairs(chosen, *candidates, longest=None, from_reference=False, **of_duel):
    prompts = {"p": [7, 8, 9]}
    return make_pairs(
        [preference(chosen)], [duel(**of_duel)], candidates, prompts, longest, from_reference=from_reference
    )


def test_a_completion_is_exactly_what_was_sampled_with_its_end_only_if_that_was_sampled():
    ended, cut_short = candidate(0, 4, 5, END), candidate(1, 6, 6, finish="length")
    assert pairs("first", ended, cut_short) == [Pair("d", (7, 8, 9), (4, 5, END), (6, 6))]


def test_the_label_says_which_candidate_is_chosen():
    found = pairs("second", candidate(0, 4), candidate(3, 5), candidate(1, 6), second=3)
    assert found == [Pair("d", (7, 8, 9), (5,), (4,))]


@pytest.mark.parametrize(("first", "chosen", "side"), [
    (0, "first", "rejected"), (0, "second", "chosen"), (1, "first", "chosen"), (1, "second", "rejected"),
])  # fmt: skip
def test_in_xpo_a_pair_knows_which_completion_the_reference_drew_wherever_it_was_shown(first, chosen, side):
    drawn = [candidate(0, 4), candidate(1, 5)]
    names = {"first": first, "second": 1 - first}
    (pair,) = pairs(chosen, *drawn, **names, from_reference=True)
    assert pair.of_reference == side and getattr(pair, side) == (5,)
    (pair,) = pairs(chosen, *drawn, **names)
    assert pair.of_reference is None


def test_a_clash_makes_a_pair_of_nothing_that_is_known_as_identical():
    (pair,) = make_pairs([preference(None, clash=True)], [duel(clash=True)], [candidate(0, 4)] * 2, {"p": [7, 8, 9]})
    assert pair == Pair("d", (7, 8, 9), (), ()) and pair.is_identical


def test_two_texts_that_are_one_in_tokens_make_an_identical_pair():
    (pair,) = pairs("first", candidate(0, 4, 5), candidate(1, 4, 5))
    assert pair == Pair("d", (7, 8, 9), (4, 5), (4, 5)) and pair.is_identical
    (pair,) = pairs("first", candidate(0, 4, 5, 6), candidate(1, 4, 5, END), longest=5)
    assert pair.is_identical, "what told them apart is cut off"


def test_preferences_keep_their_order_clashes_among_them():
    names = ["x", "y", "z"]
    duels = [Duel(name, "p", "why?", "one", "other", 0, 1, name == "y") for name in reversed(names)]
    given = [
        Preference(name, "p", name == "y", None, None if name == "y" else "second", None, None, "") for name in names
    ]
    found = make_pairs(given, duels, [candidate(0, 4), candidate(1, 5)], {"p": [7, 8, 9]})
    assert [(pair.duel_id, pair.chosen) for pair in found] == [("x", (5,)), ("y", ()), ("z", (5,))]


def test_a_pair_is_named_by_its_tokens_and_not_by_its_duel():
    one = Pair("a", (1,), (2,), (3,))
    assert Pair("b", (1,), (2,), (3,)).pair_id == one.pair_id
    others = [Pair("a", *tokens) for tokens in (((4,), (2,), (3,)), ((1, 2), (), (3,)), ((1,), (3,), (2,)))]
    assert one.pair_id not in [other.pair_id for other in others]


def test_what_the_model_has_no_room_for_is_cut_and_no_end_is_invented():
    (pair,) = pairs("first", candidate(0, 4, 5, 6, END), candidate(1, 4, END), longest=5)
    assert (pair.chosen, pair.rejected) == ((4, 5), (4, END))


def test_a_completion_without_a_token_is_refused_by_name():
    with pytest.raises(RecordError, match="duel d: candidate 1 has no token"):
        pairs("first", candidate(0, 4), candidate(1))
    for longest in (3, 2):
        with pytest.raises(RecordError, match="no token"):
            pairs("first", candidate(0, 4), candidate(1, 4), longest=longest)


def test_a_prompt_of_another_tokenizer_is_refused():
    with pytest.raises(RecordError, match="3 tokens here, and had 4 when it was sampled"):
        pairs("first", candidate(0, 4, prompt_tokens=4), candidate(1, 5, prompt_tokens=4))


# Ends: ours, and Oat's.


@pytest.mark.parametrize(
    ("tokens", "room", "ours", "oats"),
    [
        ((4, 5), None, (4, 5), (4, 5, END)),
        ((4, 5, END), None, (4, 5, END), (4, 5, END)),
        ((4, 5), 3, (4, 5), (4, 5, END)),
        ((4, 5), 2, (4, 5), (4, END)),
        ((4, 5, END), 2, (4, 5), (4, END)),
        ((4, END, 5, 6), 2, (4, END), (4, END)),
        ((4,), 1, (4,), (END,)),
        ((4, 5), 0, (), ()),
        ((4, 5), -1, (), ()),
    ],
)
def test_where_an_answer_was_cut_off_we_invent_no_end_and_oat_does(tokens, room, ours, oats):
    assert fit_completion(tokens, room, None) == ours
    assert fit_completion(tokens, room, END) == oats


def test_an_invented_end_can_make_two_answers_one():
    cut_off, ended = candidate(0, 4, 5, finish="length"), candidate(1, 4, 5, END)
    given = [preference("first")], [duel()], [cut_off, ended], {"p": [7, 8, 9]}
    assert [pair.is_identical for pair in make_pairs(*given)] == [False]
    assert [pair.is_identical for pair in make_pairs(*given, invented_end=END)] == [True]


GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_preference.json").read_text())["data"]
RECORD = GOLDEN["preference_dataset"]
FORMS = pytest.mark.parametrize("form", ["plain", "chat"])


@pytest.fixture(scope="module")
def tokenizer():
    """Oat's record was made with one token a word, and 25 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(GOLDEN["vocab(word-level, whitespace split)"])}
    splitting = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    splitting.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=splitting, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    made.chat_template = GOLDEN["prompt_dataset_chat"]["chat_template"]
    return made


def sampled(tokenizer, form, invented_end):
    """Return pairs of the record's rows, as if a policy had drawn their answers token by token."""
    duels, candidates, preferences, prompts = [], [], [], {}
    for number, (prompt, first, second, *_) in enumerate(RECORD["rows"]):
        name = str(number)
        prompts[name] = encode_prompt(tokenizer, prompt, apply_chat_template=form == "chat")
        for side, text in enumerate((first, second)):
            tokens = tuple(tokenizer(text.strip())["input_ids"])
            candidates.append(Candidate(name, side, text, tokens, len(prompts[name]), "length"))
        duels.append(Duel(name, name, prompt, first, second, 0, 1, False))
        preferences.append(Preference(name, name, False, 1.0, "first", None, None, "test"))
    return make_pairs(preferences, duels, candidates, prompts, RECORD["max_total_len"], invented_end)


def on_record(form, side):
    """Return Oat's rows without their padding."""
    rows = zip(RECORD[form][f"{side}_ids"], RECORD[form][f"{side}_mask"], strict=True)
    return [tuple(token for token, counts in zip(*row, strict=True) if counts) for row in rows]


def spelled(pairs, side):
    return [pair.prompt + getattr(pair, side) for pair in pairs]


@FORMS
def test_prompts_have_as_many_tokens_as_in_oat(tokenizer, form):
    lengths = [len(pair.prompt) for pair in sampled(tokenizer, form, None)]
    # Oat counts no more than the limit, and learns what is beyond it as if it were answer; we drop such prompts.
    counted = [min(length, RECORD["prompt_max_length"]) for length in lengths]
    assert counted == RECORD[form]["extra"]["prompt_ids_lens"]


@FORMS
def test_with_invented_ends_the_tokens_are_oats(tokenizer, form):
    pairs = sampled(tokenizer, form, tokenizer.eos_token_id)
    chosen = on_record(form, "chosen")
    if form == "chat":
        # Oat's template ends an answer that has ended already once more; a sampled end is one end.
        assert chosen[1] == (3, 5, 6, 4, 7, 1, 1)
        chosen[1] = chosen[1][:-1]
    assert spelled(pairs, "chosen") == chosen
    assert spelled(pairs, "rejected") == on_record(form, "rejected")


@FORMS
def test_without_them_an_answer_that_was_cut_off_has_no_end(tokenizer, form):
    pairs = sampled(tokenizer, form, None)
    prompts = [pair.prompt for pair in pairs]
    assert [pair.chosen for pair in pairs] == [(7, 8), (7, 1), (6,)]
    room = RECORD["max_total_len"] - len(prompts[1])
    assert [pair.rejected for pair in pairs] == [(9,), tuple(range(10, 20))[:room], (6,)]


def test_equal_answers_to_a_long_prompt_are_an_identical_pair_where_oat_learns_from_them(tokenizer):
    pairs = sampled(tokenizer, "plain", tokenizer.eos_token_id)
    assert [pair.is_identical for pair in pairs] == [False, False, True]
    # The record's last column says what is to be kept; where a prompt is long, Oat keeps it all the same.
    assert [row[4] for row in RECORD["rows"]] == [True, False, False]
    assert RECORD["plain"]["extra"]["loss_masks"] == [True, False, True]


@FORMS
def test_answers_that_are_given_as_text_end_as_in_oat(tokenizer, form):
    ends = [
        [encode_answer(tokenizer, text, RECORD["max_total_len"] - length) for text in row[1:3]]
        for row, length in zip(RECORD["rows"], RECORD[form]["extra"]["prompt_ids_lens"], strict=True)
    ]
    (first, second), (third, cut), _ = ends
    assert (first, second, third) == (((7, 8, 1), "stop"), ((9, 1), "stop"), ((7, 1), "stop"))
    assert cut[1] == "length" and 1 not in cut[0]


def some(count):
    return [Pair(f"d{number}", (1,) * (1 + number % 5), (2,) * (1 + number % 3), (3,)) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "size", "spread", "own_step"),
    [
        (7, 3, [3, 4], [3, 3, 1]),
        (3, 3, [3], [3]),
        (1, 8, [1], [1]),
        (0, 4, [], []),
        (57, 8, [8] * 6 + [9], [8] * 7 + [1]),
        (15, 8, [7, 8], [8, 7]),
        (11, 8, [11], [8, 3]),
    ],
)
def test_pairs_that_do_not_fill_a_step_are_spread_over_the_pass_or_are_a_step_of_their_own(
    count, size, spread, own_step
):
    for leftover, sizes in (("spread", spread), ("own_step", own_step)):
        steps = list(optimisation_steps(some(count), size, [11], leftover))
        assert [len(step) for step in steps] == sizes
        assert Counter(pair for step in steps for pair in step) == Counter(some(count))


@pytest.mark.parametrize("size", [1, 2, 8, 128])
def test_no_step_is_much_smaller_or_larger_than_the_batch_where_there_are_pairs_for_one(size):
    for count in range(size, 5 * size + 1):
        (steps,) = [[len(step) for step in optimisation_steps(some(count), size, [1])]]
        assert max(steps) - min(steps) <= 1
        assert 2 * size <= 3 * max(steps) and 2 * min(steps) <= 3 * size


@pytest.mark.parametrize("clashes", [0, 1, 3])
def test_clashes_count_as_pairs_of_a_step_but_a_step_of_clashes_alone_is_none(clashes):
    given = some(3) + [Pair(f"c{number}", (1,), (), ()) for number in range(clashes)]
    for seed in range(20):
        steps = list(optimisation_steps(given, 2, [seed]))
        assert all(len(step) <= 3 and any(not pair.is_identical for pair in step) for step in steps)
        learned = [pair for step in steps for pair in step if not pair.is_identical]
        assert Counter(learned) == Counter(some(3))
    if clashes == 3:
        # Six pairs make three steps, or two where two of the clashes have found each other.
        assert {len(list(optimisation_steps(given, 2, [seed]))) for seed in range(20)} == {2, 3}


def test_a_round_of_clashes_alone_has_no_step():
    assert list(optimisation_steps([Pair("c", (1,), (), ())] * 5, 2, [1, 2])) == []


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
