"""The command line as users run it, before any job is, and the demo. For jobs see `sweeps`."""

import csv
import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common import command_line, demo
from common.command_line import main
from common.configuration.sweep import expand
from common.networks import NETWORKS
from common.results.run_folder import RunFolder
from common.results.times import record_time
from common.sweeps.worker import open_options
from tests.configuration.variants import NO_GAMMA, RESNET, SAME_GAMMA, VARIANTS, config_of

ROOT = Path(__file__).parents[1]
VARIANT_FOLDER = ROOT / "no_gamma_cnn"
EVERY_OPTION = [
    "only",
    "set",
    "dry_run",
    "status",
    "retries",
    "cluster",
    "demo",
    "metrics",
    "feature_network",
    "inception_path",
    "inception_sha256",
    "cache_dir",
    "data_dir",
    "data_route",
    "help",
]
VISIBLE = "CUDA_VISIBLE_DEVICES"
METRIC_COLUMNS = ("inception_score_mean", "inception_score_std", "fid")


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """What `main` sets in the environment is forgotten after each test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


# `python main.py`, without training


@pytest.fixture
def run(tmp_path):
    """Runs `python main.py` in the variant's folder, what it writes being in `tmp_path`."""

    def run_main(*arguments, python=(), stdout=subprocess.PIPE, env=None):
        places = [f"result_root_folder={tmp_path}", f"scheduler_log_file_path={tmp_path}/log"]
        # Should a mistake go unnoticed, the run must end for want of data, not begin a download.
        data = ["--data_route=archive", f"--data_dir={tmp_path}/data"]
        options = [*(f"--set={place}" for place in places), *data]
        command = [sys.executable, *python, "main.py", *options, *arguments]
        streams = {"stdout": stdout, "stderr": subprocess.PIPE, "text": True}
        return subprocess.run(
            command, cwd=VARIANT_FOLDER, check=False, timeout=100, env=env, **streams
        )

    return run_main


def refused(result, *words):
    """Exit status 2, one line on stderr that names the mistake, nothing on stdout."""
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr)
    for word in words:
        assert word in result.stderr


def test_dry_run_lists_every_distinct_job_on_a_line_and_counts(run):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run("--dry_run")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    *folders, counts = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (0, "")
    assert counts == "480 jobs, 450 distinct, 0 done"
    assert len(folders) == len(set(folders)) == 450
    name = re.compile(r"d_beta1-0\.5,d_beta2-0\.9(99)?,d_lr-[^ ]+,sn_mode-B?SN,")
    assert all(name.fullmatch(folder) for folder in folders)
    # The processor's seconds, not the clock's: a busy machine does not make the program slow.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_dry_run_imports_no_tensorflow(run):
    imported = run("--dry_run", python=["-X", "importtime"]).stderr
    assert "common.configuration.sweep" in imported
    assert not re.search(r"\| +(tensorflow|keras|tensorboard)\b", imported)


def test_dry_run_leaves_nothing(run, tmp_path):
    run("--dry_run")
    assert list(tmp_path.iterdir()) == []


def test_dry_run_counts_the_jobs_that_are_done(run, tmp_path):
    first, second, *_ = run("--dry_run").stdout.splitlines()
    record = {"format": 1, "settings": {}, "conditions": {}}
    for folder, state in [(first, "done"), (second, "running")]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "run.json").write_text(json.dumps({**record, "state": state}))
    assert run("--dry_run").stdout.splitlines()[-1] == "480 jobs, 450 distinct, 1 done"


def test_set_and_only_may_be_repeated(run):
    options = ["--only", "dataset=stl10", "--only=scale=1", "--set", "iteration=7"]
    *folders, counts = run("--dry_run", *options, "--set=width=8").stdout.splitlines()
    # Scale 1 of the sweep, which is one of the learning rates' 40; 10 with five D steps.
    assert counts == "60 jobs, 50 distinct, 0 done"
    assert len(folders) == 50
    assert all("dataset-stl10" in folder and "iteration-7," in folder for folder in folders)


def test_only_with_one_key_several_times_means_any_of_its_values(run):
    runs = ["--only=run=0", "--only=run=4"]
    *folders, counts = run("--dry_run", *runs, "--only=n_dis=5").stdout.splitlines()
    # Of the 30 jobs with five D steps, two runs of five.
    assert counts == "12 jobs, 12 distinct, 0 done"
    assert all(re.search("n_dis-5,run-[04],", folder) for folder in folders)


def test_a_reader_that_stops_early_is_no_error(run):
    # A pipe that is closed already is what `| head` ends up as.
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        result = run("--dry_run", stdout=pipe)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_all_options(run, option):
    result = run(option)
    assert (result.returncode, result.stderr) == (0, "")
    for name in EVERY_OPTION:
        assert re.search(rf"^  (-h,)?--(\[no\])?{name}: \w", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nope"], ["nope", "--help"]),
        (["--set", "nonsense"], ["--set 'nonsense'", "KEY=VALUE"]),
        (["--set", "foo=1"], ["'foo'"]),
        (["--set"], ["set"]),
        (["--only", "dataset=nope"], ["dataset='nope'", "cifar10", "digits"]),
        (["--only", "dataset=digits"], ["--only dataset=digits"]),
        (["--only=num_gpus=1"], ["no job", "num_gpus=1"]),
        (["stray"], ["'stray'"]),
        (["--dry_run", "--", "--demo"], ["'--demo'"]),
        (["--dry_run=perhaps"], ["dry_run", "perhaps"]),
        (["--set=dataset=a\nb", "--dry_run"], [r"a\nb"]),
        (["--demo", "--config=config.py"], ["--demo has a configuration of its own"]),
        (["--flagfile=/nowhere/at/all"], ["/nowhere/at/all"]),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run, arguments, words):
    refused(run(*arguments), *words)


def test_bytes_that_are_not_utf8_are_a_mistake(run):
    refused(run("--dry_run", b"--set=dataset=\xff"), r"dataset='\udcff'")


@pytest.mark.parametrize("arguments", [["--dry_run"], []])
def test_results_of_the_original_are_refused(run, tmp_path, arguments):
    folder = tmp_path / run("--dry_run").stdout.splitlines()[7]
    (folder / "checkpoint").mkdir(parents=True)
    for name in ("worker.log", "metrics.csv", "checkpoint/model-9999.index"):
        (folder / name).write_text("x")
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    # Where it is about to train, TensorFlow may have said something before.
    assert f"error: {folder} has results but no run.json" in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint",
        "metrics.csv",
        "worker.log",
    ]
    assert {path.name for path in tmp_path.iterdir()} <= {folder.name, "log"}


def test_an_unknown_metric_is_refused_before_any_job(run, tmp_path):
    result = run("--metrics=is,nope", "--only=run=0")
    assert result.returncode == 2
    assert "error: metric='nope': the value must be one of is, fid, kid, prdc; " in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_status_lists_every_job_and_runs_none(run, tmp_path):
    imported = run("--status", "--only=n_dis=5", python=["-X", "importtime"])
    lines = imported.stdout.splitlines()
    assert (imported.returncode, len(lines)) == (0, 32)
    assert all(line.startswith("queued ") for line in lines[1:-1])
    assert lines[-1] == "30 jobs: 30 queued"
    assert not re.search(r"\| +(tensorflow|keras|tensorboard)\b", imported.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"data_dir": "data", "data_route": "auto", "metrics": ("is", "fid")}),
        (["--metrics=none", "--data_dir=/d"], {"data_dir": "/d", "metrics": ()}),
        (
            ["--metrics=fid", "--data_route=tfds", "--cache_dir=c", "--feature_network=digits"],
            {
                "metrics": ("fid",),
                "data_route": "tfds",
                "cache_dir": "c",
                "feature_network": "digits",
                "inception_path": None,
            },
        ),
        (["--inception_path=x.pb"], {"inception_path": "x.pb", "feature_network": None}),
    ],
)
def test_options_reach_the_runs(tmp_path, monkeypatch, arguments, expected):
    received = []
    monkeypatch.setattr(command_line, "run_sweep", lambda *a, **k: received.append((a, k)) or 3)
    monkeypatch.chdir(tmp_path)
    assert main(NO_GAMMA, config_of(), tmp_path, ["main.py", *arguments]) == 3
    (((tasks, scheduler, base), options),) = received
    assert (base, scheduler.gpu) == (tmp_path, ["0"])
    assert options == {"retries": 0, "cluster": None, "command": None}
    (task,) = tasks
    assert task.folder.path == tmp_path / "results" / task.job.folder
    message = json.loads(json.dumps(task.message))  # a process is told by JSON
    assert message["search"] == [str(tmp_path)]
    opened = dataclasses.asdict(open_options(message["options"]))
    paths = {"data_dir": Path, "cache_dir": str, "inception_path": str}
    expected = {  # absolute, as the jobs' processes may be on other hosts
        key: paths[key](tmp_path / value) if key in paths and value else value
        for key, value in expected.items()
    }
    assert {key: opened[key] for key in expected} == expected


def test_retries_and_the_cluster_reach_the_sweep(tmp_path, monkeypatch):
    received = []
    monkeypatch.setattr(command_line, "run_sweep", lambda *a, **k: received.append(k) or 0)
    arguments = ["main.py", "--retries=2", "--cluster=auto"]
    assert main(NO_GAMMA, config_of(), tmp_path, arguments) == 0
    assert received == [{"retries": 2, "cluster": "auto", "command": None}]


@pytest.mark.parametrize("option", ["--cluster=auto", "--set=force_rerun=true"])
def test_what_is_not_for_several_hosts_is_refused(tmp_path, monkeypatch, capsys, option):
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert main(NO_GAMMA, config_of(), tmp_path, ["main.py", option]) == 2
    assert "TF_CONFIG" in capsys.readouterr().err


def test_dry_run_leaves_the_environment_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", environment := {})
    assert main(NO_GAMMA, config_of(), tmp_path, ["main.py", "--dry_run"]) == 0
    assert environment == {}


def test_the_visible_devices_are_set_before_tensorflow_is_imported(run, tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        f"import os\nraise SystemExit('visible: ' + os.environ['{VISIBLE}'])\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != VISIBLE}
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    result = run("--set=gpu=7,3", "--demo", env=environment)
    assert (result.returncode, result.stderr) == (1, "visible: 7,3\n")


def test_a_defect_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr("common.command_line.expand", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(NO_GAMMA, config_of(), tmp_path, ["main.py"])


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("no_gamma_cnn", "480 jobs, 450 distinct"),
        ("same_gamma_cnn", "75 jobs, 75 distinct"),
        ("diff_gamma_cnn", "75 jobs, 75 distinct"),
        ("no_gamma_resnet", "24 jobs, 24 distinct"),
    ],
)
def test_every_variant_lists_its_own_jobs(name, counts, tmp_path):
    command = [sys.executable, "main.py", "--dry_run", f"--set=result_root_folder={tmp_path}"]
    result = subprocess.run(command, cwd=ROOT / name, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == f"{counts}, 0 done"
    command = [sys.executable, "main.py", "--help"]
    result = subprocess.run(command, cwd=ROOT / name, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"{name}: python main.py [options]")


def test_main_py_ends_with_the_status(tmp_path):
    for name in ("main.py", "config.py", "gan_task.py"):
        shutil.copy(VARIANT_FOLDER / name, tmp_path)
    command = [sys.executable, tmp_path / "main.py", "--dry_run"]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    with (tmp_path / "config.py").open("a") as config:
        config.write('config["scheduler_config"] = {"gpus": ["0"]}\n')
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    refused(result, "scheduler_config key 'gpus'")


# The demo


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_the_demo_trains_two_methods_on_the_digits(variant):
    config = demo.configuration(variant, {"scheduler_config": {"gpu": ["0"]}})
    first, second = (job.settings for job in expand(variant, config).jobs)
    scales = (1.0, 1.2) if variant in (NO_GAMMA, RESNET) else (1.0, 1.0)
    assert [(s.sn_mode, s.scale) for s in (first, second)] == list(
        zip(("SN", "BSN"), scales, strict=True)
    )
    assert first.dataset == "digits"
    assert NETWORKS[first.network].image_shape(first.mg) == (32, 32, 3)
    assert first.iteration % first.metric_freq == first.iteration % first.vis_freq == 0


def test_the_demo_keeps_the_variants_scheduler(run):
    result = run("--demo", "--dry_run")
    assert result.stdout.splitlines()[-1] == "2 jobs, 2 distinct, 0 done"


@pytest.mark.parametrize(
    ("variant", "names"), [(NO_GAMMA, ["SN", "BSSN"]), (SAME_GAMMA, ["SN", "BSN"])]
)
def test_the_demo_names_methods_as_the_paper_does(variant, names):
    config = demo.configuration(variant, {"scheduler_config": {"gpu": ["0"]}})
    assert [demo.method_name(job.settings) for job in expand(variant, config).jobs] == names


def demo_folder(path, table):
    """What a run leaves that the demo's table is made of."""
    path.mkdir()
    folder = RunFolder(path)
    record_time(folder.times_path, 0, "starts")
    record_time(folder.times_path, 0, "ends")
    if table:
        with folder.metrics_path.open("w", newline="") as file:
            csv.writer(file).writerows(table)
    return folder


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            [
                ["global_id", *(f"digits_{name}" for name in METRIC_COLUMNS)],
                [-1, 1.25, 0, 310.5],
                [399, 5, 0, 99],
                [799, 6.75, 0, 12.125],
            ],
            ["1.25 -> 6.75", "310.50 -> 12.12"],
        ),
        ([["global_id", "fid"], [399, 7.5]], ["-", "7.50 -> 7.50"]),
        ([["global_id", "fid"]], ["-", "-"]),
        (None, ["-", "-"]),
    ],
)
def test_the_demos_table_shows_what_was_measured(tmp_path, capsys, table, words):
    config = demo.configuration(NO_GAMMA, {"scheduler_config": {"gpu": ["0"]}})
    sweep = expand(NO_GAMMA, config)
    folders = [demo_folder(tmp_path / job.folder, table) for job in sweep.jobs]
    demo.print_table(sweep.jobs, folders)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["method", "IS", "FID", "seconds"]
    for line, method in zip(lines[2:4], ("SN", "BSSN"), strict=True):
        assert re.split(r" {2,}", line) == [method, *words, "0"]
    assert [str(folder.samples) in "".join(lines[5:]) for folder in folders] == [True, True]


# Configurations in files of their own


@pytest.fixture
def variant_folder(tmp_path):
    """A variant's folder with a small configuration beside `config.py`."""
    text = "config = " + repr(config_of({"run": [0]}))
    (tmp_path / "config.py").write_text(text)
    (tmp_path / "config_wide.py").write_text("config = " + repr(config_of({"run": [7]}, width=32)))
    return tmp_path


def start(folder, *arguments):
    """What `main.py` does in the folder: its exit status."""
    config = config_of({"run": [0]})
    return main(NO_GAMMA, config, folder, ["main.py", *arguments])


def test_another_configuration_is_taken_by_its_name(variant_folder, capsys):
    assert start(variant_folder, "--config=wide", "--dry_run") == 0
    assert "run-7," in capsys.readouterr().out
    assert start(variant_folder, "--dry_run") == 0
    assert "run-0," in capsys.readouterr().out
    path = str(variant_folder / "config_wide.py")
    assert start(variant_folder, f"--config={path}", "--dry_run") == 0
    assert "run-7," in capsys.readouterr().out


def test_mistakes_in_another_configuration_name_its_file(variant_folder, capsys):
    (variant_folder / "config_wide.py").write_text("config = {'global': {}}")
    assert start(variant_folder, "--config=wide", "--dry_run") == 2
    assert capsys.readouterr().err.startswith("error: config_wide.py: unknown section 'global'")


def test_two_configurations_never_share_a_folder(variant_folder, capsys):
    """Their jobs have one name, and differ in what the name does not show."""
    text = "config = " + repr(config_of({"run": [0]}, width=32))
    (variant_folder / "config_wide.py").write_text(text)
    for arguments in ([], ["--config=wide"]):
        assert start(variant_folder, *arguments) == 2
        error = capsys.readouterr().err
        assert "they differ in width" in error
        assert "config_wide.py" in error
    assert not (variant_folder / "results").exists()


def test_a_configuration_that_cannot_be_read_keeps_no_other_from_starting(variant_folder, capsys):
    (variant_folder / "config_wide.py").write_text("config = 1 / 0")
    assert start(variant_folder, "--data_route=archive", "--metrics=none") == 2
    error = capsys.readouterr().err  # it has got as far as the check of the data
    assert "config_wide" not in error


def test_a_folder_of_another_configuration_is_refused_before_anything_starts(
    variant_folder, capsys
):
    (job,) = expand(NO_GAMMA, config_of({"run": [0]}), overrides=["width=8"]).jobs
    folder = RunFolder(variant_folder / "results" / job.folder)
    with folder.lock():
        folder.begin(job.settings, {"host": "h"})
    assert start(variant_folder) == 2
    assert "was started with another configuration (width: 8 -> 64)" in capsys.readouterr().err
    assert folder.record["attempts"] == 1
