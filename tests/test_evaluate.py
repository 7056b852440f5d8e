"""`python -m common.evaluate` as users run it: on sets, and on all checkpoints of a run."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from common.data import DATASETS
from common.evaluate import main
from common.metrics.image_sets import open_files
from common.results.metrics_table import read_metrics
from common.results.run_folder import RunFolder
from common.training.run import Resources, RunOptions, train_job
from tests.training.small import VARIANTS, small_settings

ROOT = Path(__file__).parents[1]
SETTINGS = {"mg": 4, "iteration": 8, "width": 2, "fid_real": 60}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def evaluate(cache, capsys):
    """Runs the command line; returns its JSON, or the one line of an error."""

    def run(*arguments):
        capsys.readouterr()
        texts = [str(argument) for argument in arguments]
        if not any("feature_network" in text for text in texts):
            texts.append("--feature_network=digits")
        status = main(["evaluate", *texts, f"--cache_dir={cache}"])
        output, errors = capsys.readouterr()
        if status == 0:
            return json.loads(output)
        assert (status, output) == (2, "")
        (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
        return line

    return run


def train(path, cache, metrics=("is", "fid"), **changes):
    """Trains a small job on the digits."""
    settings = small_settings(VARIANTS["no_gamma_cnn"], **SETTINGS, **changes)
    options = RunOptions(data_dir=Path("data"), cache_dir=str(cache), metrics=metrics)
    folder = RunFolder(path)
    with folder.lock():
        train_job(settings, folder, Resources(options))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    return train(tmp_path_factory.mktemp("runs") / "run", cache)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run that a test may change."""
    shutil.copytree(trained.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


# Runs


def drop_rows(folder, *ids):
    lines = folder.metrics_path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.split(b",")[0] not in {b"%d" % i for i in ids}]
    folder.metrics_path.write_bytes(b"".join(kept))


def records_of(folder):
    records = json.loads((folder.path / "metrics.json").read_text())
    return {i: {k: v for k, v in r.items() if k != "seconds"} for i, r in records.items()}


def test_missing_rows_are_those_that_training_wrote(run, trained, evaluate):
    drop_rows(run, 3, 7)
    assert run.metrics_path.read_bytes() != trained.metrics_path.read_bytes()
    result = evaluate(f"--run={run.path}")
    assert result["added"] == [3, 7]
    assert list(result["rows"]) == ["1", "3", "5", "7"]
    assert run.metrics_path.read_bytes() == trained.metrics_path.read_bytes()
    assert records_of(run) == records_of(trained)
    assert evaluate(f"--run={run.path}")["added"] == []


def test_rows_that_are_made_are_no_longer_recorded_as_missing(run, evaluate):
    drop_rows(run, 3)
    run.note_metrics(missing=[3, 5, 6])  # 5 has its row, 6 no checkpoint
    assert evaluate(f"--run={run.path}")["added"] == [3]
    assert (run.state, run.record["missing_metrics"]) == ("done", [6])


@pytest.mark.slow
def test_the_row_before_the_first_iteration_can_be_made_later(tmp_path, cache, evaluate):
    run = train(tmp_path / "run", cache, initial_metrics=True)
    before = run.metrics_path.read_bytes()
    drop_rows(run, -1)
    run.note_metrics(missing=[-1])
    result = evaluate(f"--run={run.path}")
    assert (result["added"], run.record["missing_metrics"]) == ([-1], [])
    assert run.metrics_path.read_bytes() == before


def test_permanent_checkpoints_are_measured_when_the_recent_ones_are_gone(run, trained, evaluate):
    for path in (run.path / "checkpoint").glob("model-*"):
        path.unlink()
    drop_rows(run, 1, 3, 5, 7)
    assert evaluate(f"--run={run.path}")["added"] == [3, 7]  # extra_checkpoint_freq is 4
    rows = run.metrics_path.read_bytes().splitlines()
    assert rows == [trained.metrics_path.read_bytes().splitlines()[i] for i in (0, 2, 4)]


def test_a_run_without_metrics_gets_them(run, evaluate):
    record = json.loads(run.record_path.read_text())
    record["conditions"]["metrics"] = None  # as --metrics=none leaves it
    run.record_path.write_text(json.dumps(record))
    run.metrics_path.unlink()
    result = evaluate(f"--run={run.path}", "--metrics=fid,prdc")
    assert list(result["rows"]) == ["1", "3", "5", "7"]
    assert list(result["rows"]["1"]) == [
        f"digits_{name}" for name in ("fid", "precision", "recall", "density", "coverage")
    ]


def test_a_run_that_is_being_trained_is_left_alone(run, evaluate):
    drop_rows(run, 7)
    before = run.metrics_path.read_bytes()
    with run.lock():
        assert "another process is running this job" in evaluate(f"--run={run.path}")
    assert run.metrics_path.read_bytes() == before


def test_other_metrics_or_data_than_the_runs_are_refused(run, evaluate):
    assert "other metrics" in evaluate(f"--run={run.path}", "--metrics=is,fid,kid")
    record = json.loads(run.record_path.read_text())
    record["conditions"]["data"]["images"] = 5
    run.record_path.write_text(json.dumps(record))
    assert "other data" in evaluate(f"--run={run.path}")


def test_a_damaged_checkpoint_is_named_and_the_others_are_measured(run, trained, evaluate):
    drop_rows(run, 3, 7)
    for path in (run.path / "checkpoint").glob("**/model-3.data*"):
        path.write_bytes(b"")
    assert "model-3 cannot be restored" in evaluate(f"--run={run.path}")
    rows = run.metrics_path.read_bytes().splitlines()
    assert rows == [trained.metrics_path.read_bytes().splitlines()[i] for i in (0, 1, 3, 4)]


def test_of_a_damaged_checkpoint_the_permanent_copy_is_measured(run, trained, evaluate, caplog):
    drop_rows(run, 3)
    for path in (run.path / "checkpoint").glob("model-3.data*"):
        path.write_bytes(b"")
    assert evaluate(f"--run={run.path}")["added"] == [3]
    assert run.metrics_path.read_bytes() == trained.metrics_path.read_bytes()
    assert "model-3 cannot be restored" in caplog.text


def test_what_is_no_run_is_refused(tmp_path, evaluate):
    assert "no run.json" in evaluate(f"--run={tmp_path}")


# Sets


def test_a_checkpoint_against_its_data_set_is_the_runs_row(run, evaluate):
    with open(run.metrics_path, newline="") as table:
        rows = {row.pop("global_id"): row for row in csv.DictReader(table)}
    checkpoint = run.path / "checkpoint"
    for text, row in [
        (run.path, "7"),
        (checkpoint / "model-5", "5"),
        (checkpoint / "model-1.index", "1"),
        (checkpoint / "global_id-3", "3"),
    ]:
        # The protocol's FID is of other counts than this run's.
        values = evaluate(text, "digits", "--metrics=is")["values"]
        assert {f"{value:.12f}" for value in values.values()} <= set(rows[row].values())


def test_training_and_this_command_measure_alike(run, evaluate, tmp_path, monkeypatch):
    """By a protocol of the run's own numbers of images: every metric, to the last digit."""
    (tmp_path / "small_protocol_of_a_test.py").write_text(
        "import dataclasses\nfrom common.metrics import PROTOCOLS\n"
        "small = dataclasses.replace(\n"
        "    PROTOCOLS['bsn'], is_samples=40, fid_samples=30, real_images=60\n)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    values = evaluate(run.path, "digits", "--protocol=small_protocol_of_a_test:small")["values"]
    row = read_metrics(run.metrics_path)[-1]
    assert row.global_id == 7
    assert {name: f"{value:.12f}" for name, value in values.items()} == {
        name: f"{value:.12f}" for name, value in row.values.items()
    }


OWN = """
import numpy as np
from common.metrics import Metric


def spread(seed, real, fake):
    return {"diversity": np.var(fake, axis=0).sum()}


diversity = Metric(columns=("diversity",), compare=spread, reference="none")
"""


def test_a_metric_of_ones_own_is_measured_in_training_and_later(
    tmp_path, cache, evaluate, monkeypatch
):
    (tmp_path / "own_metric_of_a_run.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    name = "own_metric_of_a_run:diversity"
    run = train(tmp_path / "run", cache, metrics=("fid", name))
    before = run.metrics_path.read_bytes()
    assert before.startswith(b"global_id,digits_fid,digits_diversity\r\n")
    drop_rows(run, 3)
    assert "--trust=FOLDER/own_metric_of_a_run.py" in evaluate(f"--run={run.path}")
    assert "no such file" in evaluate(f"--run={run.path}", "--trust=nowhere/own_metric_of_a_run.py")
    trusting = [f"--run={run.path}", f"--trust={tmp_path / 'own_metric_of_a_run.py'}"]
    assert evaluate(*trusting)["added"] == [3]
    assert run.metrics_path.read_bytes() == before
    np.save(tmp_path / "black.npy", np.zeros([9, 32, 32, 3], np.uint8))
    values = evaluate(tmp_path / "black.npy", f"--metrics={name}")["values"]
    assert values == {"digits_diversity": pytest.approx(0, abs=1e-9)}


def test_only_the_data_set_imagenet_is_drawn_with_replacement(tmp_path, evaluate, monkeypatch):
    """A reference that merely has that name is taken whole."""
    (tmp_path / "imagenet").mkdir()
    images = np.random.default_rng(1).integers(0, 256, (17, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "imagenet" / f"{number:02}.png")
    whole = {"total": 17, "count": 17}
    found = evaluate(tmp_path / "imagenet", tmp_path / "imagenet")["record"]["real"]
    assert found["selection"] == whole
    as_the_row_says = open_files(tmp_path / "imagenet")
    as_the_row_says.real_with_replacement = DATASETS["imagenet"].real_with_replacement
    monkeypatch.setattr("common.data.open_source", lambda *a: as_the_row_says)
    found = evaluate(tmp_path / "imagenet", "imagenet")["record"]["real"]
    assert found["selection"] == {
        "total": 17, "count": 5_000, "run_seed": 0, "replacement": True,
    }  # fmt: skip


def test_folders_archives_and_statistics(tmp_path, evaluate):
    rng = np.random.default_rng(1)
    for name, high in [("dark", 100), ("bright", 256)]:
        (tmp_path / name).mkdir()
        images = rng.integers(0, high, (30, 32, 32, 3), dtype=np.uint8)
        np.save(tmp_path / f"{name}.npy", images)
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{number:03}.png")
    everything = "--metrics=is,fid,kid,prdc"
    folders = evaluate(tmp_path / "dark", tmp_path / "bright", everything)
    arrays = evaluate(tmp_path / "dark.npy", tmp_path / "bright.npy", everything)
    assert folders["values"] == arrays["values"]
    assert folders["values"]["digits_fid"] > 1
    assert len(folders["values"]) == 9
    itself = evaluate(tmp_path / "dark", tmp_path / "dark.npy")["values"]
    assert abs(itself["digits_fid"]) < 1e-6
    stored = tmp_path / "bright.npz"
    saved = evaluate(tmp_path / "bright", f"--save_statistics={stored}")
    assert "values" not in saved
    against = evaluate(tmp_path / "dark", stored)["values"]
    assert against["digits_fid"] == pytest.approx(folders["values"]["digits_fid"], rel=1e-6)
    assert "statistics" in evaluate(tmp_path / "dark", stored, "--metrics=kid")


@pytest.mark.parametrize("kind", ["keras", "saved_model"])
def test_exported_generators(tmp_path, evaluate, kind):
    latents = keras.Input([4])
    hidden = keras.layers.Dense(32 * 32 * 3, activation="tanh")(latents)
    model = keras.Model(latents, keras.layers.Reshape([32, 32, 3])(hidden))
    path = tmp_path / ("generator.keras" if kind == "keras" else "exported")
    model.save(path) if kind == "keras" else model.export(path, verbose=False)
    result = evaluate(path, "digits", "--samples=40", "--seed=3")
    assert result["record"]["samples"]["images"] == 40
    assert result["values"] == evaluate(path, "digits", "--samples=40", "--seed=3")["values"]
    other = evaluate(path, "digits", "--samples=40", "--seed=4")["values"]
    assert result["values"]["digits_fid"] != other["digits_fid"]


def test_undefined_values_are_null_in_json(evaluate, tmp_path, monkeypatch):
    (tmp_path / "one_split_of_a_test.py").write_text(
        "import dataclasses\nfrom common.metrics import PROTOCOLS\n"
        "one = dataclasses.replace(PROTOCOLS['bsn'], splits=1, ddof=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    np.save(tmp_path / "images.npy", np.zeros([3, 32, 32, 3], np.uint8))
    found = evaluate(tmp_path / "images.npy", "--protocol=one_split_of_a_test:one")
    assert found["values"]["digits_inception_score_std"] is None
    assert found["record"]["protocol"]["name"] == "one_split_of_a_test:one"
    assert found["record"]["protocol"]["ddof"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "0 sets"),
        (["a", "b", "c"], "3 sets"),
        (["nowhere"], "nowhere: no such file.*cifar10"),
        (["/"], "the set '/' has no name"),
        ([""], "the set '' has no name"),
        (["--run=x", "digits"], "exclude each other"),
        (["--run=x", "--seed=1"], "--seed is not for --run"),
        (["--run=x", "--protocol=mmgen"], "--protocol is not for --run"),
        (["digits", "--protocol=other"], "protocol='other': the value must be one of bsn, mmgen"),
        (["digits", "--metrics=lpips"], "metric='lpips': the value must be one of"),
        (["digits", "--metrics=fid"], "fid cannot be computed against nothing"),
        (["digits", "--samples=0"], "samples"),
        (["digits", "--nonsense=1"], "nonsense"),
        (["digits", "--save_statistics=file"], "must end in .npz"),
        (["cifar10", "--data_route=archive", "--data_dir=nowhere"], "not found"),
        (["digits", "--feature_network=vgg"], "feature_network='vgg': the value must be one of"),
    ],
    ids=str,
)
def test_mistakes_are_named_in_one_line(evaluate, arguments, message):
    assert re.search(message, evaluate(*arguments))


def test_the_current_folder_is_a_set(tmp_path, evaluate, monkeypatch):
    for number in range(12):
        Image.fromarray(np.full([32, 32, 3], 20 * number, np.uint8)).save(
            tmp_path / f"{number}.png"
        )
    monkeypatch.chdir(tmp_path)
    here, named = evaluate("."), evaluate(tmp_path)
    assert here["values"] == named["values"]
    assert here["record"]["samples"] == named["record"]["samples"]


def test_statistics_are_no_set_to_be_judged(tmp_path, evaluate):
    np.savez(tmp_path / "s.npz", mu=np.zeros(64), sigma=np.eye(64))
    assert "only the second set" in evaluate(tmp_path / "s.npz", "digits")


def test_help_says_what_there_is_without_tensorflow():
    command = [sys.executable, "-X", "importtime", "-m", "common.evaluate", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for word in ("--run", "--protocol", "studiogan", "SavedModel", "--save_statistics"):
        assert word in result.stdout
    assert "tensorflow" not in result.stderr
