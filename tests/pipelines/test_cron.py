"""Six fields, seconds first: checked, said in words, and turned into times."""

from datetime import UTC, datetime

import pytest
from oatflow.components.errors import RefusedInput
from oatflow.pipelines.cluster.cron import check_cron, in_words, next_times

FRIDAY = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("0 0 2 * * *", "at 02:00, every day (UTC)"),
        ("30 15 14 * * *", "at 14:15:30, every day (UTC)"),
        ("0 0 9 ? * 1-5", "at 09:00, Monday through Friday (UTC)"),
        ("0 0 2 * * MON", "at 02:00, only on Monday (UTC)"),
        ("0 0 2 1 * ?", "at 02:00, on day 1 of the month (UTC)"),
        ("0 0 */6 * * *", "every 6 hours (UTC)"),
    ],
)
def test_a_schedule_is_explained_in_words(cron, words):
    assert in_words(check_cron(cron)) == words


def test_five_fields_are_refused_with_the_six_that_were_meant():
    with pytest.raises(
        RefusedInput, match=r"cron='0 2 \* \* \*': .* six fields, seconds first; write '0 0 2 \* \* \*'"
    ):
        check_cron("0 2 * * *")


@pytest.mark.parametrize("cron", ["", "* * *", "0 0 2 * * * 2026"])
def test_any_other_number_of_fields_is_refused(cron):
    with pytest.raises(RefusedInput, match="write six: second minute hour day month weekday"):
        check_cron(cron)


@pytest.mark.parametrize(
    ("cron", "named"),
    [
        ("60 0 2 * * *", "second '60': expected .*0 to 59"),
        ("0 0 24 * * *", "hour '24': expected .*0 to 23"),
        ("0 0 2 0 * *", "day of the month '0': expected .*1 to 31"),
        ("0 0 2 * Movember *", "month 'Movember': expected .*jan to dec"),
        ("0 0 2 * * 7", "day of the week '7': expected .*0 to 6 or sun to sat"),
        ("0 0 2 L * *", "day of the month 'L'"),
        ("0 0 5-3 * * *", "hour '5-3'"),
        ("0 */0 * * * *", "minute '\\*/0'"),
        ("0 0 2,,3 * * *", "hour ''"),
        ("0 0 -1 * * *", "hour '-1'"),
    ],
)
def test_what_a_field_cannot_hold_is_named(cron, named):
    with pytest.raises(RefusedInput, match=named):
        check_cron(cron)


def test_a_day_of_the_month_and_of_the_week_at_once_are_refused_as_either_would_do():
    with pytest.raises(RefusedInput, match="both a day of the month and a day of the week"):
        check_cron("0 0 2 13 * FRI")


def test_a_day_that_never_comes_is_refused():
    with pytest.raises(RefusedInput, match="no such day in the calendar"):
        check_cron("0 0 2 31 FEB *")


def test_spaces_do_not_matter():
    assert check_cron("  0  0 2 * *   * ") == "0 0 2 * * *"


@pytest.mark.parametrize(
    ("cron", "times"),
    [
        ("0 0 2 * * *", ["01-03 02:00:00", "01-04 02:00:00", "01-05 02:00:00"]),
        ("10 30 12 * * *", ["01-02 12:30:10", "01-03 12:30:10", "01-04 12:30:10"]),
        ("0 0 2 ? * SUN", ["01-04 02:00:00", "01-11 02:00:00", "01-18 02:00:00"]),
        ("0 5/20 * * * *", ["01-02 12:05:00", "01-02 12:25:00", "01-02 12:45:00"]),
    ],
)
def test_the_next_times_count_seconds_first(cron, times):
    assert [f"{time:%m-%d %H:%M:%S}" for time in next_times(check_cron(cron), FRIDAY)] == times
