"""`python main.py` on a real-format CIFAR10 archive, as a user runs it."""

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.results.progress import Progress, read_progress
from tests.data.archives import python2_batch, rows, write_archive

ROOT = Path(__file__).parent.parent
FOLDER = (
    "d_beta1-0.5,d_beta2-0.999,d_lr-0.0001,dataset-cifar10,g_beta1-0.5,g_beta2-0.999,g_lr-0.0001,"
    "iteration-3,mg-4,n_dis-1,run-0,scale-1.2,sn_mode-BSN,"
)


@pytest.fixture
def variant(tmp_path):
    """A copy of the variant's folder, with nothing in it but its three files."""
    folder = tmp_path / "no_gamma_cnn"
    folder.mkdir()
    for name in ("main.py", "config.py", "gan_task.py"):
        shutil.copy(ROOT / "no_gamma_cnn" / name, folder)
    return folder


def put_archive(variant, first=None):
    batches = [python2_batch(rows(20, seed)) for seed in range(5)]
    if first is not None:
        batches[0] = first
    write_archive(variant / "data" / "CIFAR10" / "cifar-10-python.tar.gz", batches)


def command(*options):
    selected = ["dataset=cifar10", "run=0", "sn_mode=BSN", "scale=1.2"]
    changed = ["iteration=3", "width=4", "batch_size=8", "vis_freq=2"]
    arguments = [f"--only={text}" for text in selected] + [f"--set={text}" for text in changed]
    return [sys.executable, "main.py", *arguments, *options]


def run_main(variant, *options):
    return subprocess.run(
        command(*options),
        cwd=variant,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_job_leaves_the_originals_files(variant):
    put_archive(variant)
    run = run_main(variant, "--metrics=none", "--set=save_checkpoint_freq=2")
    assert run.returncode == 0, run.stderr
    folder = variant / "results" / FOLDER
    assert Image.open(folder / "sample" / "global_id-1.png").size == (320, 320)
    saved = {path.name for path in (folder / "checkpoint").glob("model-*.index")}
    assert saved == {"model-1.index", "model-2.index"}
    assert (folder / "time.txt").read_text().startswith("iter 0 starts: ")
    record = json.loads((folder / "run.json").read_text())
    assert [record[key] for key in ("state", "exit_code", "device", "attempts")] == [
        "done",
        0,
        "gpu0",
        1,
    ]
    assert json.loads((folder / "progress.json").read_text())["iteration"] == 3
    assert "finishes task" in (folder / "worker.log").read_text()
    assert "gpu0 receives task" in (variant / "scheduler.log").read_text()
    events = EventAccumulator(str(folder / "checkpoint"))
    events.Reload()
    assert [event.step for event in events.Scalars("d/sigma6_2")] == [0, 1, 2]
    again = run_main(variant, "--metrics=none", "--set=save_checkpoint_freq=2")
    assert again.returncode == 0
    assert "skips task" in again.stderr


def test_a_signal_lets_the_job_write_a_checkpoint_and_the_same_command_goes_on(variant):
    put_archive(variant)
    options = ["--metrics=none", "--set=iteration=100000"]
    process = subprocess.Popen(command(*options), cwd=variant, stderr=subprocess.PIPE, text=True)
    progress = variant / "results" / FOLDER.replace("iteration-3", "iteration-100000")
    deadline = time.monotonic() + 200
    while read_progress(progress / "progress.json") in (None, Progress(0, 100_000)):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 75
    record = json.loads((progress / "run.json").read_text())
    assert (record["state"], record["exit_code"]) == ("interrupted", 75)
    (checkpoint,) = (progress / "checkpoint").glob("model-*.index")
    last = int(checkpoint.stem.removeprefix("model-"))
    again = subprocess.Popen(command(*options), cwd=variant, stderr=subprocess.PIPE, text=True)
    while f"Loaded from global_id {last}\n" not in (progress / "worker.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again.terminate()
    again.communicate(timeout=60)
    assert again.returncode == 75
    assert json.loads((progress / "run.json").read_text())["attempts"] == 2


@pytest.mark.slow
def test_metrics_of_another_network_carry_its_name(variant, tmp_path):
    put_archive(variant)
    sizes = ("is_samples=60", "fid_samples=50", "fid_real=40", "metric_freq=2")
    run = run_main(
        variant,
        "--feature_network=digits",
        f"--cache_dir={tmp_path}",
        *(f"--set={size}" for size in sizes),
    )
    assert run.returncode == 0, run.stderr
    with open(variant / "results" / FOLDER / "metrics.csv", newline="") as table:
        (row,) = csv.DictReader(table)
    columns = ["inception_score_mean", "inception_score_std", "fid"]
    assert list(row) == ["global_id", *(f"digits_{name}" for name in columns)]
    assert row["global_id"] == "1"
    assert np.isfinite([float(value) for value in row.values()]).all()


class Touch:
    """Unpickled by Python itself, this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_calls_something_is_refused(variant, tmp_path):
    put_archive(variant, first=pickle.dumps({b"data": Touch(tmp_path / "touched")}, protocol=2))
    run = run_main(variant, "--metrics=none")
    assert run.returncode == 2
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert "data_batch_1" in line
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "touched").exists()
    assert not (variant / "results").exists()


def test_a_missing_network_is_found_before_training(variant):
    put_archive(variant)
    run = run_main(variant, "--inception_path=nowhere.pb")
    assert run.returncode == 2
    assert "nowhere.pb" in run.stderr
    assert not (variant / "results").exists()
