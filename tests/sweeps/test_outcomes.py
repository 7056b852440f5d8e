"""What may befall a sweep, with real processes: nothing is lost, run twice or silently skipped.

`python -m tests.sweeps.outcomes` lists the cases and how they ended.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.configuration.sweep import expand
from common.errors import UserError
from tests.configuration.variants import NO_GAMMA, config_of
from tests.sweeps.light import ITERATIONS, LightSweep, alive, wait_for

ROOT = Path(__file__).parents[2]
HALF = ITERATIONS // 2 + 1  # where `light_worker` goes wrong


@pytest.fixture
def sweep(tmp_path):
    return LightSweep(tmp_path, 4)


# A job that goes wrong


@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [
        ("exit 3", 3, "error: something is wrong"),
        ("exception", 1, "ValueError: oops"),
        ("lie", 0, "the process ended well without having finished the job"),
    ],
    ids=["exit code 3", "an exception", "exit code 0 before the end"],
)
def test_a_failed_job_is_reported_and_tried_again_when_asked(sweep, how, code, reason):
    status, out, errors = sweep.run(wrong={1: [how]})
    assert status == 3
    assert sweep.states == ["done", "failed", "done", "done"]
    assert (sweep.records[1]["exit_code"], sweep.records[1]["reason"]) == (code, reason)
    assert f"{sweep.jobs[1].folder}: {reason}" in out
    assert out.splitlines()[-1] == "4 jobs: 3 done, 1 failed"
    assert re.search(rf"ERROR gpu[01] fails task <1>: exit code {code}, {reason}", str(sweep.log))
    status, _, errors = sweep.run()
    assert (status, sweep.counts[1]) == (3, HALF)  # not tried again unasked, and said so
    assert f"skips task {sweep.jobs[1].folder}: it has failed (exit code {code}" in errors
    assert sweep.run("--retries=1")[0] == 0
    sweep.refuse_losses()
    assert sweep.records[1]["attempts"] == 2


def test_retries_are_made_by_the_same_start_and_no_more_of_them(sweep):
    wrong = {0: ["exit 3", "exception"], 1: ["exception", "exit 3", "kill"]}
    status, _, _ = sweep.run("--retries=2", wrong=wrong)
    assert (status, sweep.states) == (3, ["done", "failed", "done", "done"])
    assert [record["attempts"] for record in sweep.records] == [3, 3, 1, 1]
    assert sweep.iterations(0) == list(range(ITERATIONS))


@pytest.mark.parametrize("rerun", [False, True], ids=lambda value: f"force_rerun={value}")
def test_a_job_is_tried_again_on_as_many_devices_as_before(tmp_path, rerun):
    sweep = LightSweep(tmp_path, 3)
    if rerun:
        assert sweep.run("--set=gpu=0")[0] == 0
    options = ("--set=gpu=2,0+1", f"--set=force_rerun={rerun}".lower(), "--retries=1")
    # When the single device is free, only the job that has failed on the two is left.
    status, _, errors = sweep.run(*options, wrong={1: ["exit 1"]}, seconds=0.05)
    assert status == 0, errors
    sweep.refuse_losses()
    devices = re.findall(r"gpu(\S+) receives task <1>", "\n".join(sweep.log))
    assert devices[-2:] == ["0,1", "0,1"]


def test_sigkill_of_a_child_is_reported_and_the_next_start_goes_on(sweep):
    status, out, _ = sweep.run(wrong={2: ["kill"]})
    assert status == 3
    assert sweep.records[2]["exit_code"] == -9
    assert f"{sweep.jobs[2].folder}: killed by signal 9 (Killed)" in out
    assert sweep.run()[0] == 0
    sweep.refuse_losses()


def test_the_output_of_every_attempt_is_in_the_workers_log(sweep):
    sweep.run(wrong={0: ["exception"]})
    sweep.run("--retries=1")
    text = sweep.folders[0].log_path.read_text()
    assert [line for line in text.splitlines() if line.startswith(("from", "finished", "V"))] == [
        "from 0 on '0'",
        "ValueError: oops",
        f"from {HALF} on '0'",
        "finished",
    ]


def test_the_output_is_in_the_workers_log_as_it_happens(sweep):
    process = sweep.start(seconds=0.2)
    sweep.wait_until_running(2, process)
    assert sweep.folders[0].log_path.read_text() == "from 0 on '0'\n"
    process.kill()
    process.communicate()


def test_sigterm_of_a_child_lets_it_write_a_checkpoint_and_the_others_go_on(sweep):
    process = sweep.start(seconds=0.05)
    sweep.wait_until_running(2, process)
    os.kill(sweep.records[0]["pid"], signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert sweep.states == ["interrupted", "done", "done", "done"]
    assert sweep.run()[0] == 0
    sweep.refuse_losses()


# The scheduler


def test_a_reader_of_the_output_that_goes_away_does_not_end_the_sweep(sweep):
    process = sweep.start(seconds=0.02)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    sweep.refuse_losses()


def test_sigkill_of_the_scheduler_leaves_no_orphans_and_the_next_start_goes_on(sweep):
    process = sweep.start(seconds=0.05)
    sweep.wait_until_running(2, process)
    children = [record["pid"] for record in sweep.records if record]
    assert len(children) == 2
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(alive, children)), seconds=5)
    # They have written their checkpoints: nobody was there to write down how they ended.
    assert sweep.states == ["running", "running", "new", "new"]
    status, out, _ = sweep.run("--status")
    assert (status, out.splitlines()[-1]) == (0, "4 jobs: 2 lost, 2 queued")
    assert sweep.run()[0] == 0
    sweep.refuse_losses()
    sweep.refuse_survivors()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_to_the_scheduler_lets_jobs_write_checkpoints_and_starts_no_more(sweep, number):
    process = sweep.start(seconds=0.05)
    sweep.wait_until_running(2, process)
    process.send_signal(number)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 75
    assert sweep.states == ["interrupted", "interrupted", "new", "new"]
    assert [record["exit_code"] for record in sweep.records[:2]] == [75, 75]
    assert out.splitlines()[-1] == "4 jobs: 2 interrupted, 2 queued"
    assert "running jobs write a checkpoint" in errors
    sweep.refuse_survivors()
    assert sweep.run()[0] == 0
    sweep.refuse_losses()


def test_a_second_signal_ends_jobs_that_do_not_stop(sweep):
    process = sweep.start(seconds=30)  # an iteration, before whose end no checkpoint is written
    wait_for(lambda: sum(f.record is not None for f in sweep.folders) == 2, process)
    wait_for(lambda: all(f.log_path.exists() and f.log_path.read_text() for f in sweep.folders[:2]))
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    process.communicate(timeout=5)
    assert process.returncode == 75
    assert sweep.states == ["interrupted", "interrupted", "new", "new"]
    sweep.refuse_survivors()


def test_a_signal_during_the_check_starts_nothing(sweep):
    process = sweep.start(LIGHT_CHECK_SECONDS="30")
    assert process.stderr.readline() == "checking\n"
    process.terminate()
    process.communicate(timeout=5)
    assert process.returncode == 75
    assert not (sweep.base / "results").exists()


def test_what_the_check_finds_ends_the_sweep_before_it_begins(sweep):
    status, _, errors = sweep.run(check=2)
    assert status == 2
    assert errors.count("error:") == 1
    assert not (sweep.base / "results").exists()


def test_two_sweeps_started_at_once_share_the_jobs(tmp_path):
    sweep = LightSweep(tmp_path, 12)
    processes = [sweep.start(seconds=0.02) for _ in range(2)]
    ends = [(*p.communicate(timeout=60), p.returncode) for p in processes]
    assert {code for _, _, code in ends} <= {0, 75}
    assert any(code == 0 for _, _, code in ends)
    sweep.refuse_losses()
    begun = re.findall(r"receives task <(\d+)>", "\n".join(sweep.log))
    assert sorted(map(int, begun)) == list(range(12))
    assert all(record["attempts"] == 1 for record in sweep.records)


def test_what_another_sweep_is_running_is_left_to_it_and_reported(sweep):
    first = sweep.start(seconds=0.2)
    sweep.wait_until_running(2, first)
    status, out, errors = sweep.run()
    assert status == 75
    assert out.splitlines()[-1] == "4 jobs: 2 done, 2 running"
    assert f"leaves task {sweep.jobs[0].folder}: another process is running it" in errors
    first.communicate(timeout=60)
    assert first.returncode == 0
    sweep.refuse_losses()


def test_what_another_sweep_fails_at_is_not_tried_by_this_one(tmp_path):
    sweep = LightSweep(tmp_path, 2)
    wrong = {run: ["exit 3", "exit 3"] for run in range(2)}
    processes = [sweep.start("--set=gpu=0", seconds=0.05, wrong=wrong) for _ in range(2)]
    assert [(p.communicate(timeout=60), p.returncode)[1] for p in processes] == [3, 3]
    assert [record["attempts"] for record in sweep.records] == [1, 1]


# The disk


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    """Leaves no space; returns the file that takes it."""
    path = folder / "filler"
    with open(path, "wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 4096)
            except OSError:
                return path


def test_a_disk_that_is_full_from_the_start_is_said_once(small_disk):
    sweep = LightSweep(small_disk, 4)
    filler = fill(small_disk)
    status, _, errors = sweep.run()
    assert status == 2
    assert errors.count("No more jobs are started") == 1
    assert "No space left on device" in errors
    assert "Traceback" not in errors
    filler.unlink()
    assert sweep.run()[0] == 0
    sweep.refuse_losses()


def test_a_disk_that_fills_up_loses_nothing(small_disk):
    sweep = LightSweep(small_disk, 4)
    process = sweep.start(seconds=0.1)
    sweep.wait_until_running(2, process)
    filler = fill(small_disk)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "No space left on device" in errors
    assert "Traceback" not in errors
    sweep.refuse_survivors()
    assert all(state in ("running", "new", "failed") for state in sweep.states)
    filler.unlink()
    assert sweep.run()[0] == 0
    assert sweep.states == ["done"] * 4
    # What could not be noted down for want of space is missing in the notes; nothing is twice.
    for run in range(4):
        made = sweep.iterations(run)
        assert made == sorted(set(made))


def test_a_job_that_finds_the_disk_full_is_the_last_one(sweep):
    """Though by then there may be room again for what the scheduler writes."""
    status, _, errors = sweep.run("--set=gpu=0", wrong={1: ["exit 74"]})
    assert status == 2
    assert errors.count("error: no space is left. No more jobs are started.") == 1
    assert sweep.states == ["done", "failed", "new", "new"]
    assert sweep.run()[0] == 0
    sweep.refuse_losses()


# Configurations


@pytest.mark.parametrize("gpu", ["0,0", "0,1+0", "00,0", "1+1"], ids=lambda text: f"gpu={text}")
def test_the_same_id_listed_twice_is_refused(sweep, gpu):
    status, out, errors = sweep.run(f"--set=gpu={gpu}")
    assert (status, out) == (2, "")
    assert re.fullmatch(r"error: .*device [01] is listed more than once\..*\n", errors)
    assert os.listdir(sweep.base) == []


SCRIPT = """
import sys
from pathlib import Path
from common.command_line import main
from common.variant import Variant
from tests.configuration.variants import SWEPT, GLOBAL
from tests.sweeps.light_main import WORKER

MY_JOB = Variant("my_job", network="cnn", loss="hinge", gamma="none")

config = {
    "scheduler_config": {"gpu": GPU},
    "global_config": {**GLOBAL, **SWEPT, "iteration": 20},
    "test_config": [TEST],
}

if __name__ == "__main__":
    sys.exit(main(MY_JOB, config, Path(__file__).parent, command=WORKER))
"""


@pytest.fixture
def run_script(tmp_path):
    """Runs a user's own `main.py`, all of it in `__main__`, with the given `gpu` and block."""

    def run(gpu, block):
        script = SCRIPT.replace("GPU}", f"{gpu!r}}}").replace("TEST", repr(block))
        (tmp_path / "main.py").write_text(script)
        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        return subprocess.run(
            [sys.executable, tmp_path / "main.py"],
            env={**environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_a_job_class_defined_in_main_is_run(run_script, tmp_path):
    result = run_script(["0"], {"run": [0, 1]})
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "2 jobs: 2 done"
    assert (tmp_path / "results" / "run-1," / "iterations.txt").exists()


def test_ids_given_as_integers_are_the_devices_that_jobs_see(run_script, tmp_path):
    result = run_script([3, [4, "7"]], {"run": [0, 1]})
    assert result.returncode == 0, result.stderr
    logs = [tmp_path / "results" / f"run-{run}," / "worker.log" for run in range(2)]
    assert [log.read_text().splitlines()[0] for log in logs] == ["from 0 on '3'", "from 0 on '4,7'"]
    assert "gpu4,7 receives task run-1," in (tmp_path / "scheduler.log").read_text()


def test_long_values_that_differ_only_at_the_end_are_refused(run_script, tmp_path):
    seeds = [10**38, 10**38 + 1]
    result = run_script(["0"], {"seed": seeds})
    assert result.returncode == 2
    assert re.fullmatch(r"error: two jobs that differ in seed [^\n]*\n", result.stderr)
    assert all(str(seed) in result.stderr for seed in seeds)
    assert os.listdir(tmp_path) == ["main.py"]


def test_jobs_that_are_equal_are_one(run_script):
    result = run_script(["0"], {"run": [5, 5]})
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == "1 job: 1 done"


@pytest.mark.parametrize("value", ["../../x", "a/b", "..", "'", 'a"b', "x" * 300])
def test_a_value_that_could_leave_the_results_folder_is_refused(run_script, tmp_path, value):
    result = run_script(["0"], {"sn_mode": ["SN", value]})
    assert result.returncode == 2
    assert re.fullmatch(r"error: sn_mode=[^\n]*\n", result.stderr)
    assert os.listdir(tmp_path) == ["main.py"]


@pytest.mark.parametrize("text", ["/", "../", "\n", "\0"])
def test_a_separator_that_could_leave_the_results_folder_is_refused(text):
    with pytest.raises(UserError, match="cannot be a folder's name"):
        expand(NO_GAMMA, config_of(scheduler={"test_config_string_separator": text}))


def test_quotes_in_names_are_harmless(sweep):
    status, _, errors = sweep.run("--set=test_config_string_indicator='\"$(rm x)`")
    assert status == 0, errors
    names = os.listdir(sweep.base / "results")
    assert len(names) == 4
    assert all("run'\"$(rmx)`" in name for name in names)


# Folders


def test_a_folder_of_another_configuration_is_refused_before_anything_runs(sweep):
    assert sweep.run()[0] == 0
    before = [folder.record for folder in sweep.folders]
    status, _, errors = sweep.run("--set=width=32")
    assert status == 2
    assert "width: 64 -> 32" in errors
    assert [folder.record for folder in sweep.folders] == before


def test_a_done_job_is_skipped(sweep):
    sweep.run()
    before = [folder.record for folder in sweep.folders]
    status, out, errors = sweep.run()
    assert (status, out.splitlines()[-1]) == (0, "4 jobs: 4 done")
    assert errors.count("it is done") == 4
    assert [folder.record for folder in sweep.folders] == before


def test_a_forced_rerun_moves_the_old_folders_aside_and_deletes_nothing(sweep):
    sweep.run()
    (sweep.folders[0].path / "precious").write_text("x")
    assert sweep.run("--set=force_rerun=true", wrong={3: ["exit 3"]})[0] == 3
    old = sorted((sweep.base / "results").glob("*.old*"))
    assert len(old) == 4
    assert (old[0] / "precious").read_text() == "x"
    assert all(json.loads((p / "run.json").read_text())["state"] == "done" for p in old)
    assert sweep.states == ["done", "done", "done", "failed"]
    assert all("attempts" in record and record["attempts"] == 1 for record in sweep.records)


def test_retries_of_a_forced_rerun_go_on_from_the_checkpoint(sweep):
    sweep.run()
    wrong = {0: ["exit 3"]}
    assert sweep.run("--set=force_rerun=true", "--retries=1", wrong=wrong)[0] == 0
    assert len(list((sweep.base / "results").glob("*.old*"))) == 4
    sweep.refuse_losses()
    assert sweep.records[0]["attempts"] == 2


def test_two_forced_reruns_at_once_make_one_of_each_job(sweep):
    sweep.run()
    processes = [sweep.start("--set=force_rerun=true", seconds=0.1) for _ in range(2)]
    for process in processes:
        process.communicate(timeout=60)
    assert {process.returncode for process in processes} <= {0, 75}
    sweep.refuse_losses()
    assert len(list((sweep.base / "results").glob("*.old*"))) == 4


def test_the_state_is_shown_at_any_time(sweep):
    process = sweep.start(seconds=0.2)
    sweep.wait_until_running(2, process)
    status, out, errors = sweep.run("--status")
    assert (status, errors) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["running", "running", "queued", "queued"]
    assert f"/{ITERATIONS}" in lines[1]
    assert lines[-1] == "4 jobs: 2 running, 2 queued"
    process.terminate()
    process.communicate(timeout=20)
