"""What the user sees: the live view, plain lines, the table."""

import errno
import io
import json
import logging
import os
import pty
import re
import subprocess
import sys

import pytest

from common.configuration.sweep import expand
from common.results.progress import Progress, ProgressFile, read_progress
from common.results.run_folder import RunFolder
from common.sweeps.status import (
    JobStatus,
    describe_counts,
    format_seconds,
    last_fid,
    print_table,
    read_status,
    short_names,
)
from common.sweeps.view import LiveView, PlainView, describe_progress
from tests.configuration.variants import NO_GAMMA, config_of


class Clock:
    """Seconds that pass when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


# progress.json


def test_the_rate_and_the_time_left_are_of_the_lately_done_iterations(tmp_path, clock):
    path = tmp_path / "progress.json"
    file = ProgressFile(path, 1000, 100, clock)
    assert read_progress(path) == Progress(100, 1000, None)
    clock.now += 60
    file.update(101)  # compiled
    assert read_progress(path) == Progress(101, 1000, None)
    clock.now += 2
    file.update(141)
    assert read_progress(path) == Progress(141, 1000, 20.0)
    assert read_progress(path).seconds_left == pytest.approx(859 / 20)
    clock.now += 1
    file.update(151)  # 10 a second, of which a fifth counts
    assert read_progress(path).rate == pytest.approx(0.8 * 20 + 0.2 * 10)


def test_progress_is_written_once_a_second_and_at_the_end(tmp_path, clock):
    path = tmp_path / "progress.json"
    file = ProgressFile(path, 10, 0, clock)
    for done in range(1, 10):
        clock.now += 0.05
        file.update(done)
    assert read_progress(path).iteration == 1
    file.update(10)
    assert read_progress(path).iteration == 10


def test_progress_that_cannot_be_written_is_a_warning_once(tmp_path, clock, caplog):
    file = ProgressFile(tmp_path / "nowhere" / "progress.json", 10, 0, clock)
    clock.now += 5
    file.update(3)
    assert len(caplog.messages) == 1
    assert os.strerror(errno.ENOENT) in caplog.messages[0]


GOOD = {"iteration": 1, "iterations": 2, "rate": 3.5}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[1, 2, 3]",
        b"{}",
        *(
            json.dumps({**GOOD, **change}).encode()
            for change in (
                {"iteration": -1},
                {"iteration": "1"},
                {"iterations": 1.5},
                {"iteration": True},
                {"rate": "fast"},
                {"rate": -1},
                {"rate": float("nan")},
                {"rate": float("inf")},
            )
        ),
    ],
)
def test_progress_that_makes_no_sense_is_none(tmp_path, content):
    path = tmp_path / "progress.json"
    path.write_bytes(json.dumps(GOOD).encode())
    assert read_progress(path) == Progress(1, 2, 3.5)
    path.write_bytes(content)
    assert read_progress(path) is None


# Figures


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("global_id,inception_score_mean,fid\n1,2.0,3.5\n2,2.1,4.25\n", 4.25),
        ("global_id,digits_fid\n1,7.5\n", 7.5),
        ("global_id,inception_score_mean\n1,2\n", None),
        ("global_id,fid\n", None),
        ("", None),
        ("global_id,fid\n1\n", None),
        ("\0", None),
    ],
)
def test_the_last_fid_is_that_of_the_last_row(tmp_path, table, value):
    path = tmp_path / "metrics.csv"
    assert last_fid(path) is None
    path.write_text(table)
    assert last_fid(path) == value


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (360000, "100:00:00")],
)
def test_seconds_are_shown_as_hours_minutes_and_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_jobs_are_named_by_what_differs():
    jobs = expand(NO_GAMMA, config_of({"run": [0, 1], "scale": [1.0, 1.2]})).jobs
    assert list(short_names(jobs).values()) == [
        "run-0,scale-1.0",
        "run-0,scale-1.2",
        "run-1,scale-1.0",
        "run-1,scale-1.2",
    ]
    assert short_names(jobs[:1]) == {jobs[0].folder: jobs[0].folder}


def test_counts_are_in_a_fixed_order_and_none_is_left_out():
    states = ["queued", "done", "done", "elsewhere", "failed"]
    assert describe_counts(states) == "5 jobs: 2 done, 1 failed, 1 queued, 1 elsewhere"
    assert describe_counts(["running"]) == "1 job: 1 running"


# The table


def test_a_damaged_folder_does_not_keep_the_others_from_the_table(tmp_path):
    folder = RunFolder(tmp_path / "run-0,")
    folder.path.mkdir()
    folder.record_path.write_text("{")
    stream = io.StringIO()
    print_table([read_status("run-0,", folder), JobStatus("run-1,", "queued")], stream)
    lines = stream.getvalue().splitlines()
    assert lines[1].split()[0] == "unusable"
    assert "cannot be read" in lines[3]
    assert lines[-1] == "2 jobs: 1 queued, 1 unusable"


def test_the_table_shows_what_is_known_of_a_job():
    stream = io.StringIO()
    progress = Progress(1200, 400_000, 10.0)
    running = JobStatus("run-0,", "running", progress, 23.456, "host:gpu0", None, None, 2)
    failed = JobStatus("run-1,", "failed", None, None, "host:gpu1", -9, "killed by SIGKILL", 1)
    print_table([running, failed], stream)
    assert [line.split() for line in stream.getvalue().splitlines()] == [
        ["state", "iteration", "left", "FID", "unmeasured", "exit", "tries", "where", "job"],
        ["running", "1,200/400,000", "11:04:40", "23.46", "-", "-", "2", "host:gpu0", "run-0,"],
        ["failed", "-", "-", "-", "-", "-9", "1", "host:gpu1", "run-1,"],
        ["run-1,:", "killed", "by", "SIGKILL"],
        ["2", "jobs:", "1", "running,", "1", "failed"],
    ]


def test_metrics_that_failed_are_counted(tmp_path):
    (job,) = expand(NO_GAMMA, config_of()).jobs
    folder = RunFolder(tmp_path / job.folder)
    with folder.lock():
        folder.start(job.settings, {}, {})
        folder.note_metrics(missing=[99, 199])
        folder.finish()
    stream = io.StringIO()
    print_table([read_status("run-0,", folder), JobStatus("run-1,", "done")], stream)
    lines = stream.getvalue().splitlines()
    assert [line.split()[4] for line in lines[:3]] == ["unmeasured", "2", "-"]
    assert lines[3].startswith("2 row(s) of metrics are missing")
    assert lines[-1] == "2 jobs: 2 done"


# The views


@pytest.fixture
def running(tmp_path):
    folder = RunFolder(tmp_path / "run-0,")
    folder.path.mkdir()
    folder.progress_path.write_text('{"iteration": 1200, "iterations": 400000, "rate": 10.5}')
    folder.metrics_path.write_text("global_id,fid\n1,23.456\n")
    return {"gpu0": folder}


STATES = {"run-0,": "running", "run-1,": "queued"}
LINE = "1,200/400,000 (0 %)  10.5 it/s  10:33:01 left  FID 23.46"


def test_a_running_job_is_described(running, tmp_path):
    assert describe_progress(running["gpu0"]) == LINE
    assert describe_progress(RunFolder(tmp_path / "nowhere")) == "preparing"


def test_without_a_terminal_events_are_lines_and_progress_one_a_minute(running, clock):
    stream = io.StringIO()
    view = PlainView(stream, {"run-0,": "run-0"}, clock)
    view.event("gpu0 receives task run-0,", logging.INFO)
    for _ in range(100):
        view.update(STATES, running)
        clock.now += 1
    assert stream.getvalue().splitlines() == [
        "gpu0 receives task run-0,",
        "2 jobs: 1 running, 1 queued",
        f"  gpu0  {LINE}  run-0",
    ]


def test_the_live_view_replaces_itself_and_failures_stay_above_it(running, clock):
    stream = io.StringIO()
    view = LiveView(stream, {"run-0,": "run-0"}, clock)
    view.event("gpu0 receives task run-0,", logging.INFO)
    for _ in range(2):
        clock.now += 1
        view.update(STATES, running)
    view.event("gpu1 fails task run-2,: oops", logging.ERROR)
    clock.now += 1
    view.update(STATES, running)
    view.close()
    block = f"2 jobs: 1 running, 1 queued\n  gpu0  {LINE}  run-0"[: 27 + 1 + 79]
    up = "\x1b[2F\x1b[J"
    expected = f"{block}\n{up}{block}\n{up}gpu1 fails task run-2,: oops\n{block}\n{up}"
    assert stream.getvalue() == expected


def test_the_live_view_fits_the_terminal(running, clock, monkeypatch):
    monkeypatch.setenv("LINES", "4")
    monkeypatch.setenv("COLUMNS", "30")
    stream = io.StringIO()
    view = LiveView(stream, {}, clock)
    clock.now += 1
    view.update(STATES, {f"gpu{n}": running["gpu0"] for n in range(9)})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[-1] == "  and 8 more"
    assert max(map(len, lines)) < 30


def test_on_a_terminal_a_sweep_shows_one_live_view(tmp_path):
    """With a real pseudo-terminal, the table going to a pipe."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tests.sweeps.light_main", str(tmp_path), "2"]
    environment = {**os.environ, "LIGHT_SECONDS": "0.1", "COLUMNS": "100", "LINES": "20"}
    process = subprocess.Popen(
        command, env=environment, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    out, _ = process.communicate()
    assert (process.returncode, out.splitlines()[-1]) == (0, "2 jobs: 2 done")
    text = shown.decode()
    assert re.search(r"2 jobs: 1 running, 1 queued\r\n  gpu0  [^\n]*it/s[^\n]*  run-0\r\n", text)
    assert "receives task" not in text
    assert text.endswith("\x1b[J")  # the view removes itself
