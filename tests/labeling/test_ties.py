"""A probability of exactly 0.5 says that neither answer is better, and teaches nothing, unless Oat's rule is chosen."""

import pytest
from oatflow.components.errors import SettingsChanged
from oatflow.components.oracles.oracle import Answer, OracleFailed
from oatflow.components.rounds.experiment import ExperimentSettings, refuse_changes


def even_is_a_tie(duel):
    return Answer(0.5 if int(duel.prompt_id[-1]) % 2 == 0 else 0.9)


@pytest.mark.parametrize("drawn", [False, True], ids=["likelier", "drawn"])
def test_a_tie_is_undecided_and_gives_no_label(begin, duels, scripted_oracle, drawn):
    scripted_oracle(even_is_a_tie)
    round_ = begin(duels, ties="undecided", bt_sample=drawn)
    done = round_.label()
    ties = [row for row in round_.preferences() if row.first_wins == 0.5]
    assert len(ties) == 4 and all(row.undecided and row.chosen is None for row in ties)
    assert sum(row.undecided for row in round_.receipts()) == 4
    assert (done.counts["undecided"], done.counts["learnable"], done.counts["queries"]) == (4, 4, 8)


def test_oats_rule_gives_a_tie_to_the_second(begin, duels, scripted_oracle):
    scripted_oracle(even_is_a_tie)
    round_ = begin(duels, ties="oat")
    done = round_.label()
    assert {row.chosen for row in round_.preferences() if row.first_wins == 0.5} == {"second"}
    assert "undecided" not in done.counts and done.counts["learnable"] == 8


def test_a_tie_that_was_answered_before_the_oracle_failed_is_undecided_too(begin, duels, scripted_oracle):
    away = {"yes"}

    def fail_at_first(duel):
        if away:
            raise OracleFailed("away", {duel.duel_id: Answer(0.5)})
        return Answer(0.9)

    scripted_oracle(fail_at_first)
    round_ = begin(duels, ties="undecided")
    with pytest.raises(OracleFailed):
        round_.label()
    away.clear()
    round_.label()
    first = round_.preferences()[0]
    assert first.undecided and first.chosen is None


def test_an_experiment_that_is_older_than_the_setting_keeps_oats_rule():
    frozen = ExperimentSettings().model_dump(mode="json")
    del frozen["labeling"]["ties"]
    refuse_changes(frozen, ExperimentSettings(), "old")
    young = ExperimentSettings().model_dump(mode="json")
    with pytest.raises(SettingsChanged, match=r"labeling\.ties was 'undecided' and is now 'oat'"):
        refuse_changes(young, ExperimentSettings.parse({"labeling": {"ties": "oat"}}), "young")
