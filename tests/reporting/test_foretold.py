from dataclasses import replace

from oatflow.components.reporting.foretold import read_foretold, sort_predictions
from oatflow.components.statistics.intervals import wilson_interval


def test_a_foretelling_of_20_percent_is_one_of_80_for_the_other(made_duel):
    won, lost = made_duel(predicted=0.85), made_duel(predicted=0.15, first_wins=0.9)
    (one,) = sort_predictions([won, lost])
    assert (one.promised, one.kept, one.duels) == (0.85, 0.5, 2)
    assert (one.low, one.high) == wilson_interval(0.5, 2)


def test_duels_are_sorted_by_how_sure_the_ensemble_was(made_duel):
    found = sort_predictions([made_duel(predicted=chance) for chance in (0.5, 0.55, 0.61, 0.99, 1.0)])
    assert [(round(one.promised, 3), one.duels) for one in found] == [(0.525, 2), (0.61, 1), (0.995, 2)]
    assert all(one.kept == 1 for one in found)


def test_labels_of_members_and_answers_without_a_label_prove_nothing(made_duel):
    told = made_duel(predicted=0.7)
    silent = replace(told, preference=replace(told.preference, chosen=None, first_wins=None))
    by_member = made_duel(predicted=0.9, synthetic=True, member=7, member_first_wins=0.9)
    assert sort_predictions([silent, by_member, made_duel()]) == []


def test_an_experiment_without_an_ensemble_foretold_nothing(ledger):
    assert read_foretold(ledger, [0, 1]) is None and read_foretold(ledger, []) is None
