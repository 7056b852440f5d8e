"""`time.txt`: which iterations, and the lines' form (specification, section 7)."""

import re
from datetime import datetime, timedelta

import pytest

from common.errors import UserError
from common.results.times import is_timed, record_time, training_seconds


def test_the_first_the_last_and_every_1000th_iteration_are_timed():
    timed = [i for i in range(2500) if is_timed(i, 2500)]
    assert timed == [0, 999, 1999, 2499]
    assert [i for i in range(1000) if is_timed(i, 1000)] == [0, 999]
    assert is_timed(0, 1)


def test_the_lines(tmp_path):
    path = tmp_path / "time.txt"
    before = datetime.now()
    record_time(path, 0, "starts")
    record_time(path, 399_999, "ends")
    after = datetime.now()
    lines = path.read_text().splitlines(keepends=True)
    moment = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6})\n"
    first = re.fullmatch("iter 0 starts: " + moment, lines[0])
    last = re.fullmatch("iter 399999 ends: " + moment, lines[1])
    times = [datetime.strptime(m[1], "%Y-%m-%d %H:%M:%S.%f") for m in (first, last)]
    assert before <= times[0] <= times[1] <= after
    assert len(lines) == 2


@pytest.mark.parametrize("seconds", [0.25, 90061.5])
def test_training_seconds(tmp_path, seconds):
    start = datetime(2021, 12, 31, 23, 59, 59, 500_000)
    end = start + timedelta(seconds=seconds)
    form = "%Y-%m-%d %H:%M:%S.%f"
    path = tmp_path / "time.txt"
    path.write_text(
        f"iter 0 starts: {start.strftime(form)}\n"
        f"iter 0 ends: {start.strftime(form)}\n"
        f"iter 99 ends: {end.strftime(form)}\n"
    )
    assert training_seconds(path) == seconds


@pytest.mark.parametrize("content", ["", "iter 0 starts", "iter 0 starts: yesterday\n", "\udcff"])
def test_another_file_has_no_training_seconds(tmp_path, content):
    (tmp_path / "time.txt").write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match=r"time\.txt cannot be read"):
        training_seconds(tmp_path / "time.txt")
