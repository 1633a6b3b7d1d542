"""Times as people write them, a column at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.splits.tables import examples

from reglaj.data.splits.times import NOT_A_TIME, parse_times, read_times

MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2068, 1, 1), timezones=st.just(UTC))


def shown(cells: list[str | None]) -> list[str]:
    """As ISO, to the second; NaT for what is no time."""
    return [str(np.datetime64(value, "us").astype("M8[s]")) for value in parse_times(cells).tolist()]


def microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    "cell, moment",
    [
        ("2024-05-31", "2024-05-31T00:00:00"),
        (" 2024-05-31T10:00Z ", "2024-05-31T10:00:00"),
        ("2024-05-31 10:00:00.123456789 +0200", "2024-05-31T08:00:00"),
        ("2024-05-31 10:00:00 UTC", "2024-05-31T10:00:00"),
        ("2024/5/3 7:05", "2024-05-03T07:05:00"),
        ("2024.05.31", "2024-05-31T00:00:00"),
        ("2024-05", "2024-05-01T00:00:00"),
        ("20240531", "2024-05-31T00:00:00"),
        ("20240531T101500Z", "2024-05-31T10:15:00"),
        ("1999", "1999-01-01T00:00:00"),
        ("1700000000", "2023-11-14T22:13:20"),
        ("1700000000.75", "2023-11-14T22:13:20"),
        ("1700000000000", "2023-11-14T22:13:20"),
        ("1700000000000000", "2023-11-14T22:13:20"),
        ("1700000000000000000", "2023-11-14T22:13:20"),
        ("31.5.2024", "2024-05-31T00:00:00"),
        ("5/31/24 4:30 PM", "2024-05-31T16:30:00"),
        ("12/31/2024 12:05 a.m.", "2024-12-31T00:05:00"),
        ("31-12-1970", "1970-12-31T00:00:00"),
        ("31 May 2024", "2024-05-31T00:00:00"),
        ("05-Sept-2024", "2024-09-05T00:00:00"),
        ("May 31, 2024", "2024-05-31T00:00:00"),
        ("June 3rd, 2021 at 5:00 pm", "2021-06-03T17:00:00"),
        ("Fri, 31 May 2024 10:00:00 +0200", "2024-05-31T08:00:00"),
        ("Wed Aug 27 13:08:45 +0000 2008", "2008-08-27T13:08:45"),
    ],
)
def test_forms(cell: str, moment: str) -> None:
    assert shown([cell]) == [moment]


@pytest.mark.parametrize(
    "cell",
    [None, "", "  ", "yesterday", "2024-13-01", "2024-02-30", "31/31/2024", "12", "-5", "99999999", "1.2.3", "0000",
     "hello 3 2020", "mai 3 2020", "2024-05-31 25:00", "2024-05-31 10:75", "12:30", "9" * 25, "٣١/٥/٢٠٢٤ x"],
)  # fmt: skip
def test_what_is_no_time(cell: str | None) -> None:
    assert parse_times([cell]).tolist() == [NOT_A_TIME]


def test_one_order_for_the_whole_column() -> None:
    assert shown(["03/04/2024", "31/01/2024"]) == ["2024-04-03T00:00:00", "2024-01-31T00:00:00"]
    assert shown(["03/04/2024", "01/31/2024"]) == ["2024-03-04T00:00:00", "2024-01-31T00:00:00"]
    assert read_times(["03/04/2024", "31/01/2024"]).form == "dates with the day first"
    # What fits the other order alone is no date of this column.
    assert shown(["31/01/2024", "30/01/2024", "01/31/2024"])[2] == "NaT"


def test_what_could_be_either_way_is_said() -> None:
    both = read_times(["03/04/2024", "05/06/2024"])
    assert both.form == "dates that could be either way, read day first"
    assert shown(["03/04/2024"]) == ["2024-04-03T00:00:00"]
    # The first of every month: the number that stays 1 is the day.
    assert shown(["03/01/2024", "05/01/2024"]) == ["2024-03-01T00:00:00", "2024-05-01T00:00:00"]


def test_a_column_of_numbers_has_one_unit() -> None:
    cells = ["1700000000", "1600000000", "86400", "20240531"]
    assert read_times(cells).form == "seconds since 1970"
    assert shown(cells)[2] == "1970-01-02T00:00:00"
    assert shown(["5", "7", "1700000000"]) == ["NaT"] * 3
    assert shown(["1999", "20"]) == ["NaT"] * 2


def test_a_date_is_a_date_beside_others() -> None:
    cells = ["2024-05-31", "1 June 2024", None, "n/a", "2024-06-02T10:00:00+02:00"]
    assert shown(cells) == ["2024-05-31T00:00:00", "2024-06-01T00:00:00", "NaT", "NaT", "2024-06-02T08:00:00"]


@given(moments=st.lists(MOMENTS, min_size=1, max_size=20))
@examples(100)
def test_what_is_written_is_read_again(moments: list[datetime]) -> None:
    whole = [microseconds(moment) for moment in moments]
    assert parse_times([moment.isoformat() for moment in moments]).tolist() == whole
    seconds = [value - value % 1_000_000 for value in whole]
    for form in ("%d %B %Y %H:%M:%S", "%b %d, %Y, %I:%M:%S %p", "%a, %d %b %Y %H:%M:%S +0000", "%Y/%m/%d %H:%M:%S"):
        assert parse_times([moment.strftime(form) for moment in moments]).tolist() == seconds


@given(moments=st.lists(MOMENTS, min_size=1, max_size=20), is_day_first=st.booleans())
@examples(100)
def test_numeric_dates_are_read_the_way_that_one_of_them_must_be(moments: list[datetime], is_day_first: bool) -> None:
    moments = [*moments, datetime(2024, 5, 31, tzinfo=UTC)]
    form = "%d/%m/%Y" if is_day_first else "%m/%d/%Y"
    days = [microseconds(moment.replace(hour=0, minute=0, second=0, microsecond=0)) for moment in moments]
    assert parse_times([moment.strftime(form) for moment in moments]).tolist() == days


@given(cells=st.lists(st.none() | st.text(max_size=12) | st.text("0123456789/-.: T", max_size=20), max_size=10))
@examples(200)
def test_nothing_is_stumbled_over(cells: list[str | None]) -> None:
    values = parse_times(cells)
    assert values.shape == (len(cells),)
    assert values.dtype == np.int64
