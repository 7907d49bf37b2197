import pytest
from oatflow.components.labeling.queries import count_queries, measure_answers
from oatflow.components.records.records import Preference, Receipt


def receipt(name, first_wins=0.9, lost=False, **more):
    told = {"undecided": False, "raw": "", "requests": 1, "retried": 0, "seconds": 0.0}
    rest = dict.fromkeys(("first_reward", "second_reward", "orders", "shown_first_wins", "consistent", "input_tokens",
                          "output_tokens", "cost"))  # fmt: skip
    return Receipt(name, "p", "o", lost, first_wins=first_wins, **{**told, **rest, **more})


def preference(name, first_wins=0.9, oracle="o", clash=False):
    return Preference(name, "p", clash, first_wins, None, None, None, oracle)


def test_each_query_is_counted_once_and_classes_that_did_not_occur_are_not_there():
    assert count_queries([receipt("a"), receipt("b")], [preference("a"), preference("b")], {}) == {"queries": 2}
    assert count_queries([], [], {}) == {"queries": 0}


def test_every_class_is_counted():
    receipts = [
        receipt("a", None), receipt("b", None, lost=True), receipt("c", 0.5, undecided=True), receipt("d", retried=3),
    ]  # fmt: skip
    rows = [
        *(preference(name) for name in "abcd"), preference("e"), preference("f", None, ""),
        preference("g", None, "", clash=True), preference("h", 0.7, "member 3"),
    ]  # fmt: skip
    assert count_queries(receipts, rows, {"e"}) == {
        "queries": 4, "unreadable": 1, "lost": 1, "undecided": 1, "retried": 3, "unpaid": 1, "reused": 1,
    }  # fmt: skip


def test_what_nobody_told_is_not_there():
    assert measure_answers([receipt("a")]) == {}


def test_costs_are_sums_and_a_bias_is_a_mean_with_its_number():
    took = measure_answers([
        receipt("a", cost=0.25, input_tokens=10, output_tokens=1, seconds=1.0, shown_first_wins=0.75, consistent=True),
        receipt("b", cost=0.5, input_tokens=20, output_tokens=1, seconds=3.0, shown_first_wins=0.5, consistent=False),
    ])  # fmt: skip
    assert took == {
        "cost": 0.75, "input_tokens": 30.0, "output_tokens": 2.0, "latency": 2.0, "position_bias": 0.125,
        "position_spread": pytest.approx(0.125 * 2**0.5), "shown": 2,
        "consistent": 0.5, "asked_in_both_orders": 2,
    }  # fmt: skip


def test_an_answer_from_before_there_were_receipts_is_a_query_all_the_same():
    rows = [preference(name) for name in "abc"]
    assert count_queries([receipt("a")], rows, {"c"}) == {"queries": 2, "reused": 1}
