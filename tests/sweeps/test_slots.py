"""Which devices a job sees, and which job a slot gets."""

from datetime import datetime, timedelta

import pytest

from common.configuration.sweep import expand
from common.errors import UserError
from common.results.run_folder import RunFolder
from common.sweeps.attempt import Sweeper, Task, is_failed_for_good, last_line
from common.sweeps.board import Board, sizes_for
from common.sweeps.log import SchedulerLog
from common.sweeps.slots import Slot, open_slots
from tests.configuration.variants import RESNET, RESNET_JOB, config_of


@pytest.mark.parametrize(
    ("ids", "before", "visible"),
    [
        ([["0"]], None, ["0"]),
        ([["12"], ["5"]], None, ["12", "5"]),
        ([["2", "7"], ["1"]], None, ["2,7", "1"]),
        ([["3"]], "3,5", ["3"]),
        ([["0"]], "3,5", ["3"]),  # a Slurm job's devices, which the configuration counts
        ([["0"], ["1"]], "3,5", ["3", "5"]),
        ([["1"], ["0"]], "0,1", ["1", "0"]),
        ([["0", "1"]], "GPU-8932f937,GPU-1", ["GPU-8932f937,GPU-1"]),
        ([["0"], ["1"]], "", ["", ""]),
        ([["0"], ["1"]], "-1", ["-1", "-1"]),
    ],
)
def test_each_slot_sees_its_devices_alone(ids, before, visible):
    environment = {} if before is None else {"CUDA_VISIBLE_DEVICES": before}
    slots = open_slots(tuple(map(tuple, ids)), environment)
    assert [slot.visible for slot in slots] == visible
    assert [list(slot.devices) for slot in slots] == ids


def test_more_devices_than_are_visible_are_refused():
    with pytest.raises(UserError, match="names 2 devices and CUDA_VISIBLE_DEVICES is 3"):
        open_slots((("0",), ("1",)), {"CUDA_VISIBLE_DEVICES": "3"})


def test_slots_are_named_as_in_the_originals_log():
    assert Slot(("0",), "0").name == "gpu0"
    assert Slot(("0", "1"), "0,1").name == "gpu0,1"


@pytest.fixture
def board(tmp_path):
    """A board of three jobs that need 1, 2 and 1 devices."""
    config = {
        "scheduler_config": {"gpu": ["0"]},
        "global_config": {k: v for k, v in RESNET_JOB.items() if k != "num_gpus"},
        "test_config": [{"num_gpus": [1, 2], "run": [0]}, {"num_gpus": [1], "run": [1]}],
    }
    tasks = [Task(job, RunFolder(tmp_path / job.folder)) for job in expand(RESNET, config).jobs]
    return Board(tasks, Sweeper.new(), 0, SchedulerLog(tmp_path / "log", lambda *_: None))


def test_a_job_goes_to_a_slot_with_as_many_devices_as_it_needs(board):
    first, second, third = board.queued
    assert board.next_for(2) == second
    assert board.next_for(2) is None
    assert [board.next_for(1), board.next_for(1)] == [first, third]
    assert board.queued == ()


def test_a_job_for_which_there_is_no_slot_is_refused_and_named(board):
    _, second, _ = board.queued
    slots = [Slot(("0",), "0"), Slot(("1",), "1")]
    with pytest.raises(UserError, match=r"num_gpus-2,run-0, needs 2 device"):
        sizes_for(board, second, slots)
    assert sizes_for(board, second, [*slots, Slot(("2", "3"), "2,3")]) == [2]


def test_a_job_that_was_started_on_several_devices_stays_on_as_many(tmp_path):
    (job,) = expand(*_cnn()).jobs
    task = Task(job, RunFolder(tmp_path / job.folder))
    log = SchedulerLog(tmp_path / "log", lambda *_: None)
    assert Board([task], Sweeper.new(), 0, log).devices_needed(task) is None
    with task.folder.lock():
        task.folder.start(job.settings, {"replicas": 2}, {})
    assert Board([task], Sweeper.new(), 0, log).devices_needed(task) == 2
    assert Board([task], Sweeper.new(force_rerun=True), 0, log).devices_needed(task) is None


def _cnn():
    from tests.configuration.variants import NO_GAMMA  # noqa: PLC0415

    return NO_GAMMA, config_of()


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("failed", 3, True),
        ("failed", 1, True),
        ("failed", 0, True),
        ("failed", 2, False),  # its message says what to mend, and the next start tries again
        ("failed", -9, False),
        ("interrupted", 75, False),
        ("running", None, False),
        ("done", 0, False),
    ],
)
def test_what_has_failed_for_good(state, code, expected):
    assert is_failed_for_good({"state": state, "exit_code": code}) == expected
    assert not is_failed_for_good(None)


def test_a_forced_rerun_replaces_what_is_older_than_itself():
    sweeper = Sweeper.new(force_rerun=True)
    before, after = (
        (sweeper.started + timedelta(seconds=s)).isoformat(timespec="milliseconds") for s in (-1, 1)
    )
    assert datetime.fromisoformat(before) < sweeper.started
    assert sweeper.replaces(None)
    assert sweeper.replaces({"state": "done"})
    assert sweeper.replaces({"started": before, "ended": before})
    assert sweeper.replaces({"started": before, "ended": None})
    assert not sweeper.replaces({"started": before, "ended": after})
    assert not sweeper.replaces({"started": after, "ended": None})
    assert not Sweeper.new().replaces({"started": before})


def test_a_forced_rerun_never_replaces_its_own_attempts_whatever_another_hosts_clock_says():
    sweeper = Sweeper.new(force_rerun=True)
    past = (sweeper.started - timedelta(hours=1)).isoformat()
    record = {"state": "failed", "exit_code": 1, "started": past, "ended": past}
    assert not sweeper.replaces({**record, "sweep": sweeper.name})
    assert sweeper.replaces({**record, "sweep": "another"})


@pytest.mark.parametrize(
    ("content", "start", "line"),
    [
        (b"one\ntwo\n\n  \n", 0, "two"),
        (b"one\ntwo\n", 8, None),
        (b"x" * 10_000 + b"\nlast", 0, "last"),
        (b"\xff\xfe\n", 0, "\ufffd\ufffd"),
        (b"\x1b[2Joops\x07\n", 0, "?[2Joops?"),
        (b"", 0, None),
    ],
)
def test_the_last_line_of_a_log_is_what_an_attempt_wrote_last(tmp_path, content, start, line):
    path = tmp_path / "worker.log"
    assert last_line(path) is None
    path.write_bytes(content)
    assert last_line(path, start) == line
