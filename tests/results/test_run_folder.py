"""What a run's folder is, who may use it, and what is refused."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import threading
import time
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.configuration.settings import make_settings
from common.errors import UserError
from common.results.run_folder import STATES, FolderInUseError, RunFolder
from tests.configuration.variants import JOB, NO_GAMMA

SETTINGS = make_settings(NO_GAMMA, JOB)
DATA = {"dataset": "cifar10", "route": "archive", "images": 50_000}
ENVIRONMENT = {"python": "3"}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "results" / "run-0,")


@pytest.fixture
def started(folder):
    with folder.lock():
        folder.start(SETTINGS, DATA, ENVIRONMENT)
    return folder


def refused(call, *words):
    with pytest.raises(UserError) as caught:
        call()
    for word in words:
        assert str(word) in str(caught.value)


def change(folder, **values):
    record = json.loads(folder.record_path.read_text())
    folder.record_path.write_text(json.dumps({**record, **values}))


# States


def test_a_run_is_new_then_running_then_done(folder):
    assert folder.state == "new"
    with folder.lock():
        assert folder.state == "new"
        folder.start(SETTINGS, DATA, ENVIRONMENT)
        assert folder.state == "running"
        folder.finish()
    assert folder.state == "done"
    assert RunFolder(folder.path).state == "done"


def test_the_files_have_the_originals_names(started):
    names = ["log_path", "metrics_path", "times_path", "samples", "checkpoints", "record_path"]
    assert {str(getattr(started, name).relative_to(started.path)) for name in names} == {
        "worker.log",
        "metrics.csv",
        "time.txt",
        "sample",
        "checkpoint",
        "run.json",
    }
    assert started.samples.is_dir()
    assert started.checkpoints.is_dir()
    assert RunFolder(started.path, "other.log").log_path == started.path / "other.log"


def test_the_record_says_what_the_run_is(started):
    assert json.loads(started.record_path.read_text()) == {
        "format": 1,
        "settings": dataclasses.asdict(SETTINGS),
        "conditions": DATA,
        "state": "running",
        "environment": ENVIRONMENT,
    }


def test_finishing_changes_nothing_but_the_state(started):
    before = json.loads(started.record_path.read_text())
    started.finish()
    assert json.loads(started.record_path.read_text()) == {**before, "state": "done"}


def test_starting_again_keeps_the_record(started):
    before = started.record_path.read_bytes()
    started.start(SETTINGS, DATA, ENVIRONMENT)
    assert started.record_path.read_bytes() == before
    started.finish()
    started.start(SETTINGS, DATA, ENVIRONMENT)
    assert started.state == "done"


def test_another_environment_is_told_and_recorded(started, caplog):
    other = {"python": "4", "cores": 7}
    for environment in [{**ENVIRONMENT, "cores": 7}, other, other, ENVIRONMENT, other]:
        started.start(SETTINGS, DATA, environment)
    messages = [record.getMessage().split("(")[1].split(")")[0] for record in caplog.records]
    assert messages == ["python: '3' -> '4'", "python: '4' -> '3', cores: 7 -> None", messages[0]]
    assert started.record["environment"] == other
    assert started.record["earlier_environments"] == [ENVIRONMENT, other]


def test_hostile_keys_are_not_shown_as_they_are(started, caplog):
    record = json.loads(started.record_path.read_text())
    record["environment"] = {"a\n\x1b[31mERROR": "x"}
    started.record_path.write_text(json.dumps(record))
    started.start(SETTINGS, DATA, ENVIRONMENT)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.isprintable()


def test_a_run_that_failed_or_was_killed_at_its_start_is_new(folder):
    folder.path.mkdir(parents=True)
    for name in (".lock", "worker.log", ".run.json.k2x9"):
        (folder.path / name).write_text("x")
    assert folder.state == "new"
    folder.check(SETTINGS)


# Attempts

ATTEMPT = {"host": "here", "pid": 7, "device": "gpu0", "sweep": "s"}


def test_an_attempt_is_recorded_before_anything_is_known_of_the_data(folder):
    with folder.lock():
        folder.begin(SETTINGS, ATTEMPT)
    record = folder.record
    assert (record["state"], record["attempts"], record["exit_code"]) == ("running", 1, None)
    assert {key: record[key] for key in ATTEMPT} == ATTEMPT
    assert record["settings"] == dataclasses.asdict(SETTINGS)
    assert datetime.fromisoformat(record["started"]).tzinfo is not None
    folder.start(SETTINGS, DATA, ENVIRONMENT)
    assert (folder.record["conditions"], folder.record["environment"]) == (DATA, ENVIRONMENT)
    refused(lambda: folder.start(SETTINGS, {**DATA, "images": 7}, ENVIRONMENT), "50000", "7")


@pytest.mark.parametrize(
    ("code", "state"),
    [(0, "failed"), (1, "failed"), (3, "failed"), (-9, "failed"), (75, "interrupted")],
)
def test_how_an_attempt_ended_is_recorded_and_the_next_one_starts_afresh(folder, code, state):
    with folder.lock():
        folder.begin(SETTINGS, ATTEMPT)
        folder.start(SETTINGS, DATA, ENVIRONMENT)
        folder.end(code, "why")
        record = folder.record
        assert [record[key] for key in ("state", "exit_code", "reason")] == [state, code, "why"]
        assert record["ended"] >= record["started"]
        folder.begin(SETTINGS, {**ATTEMPT, "device": "gpu1"})
    record = folder.record
    assert [record[key] for key in ("state", "exit_code", "reason", "ended")] == [
        "running",
        None,
        None,
        None,
    ]
    assert (record["attempts"], record["device"], record["conditions"]) == (2, "gpu1", DATA)


@pytest.mark.parametrize("code", [0, 1, -11, 75])
def test_a_run_that_is_done_stays_done_however_its_process_ends(folder, code):
    with folder.lock():
        folder.begin(SETTINGS, ATTEMPT)
        folder.start(SETTINGS, DATA, ENVIRONMENT)
        folder.finish()
        folder.end(code)
    assert (folder.state, folder.record["exit_code"]) == ("done", code)


def test_metrics_that_failed_are_recorded_until_they_are_made(started):
    started.note_metrics(made=[1])
    assert "missing_metrics" not in started.record
    started.note_metrics(missing=[9])
    started.note_metrics(missing=[-1, 9])
    started.finish()
    assert started.record["missing_metrics"] == [-1, 9]
    started.note_metrics(made=[9, 19])
    assert (started.record["missing_metrics"], started.state) == ([-1], "done")


# Refusals


@pytest.mark.parametrize("name", ["checkpoint/checkpoint", "metrics.csv", "sample/global_id-9.png"])
def test_results_of_the_original_are_refused(folder, name):
    (folder.path / name).parent.mkdir(parents=True)
    (folder.path / name).write_text("x")
    folder.log_path.write_text("x")
    for call in (
        lambda: folder.state,
        lambda: folder.check(SETTINGS),
        lambda: folder.start(SETTINGS, DATA, ENVIRONMENT),
        folder.finish,
    ):
        refused(call, folder.path, "no run.json", "TensorFlow 1", "Move the folder away")
    assert not folder.record_path.exists()


@pytest.mark.parametrize("state", ["running", "done"])
def test_another_configuration_is_refused_and_its_keys_named(started, state):
    change(started, state=state)
    other = make_settings(NO_GAMMA, {**JOB, "width": 32, "scale": 1.5})
    for call in (
        lambda: started.check(other),
        lambda: started.start(other, DATA, ENVIRONMENT),
    ):
        refused(call, started.path, "(scale: 1.0 -> 1.5, width: 64 -> 32)")
    started.check(SETTINGS)


def test_a_key_that_is_no_longer_known_is_a_change(started):
    change(started, settings={**dataclasses.asdict(SETTINGS), "old": 1})
    refused(lambda: started.check(SETTINGS), "old: 1 -> None")


def test_other_data_is_refused(started):
    other = {**DATA, "images": 49_999}
    refused(lambda: started.start(SETTINGS, other, ENVIRONMENT), started.path, "50000", "49999")


RECORD = {"format": 1, "state": "done", "settings": {}, "conditions": {}}
GARBAGE = [
    b"",
    b"not JSON",
    b"\xff\xfe\x00",
    b"\0" * 100,
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"1" * 10_000,
    b"null",
    b"[]",
    b"3",
    b'"done"',
    b"{}",
    json.dumps(RECORD).encode()[:-1],
    json.dumps(RECORD).encode("utf-16"),
    *(
        json.dumps({**RECORD, **change}).encode()
        for change in (
            {"format": 2},
            {"format": None},
            {"format": [1]},
            {"state": "new"},
            {"state": None},
            {"state": ["done"]},
            {"state": {"done": 1}},
            {"settings": None},
            {"settings": []},
            {"settings": "run"},
            {"conditions": None},
            {"conditions": [1]},
            {"attempts": "1"},
            {"exit_code": [3]},
            {"missing_metrics": 3},
            {"missing_metrics": ["3"]},
            {"started": 5},
            {"started": "yesterday"},
            {"ended": "2020-01-01T00:00:00"},
        )
    ),
    *(json.dumps({k: v for k, v in RECORD.items() if k != lost}).encode() for lost in RECORD),
]


@pytest.mark.parametrize("content", GARBAGE, ids=lambda content: content[:20].decode("latin-1"))
def test_a_damaged_record_is_refused(started, content):
    started.record_path.write_bytes(content)
    for call in (
        lambda: started.state,
        lambda: started.check(SETTINGS),
        lambda: started.start(SETTINGS, DATA, ENVIRONMENT),
        started.finish,
    ):
        refused(call, started.record_path, "cannot be read", "move the folder away")
    assert started.record_path.read_bytes() == content


@given(position=st.integers(0, 1000), junk=st.binary(min_size=1, max_size=5), cut=st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_fuzzed_record_is_read_or_refused(tmp_path_factory, position, junk, cut):
    folder = RunFolder(tmp_path_factory.getbasetemp() / "fuzzed")
    folder.path.mkdir(exist_ok=True)
    settings_values = dataclasses.asdict(SETTINGS)
    record = {"settings": settings_values, "conditions": DATA, "environment": ENVIRONMENT}
    content = bytearray(json.dumps({"format": 1, "state": "done", **record}).encode())
    position %= len(content)
    content[position : None if cut else position + len(junk)] = junk
    folder.record_path.write_bytes(content)
    with contextlib.suppress(UserError):
        assert folder.state in STATES
        folder.start(SETTINGS, DATA, ENVIRONMENT)


def test_a_record_or_folder_of_the_wrong_kind_is_refused(folder, tmp_path):
    folder.record_path.mkdir(parents=True)
    refused(lambda: folder.state, "cannot be read")
    (tmp_path / "plain").write_text("x")
    refused(lambda: RunFolder(tmp_path / "plain").state, "plain", "cannot be read")


# Setting aside


def contents(path):
    return {str(p.relative_to(path)): p.is_file() and p.read_bytes() for p in path.rglob("*")}


def test_a_folder_that_is_set_aside_is_new_and_its_files_are_all_kept(started):
    started.metrics_path.write_text("rows")
    (started.samples / "global_id-199.png").write_text("image")
    before = contents(started.path)
    started.set_aside()
    assert contents(started.path.with_name("run-0,.old1")) == before
    assert not started.path.exists()
    assert started.state == "new"


def test_a_folder_is_set_aside_under_the_first_free_name(folder):
    folder.path.mkdir(parents=True)
    folder.path.with_name("run-0,.old2").write_text("a file of the user")
    for content in ("first", "second", "third"):
        folder.path.mkdir(exist_ok=True)
        folder.metrics_path.write_text(content)
        folder.set_aside()
    kept = {path.parent.name: path.read_text() for path in folder.path.parent.glob("*/*.csv")}
    assert kept == {"run-0,.old1": "first", "run-0,.old3": "second", "run-0,.old4": "third"}
    assert folder.path.with_name("run-0,.old2").read_text() == "a file of the user"


def test_where_there_is_no_folder_none_is_set_aside(folder, tmp_path):
    folder.set_aside()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"not JSON", None])
def test_what_cannot_be_continued_can_be_set_aside(started, content):
    if content is None:
        started.record_path.unlink()
    else:
        started.record_path.write_bytes(content)
    started.set_aside()
    assert started.state == "new"


def test_what_cannot_be_set_aside_is_refused_and_stays(tmp_path):
    longest = RunFolder(tmp_path / ("x" * 255))
    longest.checkpoints.mkdir(parents=True)
    plain = RunFolder(tmp_path / "plain")
    plain.path.write_text("x")
    for folder in (longest, plain):
        refused(folder.set_aside, folder.path, "cannot be set aside")
    assert {path.name for path in tmp_path.iterdir()} == {"x" * 255, "plain"}
    assert longest.checkpoints.is_dir()


# The lock

HOLD = """
import sys
from common.results.run_folder import RunFolder

with RunFolder(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_process(folder):
    """Another process that holds the folder's lock."""
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def lock_once(folder):
    with folder.lock():
        pass


def test_a_second_process_is_kept_out_until_the_first_ends(folder, other_process):
    refused(lambda: lock_once(folder), folder.path, "another process")
    other_process.communicate()
    lock_once(folder)


@pytest.mark.usefixtures("other_process")
def test_a_folder_in_which_another_process_trains_is_not_set_aside(folder):
    refused(folder.set_aside, folder.path, "another process")
    assert list(folder.path.parent.iterdir()) == [folder.path]


def test_a_killed_process_holds_no_lock(folder, other_process):
    refused(lambda: lock_once(folder), "another process")
    other_process.kill()
    other_process.wait()
    lock_once(folder)


def test_a_process_keeps_others_out(folder):
    with folder.lock():
        command = [sys.executable, "-c", HOLD, str(folder.path)]
        result = subprocess.run(command, input=b"", capture_output=True, check=False)
    assert result.returncode == 1
    assert b"another process" in result.stderr
    assert result.stdout == b""


def test_folders_do_not_lock_one_another(folder):
    with folder.lock(), RunFolder(folder.path.with_name("run-1,")).lock():
        assert folder.state == "new"


def test_a_record_older_than_a_key_is_continued_with_the_keys_default(started):
    record = json.loads(started.record_path.read_text())
    del record["settings"]["precision"], record["settings"]["width"]
    started.record_path.write_text(json.dumps(record))
    started.check(SETTINGS)
    changed = dataclasses.replace(SETTINGS, width=16)
    refused(lambda: started.check(changed), started.path, "width: 64 -> 16")


def test_a_lock_that_was_set_aside_with_its_folder_is_no_lock(started):
    with started.lock():
        pass
    waiting = open(started.path / ".lock")  # noqa: SIM115 (another process that was about to lock)
    started.set_aside()
    with started.lock():
        assert not started._is_lock(waiting)
        refused(lambda: lock_once(started), "another process")
    waiting.close()


def test_a_lock_lasts_as_long_as_a_process_that_inherited_it(folder):
    lock = folder.acquire()
    sleep = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    child = subprocess.Popen(sleep, stdin=subprocess.PIPE, pass_fds=[lock.fileno()])
    lock.close()
    assert folder.is_in_use
    with pytest.raises(FolderInUseError):
        folder.acquire()
    child.communicate()
    assert not folder.is_in_use
    lock_once(folder)


def test_looking_whether_a_folder_is_in_use_does_not_keep_others_out(folder):
    assert not folder.is_in_use  # nor creates it
    assert not folder.path.exists()
    stop = threading.Event()

    def look():
        while not stop.is_set():
            assert folder.is_in_use in (True, False)
            time.sleep(0.001)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for thread in lookers:
        thread.start()
    for _ in range(200):
        lock_once(folder)
    stop.set()
    for thread in lookers:
        thread.join()
