"""The table of metrics says what is logged, all of it and nothing else."""

import re
from pathlib import Path
from types import UnionType
from typing import get_args, get_type_hints

from oatflow.components.ledger.layout import STEPS
from oatflow.components.reporting import metrics
from oatflow.components.reporting.curves import Explored, RoundRow, metrics_of
from oatflow.components.reporting.metrics import LIVE, METRICS, SOURCES, TABLE, metrics_page, read_numbers
from oatflow.components.reporting.queries import Queried

PAGE = Path(__file__).parents[2] / "components/reporting/METRICS.md"


def full(kind):
    """A record whose every number is measured."""
    return kind(**{name: 1 for name, hint in get_type_hints(kind).items() if is_number(hint)})


def is_number(hint):
    return bool({int, float}.intersection(get_args(hint) if isinstance(hint, UnionType) else (hint,)))


def test_every_metric_that_can_be_logged_is_in_the_table_and_nothing_else(made_row, made_answers):
    numbers = {name: 1 for name, hint in get_type_hints(RoundRow).items() if is_number(hint)}
    row = made_row(**{**numbers, "seconds": {step: (1.0, 1.0) for step in STEPS.values()},
                      "explored": full(Explored), "queried": full(Queried),
                      "answers": made_answers()})  # fmt: skip
    assert {metric.name for metric in METRICS} == set(metrics_of(row))


def test_no_name_is_there_twice_and_each_has_a_meaning():
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(metric.meaning for metric in METRICS)


def test_a_share_has_its_interval_or_its_number_beside_it():
    names = {metric.name for metric in METRICS}
    assert {"low", "high", "held_out", "online_low", "online_high", "online_prompts", "held_out_pairs"} <= names


def test_what_is_read_and_shown_is_a_metric_that_is_declared():
    names = {metric.name for metric in METRICS}
    recorded = [name for step in SOURCES.values() for name in step]
    assert len(recorded) == len(set(recorded)) and names.issuperset(recorded)
    assert set(TABLE) - names == {"win_interval", "wall_seconds"} and names.issuperset(LIVE)


def test_a_recorded_metric_is_read_from_its_step_alone():
    marks = {step: {} for step in SOURCES} | {"evaluation": {"prompts": 4, "loss": 9.0}, "policy": {"loss": 0.5}}
    found = read_numbers(marks)
    assert (found["held_out"], found["loss"], found["prompts"]) == (4, 0.5, None)


def test_the_page_is_the_table():
    write = f"from {metrics.__name__} import metrics_page; print(metrics_page(), end='')"
    assert PAGE.read_text(encoding="utf-8") == metrics_page(), f'python -c "{write}" > {PAGE} writes it anew'


def test_a_cell_holds_no_bar_that_would_end_it():
    rows = [line for line in metrics_page().splitlines() if line.startswith("| `")]
    assert len(rows) == len(METRICS)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
