from dataclasses import replace

from oatflow.components.ledger import layout
from oatflow.components.records.records import Preference
from oatflow.components.records.sealed import digest_of, seal_document
from oatflow.components.records.table import from_parquet, to_parquet
from oatflow.components.reporting.curves import (
    Explored,
    measure_round,
    read_rounds,
    sample_duels,
    sample_verdicts,
)
from oatflow.components.reporting.report import read_report
from oatflow.components.statistics.intervals import wilson_interval


def test_a_row_holds_what_the_marks_of_its_round_say(ledger):
    row = read_rounds(ledger)[0]
    assert (row.round, row.prompts, row.duels, row.clashes, row.queries, row.pairs) == (0, 3, 3, 1, 2, 2)
    assert (row.loss, row.reward_margin, row.accuracy, row.generated_tokens) == (0.6, 0.2, 1.0, 60)
    assert (row.win_rate, row.low, row.high, row.mean_probability, row.held_out) == (0.75, 0.5, 1.0, 0.7, 4)
    assert row.seconds == dict.fromkeys(("sample", "label", "train", "evaluate"), (2.0, 3.0))
    assert row.finished == 1035.0


def test_queries_add_up_over_rounds(ledger):
    assert [row.queries_total for row in read_rounds(ledger)] == [2, 5]


def test_what_was_not_measured_is_none(ledger):
    first, second = read_rounds(ledger)
    assert first.mean_reward is None
    assert (second.win_rate, second.low, second.high, second.held_out) == (None, None, None, None)


def test_offline_labels_add_up_and_no_query_is_reported(offline_ledger):
    rows = read_rounds(offline_ledger)
    assert [(row.labels, row.labels_total, row.learned_from) for row in rows] == [(3, 3, 3), (2, 5, 5)]
    assert [(row.queries, row.queries_total, row.win_rate) for row in rows] == [(0, 0, None)] * 2
    assert [(row.held_out_accuracy, row.held_out_margin, row.held_out_pairs) for row in rows] == [(0.75, 0.1, 4)] * 2
    assert measure_round(offline_ledger, 1) | {"labels_total": 5, "held_out_accuracy": 0.75} == measure_round(
        offline_ledger, 1
    )


def test_online_rows_have_no_labels_of_a_set_and_run_over_queries(ledger):
    row = read_rounds(ledger)[1]
    assert (row.labels, row.labels_total, row.held_out_accuracy, row.held_out_interval) == (None,) * 4
    assert row.learned_from == row.queries_total == 5


def test_rows_carry_the_digests_of_policy_and_round(ledger):
    rows = read_rounds(ledger)
    assert rows[1].digest == ledger.read_head().digest
    assert rows[0].digest == ledger.find_record(1).parent
    assert [row.policy for row in rows] == [ledger.policy_digest(0), ledger.policy_digest(1)]


def test_regret_adds_up_over_the_duels_of_all_rounds(explored_ledger):
    rows = [row.explored for row in read_rounds(explored_ledger)]
    assert [row.duel_regret for row in rows] == [0.5, 0.25]
    assert [row.regret_total for row in rows] == [1.5, 2.0]
    assert [row.synthetic for row in rows] == [0, 1]
    assert rows[0].foresight_interval == wilson_interval(0.75, 4) and rows[0].online_interval is None


def test_of_rounds_without_known_rewards_no_regret_is_told(ledger):
    assert [row.explored for row in read_rounds(ledger)] == [Explored(), Explored()]


def test_metrics_of_a_round_hold_its_exploration(explored_ledger):
    metrics = measure_round(explored_ledger, 1)
    assert (metrics["duel_regret"], metrics["rm_accuracy"], metrics["synthetic"]) == (0.25, 0.75, 1)
    assert metrics["regret_total"] == 2.0 and "explored" not in metrics


def test_an_open_round_is_no_row(ledger):
    assert [row.round for row in read_rounds(ledger)] == [0, 1]


def test_metrics_of_a_round_are_its_rows_numbers_and_nothing_else(ledger):
    metrics = measure_round(ledger, 1)
    assert metrics["queries_total"] == 5
    assert metrics["seconds_train"] == 5.0
    assert "win_rate" not in metrics
    assert all(isinstance(value, int | float) for value in metrics.values())


def test_sampled_duels_were_answered_and_come_with_their_own_answer(ledger):
    samples = sample_duels(ledger, 0, 10)
    assert {sample.duel.duel_id for sample in samples} == {"0-0", "0-1"}
    assert all(sample.duel.duel_id == sample.preference.duel_id for sample in samples)


def test_sampling_again_gives_the_same(ledger):
    assert sample_duels(ledger, 1, 2) == sample_duels(ledger, 1, 2) == sample_duels(ledger, 1, 3)[:2]
    assert sample_verdicts(ledger, 0, 2) == sample_verdicts(ledger, 0, 4)[:2]


def test_a_report_shows_the_last_duels_and_the_last_verdicts(ledger):
    report = read_report(ledger)
    assert report.name == "first-light"
    assert {sample.duel.duel_id for sample in report.duels} == {"1-0", "1-1", "1-2"}
    assert report.evaluated.round == 0
    assert len(report.verdicts) == 4
    assert (report.rounds, report.budget, report.oracle) == (3, 9, "simulated/vader-3.3.2/T=0.1")


def test_an_answer_that_nobody_can_read_is_as_likely_to_be_shown_as_any_other(ledger, close_rounds):
    name = "preferences-0000.parquet"
    rows = from_parquet(ledger.read_output("labeling", name, 0), Preference, name)
    mute = replace(rows[0], first_wins=None, chosen=None, unreadable=True)
    unasked = replace(rows[1], first_wins=None, chosen=None, oracle="")
    data = to_parquet([mute, unasked], Preference)
    ledger.store.put(layout.output_key(0, "labeling", name), data)
    done = ledger.find_done(0, "labeling")
    outputs = tuple(
        replace(placed, sha256=digest_of(data), size=len(data)) if placed.name == name else placed
        for placed in done.outputs
    )
    ledger.store.put(layout.done_key(0, "labeling"), seal_document(replace(done, outputs=outputs).to_json()))
    shown = sample_duels(close_rounds(ledger), 0, 10)
    assert [sample.preference.unreadable for sample in shown] == [True]


def test_a_report_knows_what_the_verdicts_say_and_rounds_without_verdicts_say_nothing(ledger):
    first, second = read_report(ledger).rows
    assert (first.answers.prompts, first.answers.longer.value, second.answers) == (4, 1.0, None)
    assert read_rounds(ledger)[0].answers is None
