"""What a judge said, read; the numbers are Oat's (tests/golden) or by hand."""

import json
import math
from math import log
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.oracles.verdicts import OPTIONS, read_logprobs, read_text

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_oracles.json").read_text())["oracles"]


@pytest.mark.parametrize("case", GOLDEN["gpt_logprob_parser"], ids=lambda case: str(case["top_logprobs"]))
def test_log_probabilities_are_read_as_oat_reads_them_but_for_its_random_number(case):
    read = read_logprobs([(token, logprob) for token, logprob in case["top_logprobs"]])
    if case["P(first)"] == "nan":
        assert read is None
    else:
        assert read == pytest.approx(case["P(first)"], abs=1e-9)


def test_there_are_readable_and_unreadable_golden_cases():
    assert sorted(str(case["P(first)"]) == "nan" for case in GOLDEN["gpt_logprob_parser"]) == [False] * 4 + [True]


@pytest.mark.parametrize("token", ["0", " 0", "0 ", "\u25810", "\u01200", "\n0", "\u010a0", "\u00a00"])
def test_a_token_is_an_option_whatever_space_it_brings(token):
    assert read_logprobs([(token, log(0.3)), ("1", log(0.6))]) == pytest.approx(1 / 3)


def test_spellings_of_one_option_count_together():
    top = [("0", log(0.2)), (" 0", log(0.1)), ("1", log(0.5)), ("\u25811", log(0.1)), ("The", log(0.05))]
    assert read_logprobs(top) == pytest.approx(0.3 / 0.9)


@pytest.mark.parametrize("token", ["00", "10", "0.", "-0", "zero", "A", "", "０", "first"])
def test_other_tokens_are_no_option(token):
    assert read_logprobs([(token, log(0.3)), ("1", log(0.6))]) == 0.0
    assert read_logprobs([(token, log(0.9))]) is None


@pytest.mark.parametrize("top", [
    [],
    [("I", log(0.999)), ("0", log(1e-6))],
    [("<<", -0.40), ("The", -2.27), ("1", -4.13), ("It", -4.16), ("A", -4.62)],
    [("I", log(0.5)), ("0", log(0.3)), ("1", log(0.19))],
    [("Sorry", -0.001), ("0", -9999.0), ("1", -9999.0)],
    [("0", -math.inf), ("1", -math.inf)],
    [("0", math.nan), ("1", math.nan)],
])  # fmt: skip
def test_a_judge_that_wanted_to_say_something_else_is_unreadable(top):
    assert read_logprobs(top) is None


def test_extreme_log_probabilities_overflow_nothing():
    assert read_logprobs([("0", 0.0), ("1", -9999.0)]) == 1.0
    assert read_logprobs([("0", 1e300), ("1", 0.0)]) == 0.5
    assert read_logprobs([("0", 1e-9), ("1", -math.inf)]) == 1.0
    assert read_logprobs([("0", math.nan), ("1", -0.1)]) == 0.0


@given(st.lists(st.tuples(st.sampled_from(["0", " 0", "1", "\u25811", "A", ""]), st.floats()), max_size=8))
def test_whatever_is_read_is_a_probability(top):
    read = read_logprobs(top)
    assert read is None or 0 <= read <= 1


@given(st.lists(st.floats(-1.3, 0), min_size=2, max_size=2))
def test_swapped_options_have_swapped_probabilities(logprobs):
    there = read_logprobs(list(zip(OPTIONS, logprobs, strict=True)))
    back = read_logprobs(list(zip(OPTIONS, reversed(logprobs), strict=True)))
    assert there + back == pytest.approx(1)


@pytest.mark.parametrize("text", [
    "0", " 0\n", "0.", "**0**", '"0"', "(0)", "`0`", "0: it is warmer", "0\nIt is warmer.", "Answer: 0", "I pick 0.",
    "The better one is **0**", "0, since 0 is warm", "0!",
])  # fmt: skip
def test_a_text_that_clearly_names_one_option_is_read(text):
    assert read_text(text) == 1.0
    assert read_text(text.replace("0", "1")) == 0.0


@pytest.mark.parametrize("text", [
    "", " ", "...", "A", "first", "2", "01", "10", "0.5", "1.0", "0,5", "00", "x0", "0 or 1", "0 1", "01 01",
    "1 is better than 0", "Both 0 and 1 are fine", "I think that 0 is better", "neither", "I cannot say.", "-",
    "0 is worse", "1 of them is better", "-1", "minus 1 point", "v1", "a.0", "1) Warmth",
    "1. Warmth: the first is warmer",
])  # fmt: skip
def test_any_other_text_is_unreadable(text):
    assert read_text(text) is None


@given(st.text(alphabet="01 .,aA\n*-", max_size=12))
def test_a_read_text_never_names_the_other_option_alone(text):
    read = read_text(text)
    if read is not None:
        loser = OPTIONS[1] if read else OPTIONS[0]
        assert loser not in text.split()
