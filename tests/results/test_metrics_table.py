"""`metrics.csv` as people read it, and files that are not one (specification, section 6)."""

import csv
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.results import metrics_table
from common.results.metrics_table import MetricsTable, read_metrics, values_of

COLUMNS = ["inception_score_mean", "inception_score_std", "fid"]
HEADER = "global_id,inception_score_mean,inception_score_std,fid\r\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def row(mean, std=0.5, fid=1.0):
    return dict(zip(COLUMNS, (mean, std, fid), strict=True))


def refused(path, *words, columns=COLUMNS):
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(UserError) as caught:
        MetricsTable(path, columns)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert before is None or path.read_bytes() == before


def test_the_file_to_the_last_byte(path):
    table = MetricsTable(path, COLUMNS)
    assert not path.exists()
    # The metrics may come in any order and as NumPy's numbers.
    table.add(9999, {"fid": np.float64(1 / 3), **row(np.float32(2.0), 1e-13, 1 / 3)})
    table.add(-1, row(1.0, 0.0, 123456.5))
    assert path.read_bytes().decode() == (
        HEADER + "-1,1.000000000000,0.000000000000,123456.500000000000\r\n"
        "9999,2.000000000000,0.000000000000,0.333333333333\r\n"
    )


def test_rows_are_sorted_by_number_and_one_per_id(path):
    table = MetricsTable(path, COLUMNS)
    for global_id, mean in [(19999, 1), (9999, 2), (-1, 3), (100_000, 4), (9999, 5)]:
        table.add(global_id, row(mean))
    assert table.ids == [-1, 9999, 19999, 100_000]
    assert [table.row(i)["inception_score_mean"] for i in table.ids] == [3, 5, 1, 4]
    assert MetricsTable(path, COLUMNS).ids == table.ids


def test_people_read_it_by_name_with_csv_and_numpy(path):
    table = MetricsTable(path, COLUMNS)
    table.add(-1, row(1.25, 0.5, 300.0))
    table.add(9999, row(6.5, 0.25, 30.125))
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["global_id"], float(row["fid"])) for row in rows] == [
        ("-1", 300.0),
        ("9999", 30.125),
    ]
    data = np.genfromtxt(path, delimiter=",", names=True)
    assert data.dtype.names == ("global_id", *COLUMNS)
    assert data["global_id"].tolist() == [-1, 9999]
    assert data["inception_score_mean"].tolist() == [1.25, 6.5]


def test_a_table_that_is_read_back_goes_on(path):
    MetricsTable(path, COLUMNS).add(9999, row(1 / 3))
    table = MetricsTable(path, COLUMNS)
    assert table.row(9999) == {**row(1 / 3), "inception_score_mean": 0.333333333333}
    before = path.read_text()
    table.add(19999, row(2.0))
    assert path.read_text().startswith(before)


def test_drop_after_keeps_the_row_of_the_id_itself(path):
    table = MetricsTable(path, COLUMNS)
    for global_id in (-1, 9, 19, 29):
        table.add(global_id, row(global_id))
    table.drop_after(19)
    assert table.ids == MetricsTable(path, COLUMNS).ids == [-1, 9, 19]
    table.drop_after(-1)
    assert MetricsTable(path, COLUMNS).ids == [-1]
    table.drop_after(-2)
    assert path.read_bytes() == HEADER.encode()


def test_drop_after_makes_no_file(path):
    MetricsTable(path, COLUMNS).drop_after(5)
    assert not path.exists()


def test_the_columns_may_be_any(path):
    MetricsTable(path, ["digits_fid"]).add(5, {"digits_fid": 2.0})
    assert path.read_text().splitlines() == ["global_id,digits_fid", "5,2.000000000000"]
    MetricsTable(path, ["digits_fid"])


@pytest.mark.parametrize(
    "columns", [COLUMNS[:2], COLUMNS[::-1], ["digits_" + name for name in COLUMNS], [*COLUMNS, "x"]]
)
@pytest.mark.parametrize("rows", [0, 1])
def test_other_columns_are_refused(path, columns, rows):
    table = MetricsTable(path, COLUMNS)
    table.add(5, row(1.0))
    if not rows:
        table.drop_after(-1)
    refused(path, "global_id, inception_score_mean", ", ".join(columns), columns=columns)


HOSTILE = [
    b"",
    b"\r\n",
    b"\0" * 50,
    b"\xff\xfe",
    HEADER.encode("utf-16"),
    *(
        HEADER.encode() + line
        for line in (
            b"1,2,3",
            b"1,2,3,4,5",
            b"\r\n1,2,3,4",
            b"1.0,2,3,4",
            b",2,3,4",
            b"1,2,3,",
            b"1,2,3,x",
            b"1,2,\x00,4",
            b"1,2,\xff,4",
            b'1,2,3,"4',
            b"1,2,3," + b"4" * 200_000,
            b"9" * 5000 + b",2,3,4",
            b"<html>",
        )
    ),
]


@pytest.mark.parametrize("content", HOSTILE, ids=lambda content: repr(content[-16:]))
def test_what_is_not_such_a_table_is_refused(path, content):
    path.write_bytes(content)
    refused(path)
    with pytest.raises(UserError, match="is not a table of metrics"):
        read_metrics(path)


def test_a_folder_instead_of_a_table_is_refused(path):
    path.mkdir()
    refused(path, "not a table")


@pytest.mark.timeout(10)
def test_a_pipe_instead_of_a_table_is_refused(path):
    """Without waiting for whoever might write into it."""
    os.mkfifo(path)
    with pytest.raises(UserError, match="not a regular file"):
        read_metrics(path)


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.json"])
def test_files_beyond_all_measure_are_refused(path, monkeypatch, name):
    MetricsTable(path, COLUMNS).add(9, row(1.0), {})
    limit = {"metrics.csv": "MAX_TABLE_BYTES", "metrics.json": "MAX_RECORDS_BYTES"}[name]
    size = path.with_name(name).stat().st_size
    monkeypatch.setattr(metrics_table, limit, size)
    MetricsTable(path, COLUMNS)
    monkeypatch.setattr(metrics_table, limit, size - 1)
    with pytest.raises(UserError, match="larger than"):
        MetricsTable(path, COLUMNS)


# Reading without knowing the columns


def test_rows_are_read_whatever_the_columns(path):
    assert read_metrics(path) == []
    table = MetricsTable(path, ["digits_fid", "diversity"])
    table.add(9, {"digits_fid": 2.5, "diversity": float("nan")})
    table.add(-1, {"digits_fid": 1 / 3, "diversity": 4.0})
    first, second = read_metrics(path)
    assert (first.global_id, first.values) == (
        -1, {"digits_fid": 0.333333333333, "diversity": 4.0}
    )  # fmt: skip
    assert (second.global_id, second.values["digits_fid"]) == (9, 2.5)
    assert np.isnan(second.values["diversity"])


@pytest.mark.parametrize("header", ["fid,global_id", "iteration,fid", "global_id,fid,fid"])
def test_other_headers_are_refused(path, header):
    path.write_text(f"{header}\n" + ",".join("1" * len(header.split(","))) + "\n")
    with pytest.raises(UserError, match="not a table of metrics"):
        read_metrics(path)


def test_a_column_is_found_behind_a_networks_prefix(path):
    path.write_text("global_id,my_fid,digits_inception_score_mean,fid\n1,2,3,4\n5,6,7,8\n")
    rows = read_metrics(path)
    assert values_of(rows, "fid") == [4, 8]
    assert values_of(rows, "inception_score_mean") == [3, 7]
    assert values_of(rows, "score_std") == []
    assert values_of([], "fid") == []
    path.write_text("global_id,digits_fid,horrid\n1,2,3\n")
    assert values_of(read_metrics(path), "fid") == [2]
    assert values_of(read_metrics(path), "rid") == []


@given(
    position=st.integers(0, 200),
    junk=st.binary(max_size=4) | st.sampled_from([b",", b"\n", b'"', b"-", b"\0"]),
)
@settings(max_examples=200, deadline=None)
def test_a_fuzzed_table_is_read_or_refused(tmp_path_factory, position, junk):
    path = tmp_path_factory.getbasetemp() / "fuzzed.csv"
    content = bytearray(HEADER.encode() + b"-1,1.0,2.0,3.0\r\n9,1.0,2.0,3.0\r\n")
    content[position % len(content) : position % len(content) + len(junk)] = junk
    path.write_bytes(content)
    try:
        table = MetricsTable(path, COLUMNS)
    except UserError:
        return
    for global_id in table.ids:
        assert list(table.row(global_id)) == COLUMNS
    table.add(100, row(1.0))


# metrics.json


def records_of(path):
    return json.loads(path.with_suffix(".json").read_text())


def test_records_follow_the_rows(path):
    table = MetricsTable(path, COLUMNS)
    assert not path.with_suffix(".json").exists()
    for global_id in (19, -1, 9):
        table.add(global_id, row(global_id), {"seconds": global_id})
    assert list(records_of(path).items()) == [
        ("-1", {"seconds": -1}), ("9", {"seconds": 9}), ("19", {"seconds": 19})
    ]  # fmt: skip
    MetricsTable(path, COLUMNS).drop_after(9)
    assert list(records_of(path)) == ["-1", "9"]
    again = MetricsTable(path, COLUMNS)
    again.add(9, row(2.0), {"seconds": 5})
    assert records_of(path) == {"-1": {"seconds": -1}, "9": {"seconds": 5}}


def test_records_without_a_row_are_dropped(path):
    """As after a crash between the two files."""
    table = MetricsTable(path, COLUMNS)
    for global_id in (9, 19):
        table.add(global_id, row(1.0), {"seconds": 1})
    path.write_text(HEADER + "9,1,1,1\r\n", newline="")
    MetricsTable(path, COLUMNS).drop_after(19)
    assert list(records_of(path)) == ["9"]


def test_rows_may_be_older_than_records(path):
    path.write_text(HEADER + "9,1,1,1\r\n", newline="")
    table = MetricsTable(path, COLUMNS)
    table.add(19, row(1.0), {"seconds": 1})
    assert list(records_of(path)) == ["19"]
    assert MetricsTable(path, COLUMNS).ids == [9, 19]


@pytest.mark.parametrize("text", ["", "[]", '{"x": {}}', '{"1": 2}', "\0", "[" * 100_000, "null"])
def test_records_that_are_none_are_refused(path, text):
    MetricsTable(path, COLUMNS).add(9, row(1.0), {})
    path.with_suffix(".json").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.json cannot be read.*move it away"):
        MetricsTable(path, COLUMNS)
