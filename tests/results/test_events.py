"""Event files as TensorBoard reads them, and taking back what follows a checkpoint."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.results.events import EventLog

KEEP_ALL = {"scalars": 0}


def read(folder):
    """`{tag: [(step, value, wall time), ...]}`."""
    accumulator = EventAccumulator(str(folder), size_guidance=KEEP_ALL)
    accumulator.Reload()
    return {
        tag: [(event.step, event.value, event.wall_time) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def values(folder, tag="loss/g"):
    return [(step, value) for step, value, _ in read(folder).get(tag, [])]


def all_values(folder):
    """Those of several files, whose order TensorBoard takes from the second they were begun in."""
    return sorted(values(folder))


@pytest.fixture
def write(tmp_path):
    """Writes steps in a log of their own; returns the sizes at the end."""

    def write_steps(*steps, value=float):
        log = EventLog(tmp_path)
        for step in steps:
            log.write(step, {"loss/g": value(step)}, 0.0)
        sizes = log.sizes()
        log.close()
        return sizes

    return write_steps


def test_tags_steps_and_values_are_those_written(tmp_path):
    log = EventLog(tmp_path / "checkpoint")
    log.write(0, {"loss/g": 0.1, "d/sigma0_1": np.float32(2.5)}, 100.5)
    log.write(399_999, {"loss/g": -1e-8, "memory/rss": 2**33}, 101.5)
    log.write(-1, {"metric/fid": 1 / 3}, 102.5)
    log.close()
    assert read(tmp_path / "checkpoint") == {
        "loss/g": [
            (0, float(np.float32(0.1)), 100.5),
            (399_999, float(np.float32(-1e-8)), 101.5),
        ],
        "d/sigma0_1": [(0, 2.5, 100.5)],
        "memory/rss": [(399_999, float(2**33), 101.5)],
        "metric/fid": [(-1, float(np.float32(1 / 3)), 102.5)],
    }


def test_values_that_are_not_finite_are_written(tmp_path):
    log = EventLog(tmp_path)
    log.write(0, {"loss/g": float("nan"), "loss/d": float("inf")}, 0.0)
    log.close()
    assert np.isnan(values(tmp_path)[0][1])
    assert values(tmp_path, "loss/d") == [(0, np.inf)]


def test_many_steps_arrive_in_order(tmp_path, write):
    write(*range(3000))
    assert values(tmp_path) == [(step, float(step)) for step in range(3000)]


def test_no_file_appears_before_something_is_written(tmp_path):
    log = EventLog(tmp_path / "none")
    assert log.sizes() == {}
    log.rewind({})
    log.close()
    assert not (tmp_path / "none").exists()


def test_sizes_are_those_on_disk_with_everything_written(tmp_path):
    log = EventLog(tmp_path)
    for step in range(50):
        log.write(step, {"loss/g": 0.0}, 0.0)
    sizes = log.sizes()
    assert sizes == {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert len(values(tmp_path)) == 50  # readable before the log is closed
    log.close()


def test_rewinding_gives_exactly_what_was_there_at_the_checkpoint(tmp_path):
    log = EventLog(tmp_path)
    for step in range(5):
        log.write(step, {"loss/g": step}, 0.0)
    sizes = log.sizes()
    before = read(tmp_path)
    for step in range(5, 9):
        log.write(step, {"loss/g": step, "loss/d": 0.0}, 0.0)
    log.close()
    assert read(tmp_path) != before
    EventLog(tmp_path).rewind(sizes)
    assert read(tmp_path) == before


def test_a_rewound_log_goes_on_in_a_new_file(tmp_path, write):
    sizes = write(0, 1)
    write(2, 3)
    log = EventLog(tmp_path)
    log.rewind(sizes)
    log.write(2, {"loss/g": 20.0}, 0.0)
    log.close()
    assert all_values(tmp_path) == [(0, 0.0), (1, 1.0), (2, 20.0)]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_that_is_resumed_twice(tmp_path, write):
    first = write(0, 1)
    write(2)  # killed before a checkpoint
    EventLog(tmp_path).rewind(first)
    second = write(2, 3, value=lambda step: step * 10)
    write(4)
    EventLog(tmp_path).rewind(second)
    assert all_values(tmp_path) == [(0, 0.0), (1, 1.0), (2, 20.0), (3, 30.0)]
    EventLog(tmp_path).rewind(first)
    assert values(tmp_path) == [(0, 0.0), (1, 1.0)]


def test_rewinding_removes_files_that_were_not_there_and_nothing_else(tmp_path, write):
    write(0)
    for name in ("checkpoint", "model-9.index"):
        (tmp_path / name).write_text("x")
    EventLog(tmp_path).rewind({})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "model-9.index"]


def test_a_file_shorter_than_at_the_checkpoint_stays_as_it_is(tmp_path, write):
    ((name, size),) = write(0, 1).items()
    with open(tmp_path / name, "r+b") as file:
        file.truncate(size - 1)
    EventLog(tmp_path).rewind({name: size, "events.out.tfevents.gone": 5})
    assert (tmp_path / name).stat().st_size == size - 1
    assert values(tmp_path) == [(0, 0.0)]


def test_closing_twice_is_allowed(tmp_path):
    log = EventLog(tmp_path)
    log.write(0, {"loss/g": 1.0}, 0.0)
    log.close()
    log.close()
    assert values(tmp_path) == [(0, 1.0)]
