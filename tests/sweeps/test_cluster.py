"""The same sweep on a local Ray cluster of two CPUs, real processes being killed."""

import os
import re
import signal

import pytest

from tests.sweeps.light import ITERATIONS, LightSweep, wait_for

LOCAL = "--cluster=local"


@pytest.fixture
def sweep(tmp_path):
    pytest.importorskip("ray", reason="Ray is an optional extra: pip install -e '.[cluster]'")
    return LightSweep(tmp_path, 4)


def parent_of(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def test_a_sweep_finishes_though_a_ray_worker_and_a_jobs_process_are_killed(sweep):
    process = sweep.start(LOCAL, seconds=0.25, wrong={3: ["kill", "exit 3"]})
    sweep.wait_until_running(2, process)
    worker = parent_of(next(record["pid"] for record in sweep.records if record))
    with open(f"/proc/{worker}/cmdline", encoding="utf-8") as file:
        assert "ray::" in file.read()
    os.kill(worker, signal.SIGKILL)
    out, errors = process.communicate(timeout=100)
    assert process.returncode == 3, errors
    assert out.splitlines()[-1] == "4 jobs: 3 done, 1 failed"
    # The one that was killed itself was tried again, the one that failed was not.
    assert (sweep.records[3]["exit_code"], sweep.records[3]["attempts"]) == (3, 2)
    assert sum(record["attempts"] for record in sweep.records) == 6
    failures = [line for line in sweep.log if line.startswith("ERROR")]
    assert len(failures) == 1
    assert re.fullmatch("ERROR [^ ]+:cpu[01] fails task <3>: exit code 3, error: .*", failures[0])
    status, _, errors = sweep.run(LOCAL, "--retries=1")
    assert status == 0, errors
    sweep.refuse_losses()


def test_a_signal_lets_the_jobs_on_the_cluster_write_checkpoints(sweep):
    process = sweep.start(LOCAL, seconds=0.25)
    sweep.wait_until_running(2, process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    sweep.refuse_survivors()
    assert out.splitlines()[-1] == "4 jobs: 2 interrupted, 2 queued"
    assert all(0 < count < ITERATIONS for count in sweep.counts[:2])
    assert sweep.run()[0] == 0  # on this machine, without the cluster
    sweep.refuse_losses()


@pytest.mark.slow
def test_sigkill_of_the_driver_leaves_nothing_running(sweep):
    process = sweep.start(LOCAL, seconds=0.25)
    sweep.wait_until_running(2, process)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(folder.is_in_use for folder in sweep.folders), seconds=30)
    assert sweep.run()[0] == 0
    sweep.refuse_losses()


def test_what_the_check_finds_is_said_once(sweep):
    status, _, errors = sweep.run(LOCAL, check=2)
    assert status == 2
    assert errors.count("error: the check says so") == 1
    assert not (sweep.base / "results").exists()


@pytest.mark.slow
def test_a_record_that_becomes_unreadable_costs_its_job_alone(sweep):
    process = sweep.start(LOCAL, seconds=0.25)
    sweep.wait_until_running(2, process)
    damaged = next(i for i, count in enumerate(sweep.counts) if count)
    sweep.folders[damaged].record_path.write_text("{")
    out, errors = process.communicate(timeout=100)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    assert out.splitlines()[-1] == "4 jobs: 3 done, 1 unusable"
    assert any(f"fails task <{damaged}>" in line and "cannot be read" in line for line in sweep.log)


def test_more_cpus_than_a_machine_has_are_refused_before_anything_waits_for_them(sweep):
    folder = sweep.folders[0]
    with folder.lock():  # as if it had been trained on three devices elsewhere
        folder.start(sweep.jobs[0].settings, {"replicas": 3}, {})
    status, _, errors = sweep.run(LOCAL)
    assert status == 2
    assert re.search(r"error: .*run-0,.* needs 3 CPU\(s\), .* has 2\.", errors)


def test_a_cluster_that_is_not_there_is_one_line(sweep):
    status, _, errors = sweep.run("--cluster=127.0.0.1:1")
    assert status == 2
    assert re.search(
        r"^error: --cluster=127\.0\.0\.1:1: nobody answers there", errors, re.MULTILINE
    )
    assert "Traceback" not in errors


def test_without_ray_the_extra_is_named(tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('no module named ray')")
    sweep = LightSweep(tmp_path / "sweep", 1)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    status, _, errors = sweep.run(LOCAL, PYTHONPATH=path)
    assert status == 2
    assert errors.endswith("error: --cluster needs Ray (no module named ray): pip install -e "
                           "'.[cluster]'\n")  # fmt: skip
