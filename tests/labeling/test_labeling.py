from dataclasses import replace

import pytest
from oatflow.components.errors import ClaimLost, OracleError
from oatflow.components.ledger import layout
from oatflow.components.ledger.step import Step
from oatflow.components.oracles.oracle import Answer
from oatflow.components.records.sealed import seal_document
from oatflow.components.records.tables import PREFERENCES


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def kill_before_write(monkeypatch, number):
    """Die when a part is about to be written for the `number`-th time."""
    write, calls = Step.write_output, []

    def dying(step, name, data):
        calls.append(name)
        if len(calls) == number:
            raise Killed
        return write(step, name, data)

    monkeypatch.setattr(Step, "write_output", dying)


def test_every_duel_gets_its_preference_in_order(begin, duels):
    round_ = begin(duels)
    done = round_.label()
    rows = round_.preferences()
    assert [row.duel_id for row in rows] == [duel.duel_id for duel in duels]
    assert [row.prompt_id for row in rows] == [duel.prompt_id for duel in duels]
    assert [row.chosen for row in rows] == [
        "first", "second", "first", None, None, "second", "first", "second", "first", "second",
    ]  # fmt: skip
    assert done.counts == {"duels": 10, "queries": 8, "clashes": 2, "over_budget": 0, "first_chosen": 4,
                           "learnable": 8, "first_wins": 4, "second_wins": 4}  # fmt: skip
    assert done.facts == {"oracle": "simulated/length/T=0.1"}
    assert set(done.timings) == {"startup", "ask", "work"}
    assert 0 <= done.timings["ask"] <= done.timings["work"]


def test_the_rewards_are_told_where_they_are_known(begin, duels):
    round_ = begin(duels)
    round_.label()
    first = round_.preferences()[0]
    assert (first.first_reward, first.second_reward, first.oracle) == (0.02, 0.01, "simulated/length/T=0.1")
    assert first.first_wins == pytest.approx(0.52497918747894)  # sigmoid(0.1)


def test_nobody_is_asked_about_a_clash(begin, duels):
    round_ = begin(duels)
    round_.label()
    clash = round_.preferences()[3]
    assert clash.clash
    assert (clash.first_wins, clash.chosen, clash.first_reward, clash.second_reward, clash.oracle) == (*[None] * 4, "")
    assert round_.asked() == [duel.duel_id for duel in duels if not duel.clash]


def test_there_is_one_part_for_every_batch(begin, duels):
    round_ = begin(duels, oracle_batch_size=4)
    done = round_.label()
    names = [placed.name for placed in done.outputs if placed.name.startswith("preferences-")]
    assert names == ["preferences-0000.parquet", "preferences-0001.parquet", "preferences-0002.parquet"]
    rows = [len(PREFERENCES.from_bytes(round_.ledger.read_output("labeling", name, 0))) for name in names]
    assert rows == [4, 4, 2]


def test_the_batch_size_changes_no_preference(begin, duels):
    one, many = begin(duels, "one", oracle_batch_size=1), begin(duels, "many", oracle_batch_size=64)
    one.label()
    many.label()
    assert one.preferences() == many.preferences()


def test_a_duel_that_occurs_again_is_asked_once_and_has_the_same_answer(begin, duels):
    twice = [duels[0], duels[1], duels[0], duels[2], replace(duels[0], prompt_id="twin")]
    round_ = begin(twice, oracle_batch_size=3, bt_sample=True)
    assert round_.label().counts["queries"] == 3
    assert sorted(round_.asked()) == sorted(duel.duel_id for duel in duels[:3])
    first, _, again, _, twin = round_.preferences()
    assert first == again == replace(twin, prompt_id=first.prompt_id)
    assert twin.prompt_id == "twin"


def test_never_more_is_asked_than_the_budget_has_left(begin, duels):
    round_ = begin(duels, queries_left=5, oracle_batch_size=2)
    done = round_.label()
    assert len(round_.asked()) == 5
    assert done.counts == {"duels": 10, "queries": 5, "clashes": 2, "over_budget": 3, "first_chosen": 3,
                           "learnable": 5, "first_wins": 3, "second_wins": 2}  # fmt: skip
    assert [row.duel_id for row in round_.preferences()] == [duel.duel_id for duel in duels[:7]]


def test_drawn_labels_depend_on_the_seed_and_the_duel_alone(begin, duels, scripted_oracle):
    scripted_oracle(lambda duel: Answer(0.5))
    one, many = begin(duels, "one", bt_sample=True, oracle_batch_size=1), begin(duels[::-1], "many", bt_sample=True)
    one.label()
    many.label()
    labels = {row.duel_id: row.chosen for row in one.preferences()}
    assert labels == {row.duel_id: row.chosen for row in many.preferences()}
    assert set(labels.values()) == {"first", "second", None}


@pytest.mark.parametrize("death", [1, 2, 3, 4, 5, 6, 7, 8])
def test_killed_at_any_part_the_preferences_are_the_bytes_of_a_run_that_never_was(begin, duels, monkeypatch, death):
    whole = begin(duels, "whole", oracle_batch_size=3)
    whole.label()
    round_ = begin(duels, "killed", oracle_batch_size=3)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_before_write(patch, death)
        round_.label()
    before = len(round_.objects())
    done = round_.label()
    assert before == (death - 1) // 2  # a batch is written twice: as receipts, then as preferences
    assert round_.objects() == whole.objects()
    assert done.counts == whole.ledger.find_done(0, "labeling").counts


def test_a_batch_that_is_durable_is_not_asked_again(begin, duels, scripted_oracle):
    broken = {"yes"}

    def answer(duel):
        if broken and duel.duel_id == duels[8].duel_id:
            raise ConnectionError("the oracle went away")
        return Answer(0.75)

    scripted_oracle(answer)
    round_ = begin(duels, oracle_batch_size=3)
    with pytest.raises(ConnectionError):
        round_.label()
    durable = [duel.duel_id for duel in duels[:6] if not duel.clash]
    broken.clear()
    round_.label()
    asked = round_.asked()
    assert [asked.count(duel) for duel in durable] == [1, 1, 1, 1]
    assert len(round_.preferences()) == 10


def test_another_batch_size_after_a_kill_goes_on_where_the_parts_end(begin, duels, monkeypatch):
    round_ = begin(duels, oracle_batch_size=3)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_before_write(patch, 4)
        round_.label()
    round_.ledger.experiment.settings["labeling"]["oracle_batch_size"] = 5
    round_.label()
    assert [row.duel_id for row in round_.preferences()] == [duel.duel_id for duel in duels]
    assert len(round_.objects()) == 3


def test_labeling_again_adopts_the_mark_and_asks_nobody(begin, duels):
    round_ = begin(duels)
    done, asked = round_.label(), round_.asked()
    assert round_.label() == done
    assert round_.asked() == asked


def test_an_answer_that_is_no_probability_leaves_no_preference_of_its_batch(begin, duels, scripted_oracle):
    scripted_oracle(lambda duel: Answer(float("nan") if duel.duel_id == duels[6].duel_id else 0.9))
    round_ = begin(duels, oracle_batch_size=5)
    with pytest.raises(OracleError, match=duels[6].duel_id):
        round_.label()
    assert list(round_.objects()) == [layout.output_key(0, "labeling", "preferences-0000.parquet")]
    assert round_.ledger.find_done(0, "labeling") is None


def test_nobody_without_the_claim_asks(begin, duels):
    round_ = begin(duels)
    with pytest.raises(ClaimLost):
        round_.label(run="b")
    assert round_.asked() == []


def test_a_round_of_clashes_costs_nothing_and_still_has_its_table(begin, duels):
    round_ = begin(duels[3:5])
    done = round_.label()
    assert done.counts == {"duels": 2, "queries": 0, "clashes": 2, "over_budget": 0, "first_chosen": 0,
                           "learnable": 0, "first_wins": 0, "second_wins": 0}  # fmt: skip
    (alarm,) = done.facts["alarms"]
    assert "None of the round's 2 duels gave a pair to learn from: 2 clashes" in alarm
    assert round_.asked() == []
    assert [row.clash for row in round_.preferences()] == [True, True]


def test_a_round_without_duels_has_an_empty_table(begin):
    round_ = begin([])
    assert round_.label().counts["duels"] == 0
    assert len(round_.objects()) == 1
    assert round_.preferences() == []


def lose_claim(round_):
    claim = round_.ledger.read_document(layout.claim_key(0))
    round_.ledger.store.put(layout.claim_key(0), seal_document({**claim, "run": "b", "token": 2}))


def test_whoever_loses_the_claim_while_asking_writes_nothing(begin, duels, scripted_oracle):
    round_ = begin(duels)
    scripted_oracle(lambda duel: lose_claim(round_) or Answer(0.9))
    with pytest.raises(ClaimLost, match="run 'b'"):
        round_.label()
    assert round_.objects() == {}


def test_whoever_lost_the_claim_asks_no_further_batch(begin, duels, monkeypatch):
    round_ = begin(duels, oracle_batch_size=3)
    write = Step.write_output
    monkeypatch.setattr(Step, "write_output", lambda *args: (write(*args), lose_claim(round_))[0])
    with pytest.raises(ClaimLost, match="run 'b'"):
        round_.label()
    assert round_.asked() == [duel.duel_id for duel in duels[:3]]


def test_a_duel_that_was_answered_before_a_kill_is_not_asked_when_it_occurs_again(begin, duels, monkeypatch):
    round_ = begin([*duels[:3], *duels[:3]], oracle_batch_size=3)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_before_write(patch, 3)
        round_.label()
    round_.label()
    assert round_.asked() == [duel.duel_id for duel in duels[:3]]
    assert round_.preferences()[:3] == round_.preferences()[3:]
