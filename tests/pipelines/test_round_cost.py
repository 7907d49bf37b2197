import os
from dataclasses import replace

import pytest
from oatflow.components.errors import RefusedInput
from oatflow.components.ledger import layout
from oatflow.components.ledger.done import Done
from oatflow.components.ledger.ledger import Ledger
from oatflow.pipelines.data.round_cost import Cost, cost_table, costs, print_round_cost, round_cost, total, verdict


def mark(room, started, finished, **timings):
    return Done(room, 0, "run-1", 1, {}, (), {}, {}, timings, {}, started, finished)


MARKS = [
    mark("sampling", 102.0, 124.0, startup=14.0, work=8.0, generate=6.0),
    mark("labeling", 125.0, 127.0, startup=1.5, work=0.5, ask=0.2),
    mark("policy", 128.0, 178.0, startup=6.0, work=44.0, load=1.0, reference=8.0, forward_backward=30.0, upload=2.0),
    mark("evaluation", 180.0, 200.0, startup=12.0, work=8.0, generate=7.0, judge=0.5),
]


def test_a_rounds_time_is_split_without_rest():
    parts = costs(MARKS, 100.0, 203.0)
    assert parts == [
        Cost("open", 2.0),
        Cost("sample", 22.0, 6.0, 0.0, 14.0),
        Cost("sample → label", 1.0),
        Cost("label", 2.0, 0.0, 0.0, 1.5),
        Cost("label → train", 1.0),
        Cost("train", 50.0, 0.0, 38.0, 6.0),
        Cost("train → evaluate", 2.0),
        Cost("evaluate", 20.0, 7.0, 0.0, 12.0),
        Cost("close", 3.0),
    ]
    assert total(parts) == Cost("round", 103.0, 13.0, 38.0, 33.5)
    assert (parts[5].overhead, parts[5].other) == (12.0, 6.0)


def test_the_one_figure_is_the_share_that_neither_generates_nor_passes():
    assert verdict(costs(MARKS, 100.0, 203.0), 0) == (
        "50.5% of round 0's 103.0 s is neither generating tokens nor a network's passes."
    )


def test_the_tables_shares_add_up_to_the_whole_rounds():
    head, *lines, whole = cost_table(costs(MARKS, 100.0, 203.0))
    assert head[-1] == "of the round"
    assert sum(float(line[-1].rstrip("%")) for line in lines) == pytest.approx(float(whole[-1].rstrip("%")), abs=0.5)
    assert whole[:4] == ["round", "103.0", "13.0", "38.0"]


def test_a_pause_between_two_runs_is_nobodys_cost():
    resumed = [*MARKS[:2], *(replace(later, run="run-2") for later in MARKS[2:])]
    parts = {part.part: part.wall for part in costs(resumed, 100.0, None)}
    assert parts["label → train"] == 0.0
    assert parts["train → evaluate"] == 2.0
    assert "close" not in parts


def test_steps_that_overlap_leave_no_negative_gap():
    overlapping = [MARKS[0], replace(MARKS[1], started=120.0), *MARKS[2:]]
    assert all(part.wall >= 0 for part in costs(overlapping, 100.0, 203.0))


def finished_round(folder, round_, run="run-1", token=None):
    """Write a round whose documents were written at known times; each round begins 200 s after the one before."""
    ledger, later = Ledger.open(folder.as_uri()), 200.0 * round_
    ledger.write_document(layout.plan_key(round_), {})
    for done in MARKS:
        times = {"started": done.started + later, "finished": done.finished + later}
        shifted = replace(done, round=round_, run=run, token=token or round_ + 1, **times)
        ledger.write_document(layout.done_key(round_, done.step), shifted.to_json())
    ledger.write_document(layout.round_record_key(round_), {})
    for key, written in ((layout.plan_key(round_), 101.5), (layout.round_record_key(round_), 203.0)):
        os.utime(folder / key, (written + later, written + later))
    return ledger


def test_a_round_begins_with_its_plan_or_where_the_run_closed_the_one_before(tmp_path):
    finished_round(tmp_path, 0)
    ledger = finished_round(tmp_path, 1)
    assert round_cost(ledger, 0)[0] == Cost("open", 0.5)
    assert round_cost(ledger, 1)[0] == Cost("open", 302.0 - 203.0)
    assert round_cost(ledger, 1)[-1] == Cost("close", 3.0)


def test_a_round_of_another_run_does_not_count_the_time_between_the_runs(tmp_path):
    finished_round(tmp_path, 0)
    assert round_cost(finished_round(tmp_path, 1, run="run-2"), 1)[0] == Cost("open", 0.5)


def test_when_a_run_took_the_round_over_its_beginning_is_not_known(tmp_path):
    assert round_cost(finished_round(tmp_path, 0, token=2), 0)[0].part == "sample"


def test_the_table_is_printed_with_its_figure(tmp_path, capsys):
    print_round_cost(finished_round(tmp_path, 0), 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["step", "seconds", "generating"]
    assert lines[-1].endswith("is neither generating tokens nor a network's passes.")
    assert len({len(line) for line in lines[:-1]}) == 1


def test_an_unfinished_round_has_no_cost_yet(tmp_path):
    ledger = Ledger.open(tmp_path.as_uri())
    ledger.write_document(layout.done_key(0, "sampling"), MARKS[0].to_json())
    with pytest.raises(RefusedInput, match="round=0: not finished"):
        round_cost(ledger, 0)
