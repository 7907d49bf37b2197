import json

import pytest
from oatflow.components.errors import LedgerError, RefusedInput, WaitingForLabels
from oatflow.components.ledger import layout
from oatflow.components.oracles.settings import HumanSettings
from oatflow.components.people.annotations import Annotation
from oatflow.components.records.plan import Plan, PolicyPointer
from oatflow.components.records.records import Duel, duel_id
from oatflow.components.rounds.annotation_files import (
    add_answers,
    collect_answers,
    is_answered,
    read_annotations,
    read_batch,
    read_missing_answers,
)


def duel(number):
    texts = f"Question {number}?", "one", "two"
    return Duel(duel_id(*texts), f"prompt-{number}", *texts, 0, 1, False)


DUELS = [duel(number) for number in range(3)]
TWO_PEOPLE = HumanSettings(human_annotators=2)
PATIENT = HumanSettings(human_annotators=2, human_wait_minutes=10)


class Time:
    """A clock that only sleeping moves; `then` happens after so many sleeps."""

    def __init__(self, then=None):
        self.now, self.slept, self.then = 0.0, [], then or {}

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        self.then.get(len(self.slept), lambda: None)()

    def given(self):
        return {"sleep": self.sleep, "monotonic": lambda: self.now}


@pytest.fixture
def ledger(begin_ledger):
    settings = {"prompts": {}, "labeling": {"preference_oracle": "human"}, "ledger": {"seed": 7},
                "human": {"human_guideline": "Which is kinder?", "human_annotators": 2}}  # fmt: skip
    plan = Plan(0, 1, (), *[PolicyPointer(-1, "start")] * 2, 0, 1000)
    return begin_ledger("demo", settings, [plan])[0]


def collect(ledger, duels=DUELS, settings=TWO_PEOPLE, time=None, said=None):
    time, said = time or Time(), said if said is not None else []
    with ledger.open_step(0, "labeling", "a") as step:
        return collect_answers(step, duels, settings, said.append, **time.given())


def said_by(annotator, verdict="first", duels=DUELS):
    return [Annotation(row.duel_id, annotator, verdict, None) for row in duels]


@pytest.fixture
def asked(ledger):
    with pytest.raises(WaitingForLabels):
        collect(ledger)
    return ledger


def objects(ledger):
    return {entry.key: ledger.store.get(entry.key).data for entry in ledger.store.list("rounds/00000/labeling/")}


def test_the_questions_lie_in_the_ledger_in_all_their_forms_and_the_run_waits(ledger):
    with pytest.raises(WaitingForLabels, match=r"round 0 is waiting.*3 of 3 duels lack 6 answers.*oatflow label demo"):
        collect(ledger)
    folder = "rounds/00000/labeling/questions/"
    assert objects(ledger).keys() == {
        folder + name for name in ("page.html", "questions.jsonl", "questions.csv", "questions.argilla.jsonl")
    }
    batch = read_batch(ledger, 0)
    assert (batch.experiment, batch.round, batch.guideline) == ("demo", 0, "Which is kinder?")
    assert [one.duel_id for one in batch.questions] == [row.duel_id for row in DUELS]


def test_asked_again_the_questions_are_the_same_bytes(asked):
    before = objects(asked)
    with pytest.raises(WaitingForLabels):
        collect(asked)
    assert objects(asked) == before


def test_questions_that_were_killed_half_written_are_completed(asked):
    whole = objects(asked)
    asked.store.delete("rounds/00000/labeling/questions/questions.jsonl")
    asked.store.delete("rounds/00000/labeling/questions/questions.csv")
    with pytest.raises(WaitingForLabels):
        collect(asked)
    assert objects(asked) == whole


def test_answers_that_are_there_are_returned_by_duel_without_a_pause(asked):
    assert add_answers(asked, 0, said_by("zoe") + said_by("ann", "tie")) == 6
    time = Time()
    answers = collect(asked, time=time)
    assert list(answers) == [row.duel_id for row in DUELS]
    assert [[(row.annotator, row.verdict) for row in rows] for rows in answers.values()] == [
        [("ann", "tie"), ("zoe", "first")]
    ] * 3
    assert time.slept == []


def test_who_skips_has_answered(asked):
    add_answers(asked, 0, said_by("zoe", "skip") + said_by("ann"))
    assert collect(asked)


def test_it_waits_as_long_as_the_settings_say_and_no_longer(ledger):
    time, said = Time(), []
    with pytest.raises(WaitingForLabels):
        collect(ledger, settings=PATIENT, time=time, said=said)
    assert sum(time.slept) == 600
    assert len(time.slept) == 60
    assert said == ["3 of 3 duels lack 6 answers of people"]


def test_it_goes_on_when_the_answers_arrive_and_tells_how_far_people_are(ledger):
    time = Time({2: lambda: add_answers(ledger, 0, said_by("ann")), 4: lambda: add_answers(ledger, 0, said_by("ben"))})
    said = []
    answers = collect(ledger, settings=PATIENT, time=time, said=said)
    assert len(time.slept) == 4
    assert {len(rows) for rows in answers.values()} == {2}
    assert said == ["3 of 3 duels lack 6 answers of people", "3 of 3 duels lack 3 answers of people"]


def test_without_a_duel_nobody_is_asked(ledger):
    assert collect(ledger, duels=[]) == {}
    assert objects(ledger) == {}
    assert read_batch(ledger, 0) is None


def test_fewer_duels_than_were_asked_are_fine_and_others_are_not(asked):
    add_answers(asked, 0, said_by("ann", duels=DUELS[:1]) + said_by("ben", duels=DUELS[:1]))
    assert list(collect(asked, duels=DUELS[:1])) == [DUELS[0].duel_id]
    with pytest.raises(LedgerError, match="1 others want an answer"):
        collect(asked, duels=[*DUELS, duel(9)])


def test_questions_and_answers_are_outputs_of_the_step_with_their_digests(asked):
    add_answers(asked, 0, said_by("ann") + said_by("ben"))
    with asked.open_step(0, "labeling", "a") as step:
        collect_answers(step, DUELS, HumanSettings(human_annotators=2), print)
        done = step.mark_done(counts={}, timings={})
    names = sorted(placed.name for placed in done.outputs)
    assert [name.split("/")[0] for name in names] == ["annotations"] * 2 + ["questions"] * 4
    assert all(asked.read_output("labeling", name, 0) for name in names)


def test_the_same_file_twice_is_once(asked):
    assert add_answers(asked, 0, said_by("ann")) == 3
    before = objects(asked)
    assert add_answers(asked, 0, said_by("ann")) == 0
    assert add_answers(asked, 0, said_by("ann")[::-1] * 2) == 0
    assert objects(asked) == before


def test_of_a_file_that_was_added_in_part_only_the_rest_is_new(asked):
    add_answers(asked, 0, said_by("ann", duels=DUELS[:1]))
    assert add_answers(asked, 0, said_by("ann")) == 2
    assert len(read_annotations(asked, 0)) == 3


def test_a_file_lies_under_the_persons_name_and_the_digest_of_its_content(asked):
    add_answers(asked, 0, said_by("jörg öst", duels=DUELS[:1]) + said_by("李", duels=DUELS[:1]))
    names = [entry.key.rpartition("/")[2] for entry in asked.store.list("rounds/00000/labeling/annotations/")]
    assert [name.rpartition("-")[0] for name in names] == ["j-rg-st", "person"]
    assert all(len(name.rpartition("-")[2]) == len("0123456789ab.jsonl") for name in names)
    assert {row.annotator for row in read_annotations(asked, 0)} == {"jörg öst", "李"}


@pytest.mark.parametrize("known", [True, False], ids=["said before", "in the same file"])
def test_who_says_something_else_of_a_duel_is_refused_and_nothing_is_added(asked, known):
    rows = said_by("ann")
    if known:
        add_answers(asked, 0, rows)
    before = objects(asked)
    with pytest.raises(RefusedInput, match=rf"duel {DUELS[1].duel_id}: 'ann' said 'first' before and 'tie' now"):
        add_answers(asked, 0, [*rows, *said_by("ann", "tie", DUELS[1:2])])
    assert objects(asked) == before


def test_a_duel_that_was_not_asked_is_refused_and_nothing_is_added(asked):
    with pytest.raises(RefusedInput, match=r"not one of the 3 duels that were asked"):
        add_answers(asked, 0, [*said_by("ann"), *said_by("ann", duels=[duel(9)])])
    assert read_annotations(asked, 0) == []


def test_a_round_that_asked_nothing_or_is_labelled_takes_no_answers(ledger):
    with pytest.raises(RefusedInput, match="round 0 has asked people nothing"):
        add_answers(ledger, 0, said_by("ann"))
    with pytest.raises(WaitingForLabels):
        collect(ledger)
    with ledger.open_step(0, "labeling", "a") as step:
        step.mark_done(counts={}, timings={})
    with pytest.raises(RefusedInput, match="round 0 is labelled already"):
        add_answers(ledger, 0, said_by("ann"))


def test_of_two_contradictions_that_were_added_at_once_the_same_one_counts_for_everybody(asked):
    prefix = layout.output_key(0, "labeling", "annotations/")
    for name, verdict in (("b", "second"), ("a", "first")):
        body = {"duel_id": DUELS[0].duel_id, "annotator": "ann", "verdict": verdict, "left": "first"}
        asked.store.put(f"{prefix}ann-{name}.jsonl", f"{json.dumps(body)}\n".encode())
    assert [row.verdict for row in read_annotations(asked, 0)] == ["first"]


def test_a_round_is_answered_when_enough_people_have_answered_everything(asked):
    two = HumanSettings(human_annotators=2)
    assert not is_answered(asked, 0, two)
    add_answers(asked, 0, said_by("ann"))
    assert (is_answered(asked, 0, two), is_answered(asked, 0, HumanSettings())) == (False, True)
    add_answers(asked, 0, said_by("ben", duels=DUELS[:2]))
    assert read_missing_answers(asked, 0, two).by_duel == {DUELS[2].duel_id: 1}
    add_answers(asked, 0, said_by("cem"))
    assert is_answered(asked, 0, two)


def test_a_round_that_asks_nothing_waits_for_nobody(ledger):
    assert is_answered(ledger, 0, HumanSettings())
