"""Offline: the labels are the preference set's own."""

from dataclasses import replace

import pytest
from oatflow.components.labeling.given import given_preference
from oatflow.components.rounds import tools

OFFLINE = {"chosen_key": "chosen", "rejected_key": "rejected"}


@pytest.fixture
def dealt(duels):
    """The ten duels, the better answer (candidate 0) in the second place where their number is odd."""
    return [
        duel if number % 2 == 0 else replace(duel, first_candidate=1, second_candidate=0)
        for number, duel in enumerate(duels)
    ]


def test_the_label_is_the_answer_that_the_set_calls_better_wherever_it_stands(begin, dealt):
    round_ = begin(dealt, prompts=OFFLINE)
    done = round_.label()
    rows = round_.preferences()
    assert [row.duel_id for row in rows] == [duel.duel_id for duel in dealt]
    assert [row.chosen for row in rows] == [
        "first", "second", "first", None, None, "second", "first", "second", "first", "second",
    ]  # fmt: skip
    assert [row.first_wins for row in rows] == [1.0, 0.0, 1.0, None, None, 0.0, 1.0, 0.0, 1.0, 0.0]
    assert {(row.first_reward, row.second_reward) for row in rows} == {(None, None)}
    assert {row.oracle for row in rows if not row.clash} == {"preference set"}
    assert done.counts == {"duels": 10, "queries": 0, "labels": 8, "clashes": 2, "first_chosen": 4, "learnable": 8}
    assert done.facts == {"oracle": "preference set"}


def test_no_oracle_is_opened_or_asked_and_the_budget_stays_whole(begin, dealt, monkeypatch):
    monkeypatch.setattr(tools, "open_oracle", lambda *where: pytest.fail("there is nobody to ask"))
    round_ = begin(dealt, prompts=OFFLINE, queries_left=1)
    assert round_.label().counts["labels"] == 8
    assert round_.asked() == []


def test_rows_that_contradict_each_other_keep_their_own_labels(begin, dealt):
    other_way_round = replace(dealt[0], prompt_id="twin", first_candidate=1, second_candidate=0)
    round_ = begin([dealt[0], other_way_round], prompts=OFFLINE)
    round_.label()
    assert [(row.duel_id, row.chosen) for row in round_.preferences()] == [
        (dealt[0].duel_id, "first"),
        (dealt[0].duel_id, "second"),
    ]


def test_a_clash_has_no_label(dealt):
    preference = given_preference(dealt[3])
    assert preference.clash
    assert (preference.first_wins, preference.chosen, preference.oracle) == (None, None, "")


def test_labels_that_a_killed_attempt_left_stand(begin, dealt, monkeypatch):
    round_ = begin(dealt, prompts=OFFLINE)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            "oatflow.components.ledger.step.Step.mark_done", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        round_.label()
    before = round_.objects()
    done = round_.label()
    assert len(before) == 1 and round_.objects() == before
    assert round_.label() == done
