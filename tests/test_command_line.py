"""The command line as users run it, the running of jobs (training itself stubbed), the demo."""

import csv
import json
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from common import demo, jobs
from common.command_line import main
from common.configuration.sweep import expand, results_folder
from common.errors import UserError
from common.metrics import InvalidSamplesError
from common.results.run_folder import RunFolder
from common.results.times import record_time
from common.training import run as training
from common.training.errors import DivergedError, InterruptedRunError
from tests.configuration.variants import NO_GAMMA, RESNET, SAME_GAMMA, VARIANTS, config_of

ROOT = Path(__file__).parents[1]
VARIANT_FOLDER = ROOT / "no_gamma_cnn"
EVERY_OPTION = [
    "only",
    "set",
    "dry_run",
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
DATA = {"dataset": "cifar10"}


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
        (["--only=num_gpus=1"], ["no_gamma_cnn", "'num_gpus'"]),
        (["stray"], ["'stray'"]),
        (["--dry_run", "--", "--demo"], ["'--demo'"]),
        (["--dry_run=perhaps"], ["dry_run", "perhaps"]),
        (["--set=dataset=a\nb", "--dry_run"], [r"a\nb"]),
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


def test_an_unknown_metric_is_refused_before_any_job(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "run_all", lambda *_: pytest.fail("ran"))
    status = main(NO_GAMMA, config_of(), tmp_path, ["main.py", "--metrics=is,nope"])
    assert status == 2
    assert capsys.readouterr().err == "error: --metrics: no metric 'nope'. Known: is, fid, none.\n"


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
    monkeypatch.setattr(jobs, "run_all", lambda *args: received.append(args) or 3)
    assert main(NO_GAMMA, config_of(), tmp_path, ["main.py", *arguments]) == 3
    ((variant, sweep, folders, base, options),) = received
    assert (variant, base) == (NO_GAMMA, tmp_path)
    assert [folder.path for folder in folders] == [tmp_path / "results" / sweep.jobs[0].folder]
    expected = {key: tmp_path / v if key == "data_dir" else v for key, v in expected.items()}
    assert {key: getattr(options, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("gpu", "arguments", "before", "after"),
    [
        (["0"], [], None, "0"),
        (["12", "5"], [], None, "12"),
        ([["2", "7"], "1"], [], None, "2,7"),
        ([("4", "6")], ["--demo"], None, "4,6"),
        (["0"], ["--set=gpu=5"], None, "5"),
        (["3"], [], "1", "1"),
        (["3"], [], "", ""),
    ],
)
def test_the_first_entry_of_gpu_is_what_tensorflow_sees(  # noqa: PLR0917
    tmp_path, monkeypatch, gpu, arguments, before, after
):
    environment = {} if before is None else {VISIBLE: before}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(jobs, "run_all", lambda *_: 3)
    config = config_of(scheduler={"gpu": gpu})
    assert main(NO_GAMMA, config, tmp_path, ["main.py", *arguments]) == 3
    assert environment[VISIBLE] == after


def test_dry_run_leaves_the_environment_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", environment := {})
    assert main(NO_GAMMA, config_of(), tmp_path, ["main.py", "--dry_run"]) == 0
    assert environment == {}


@pytest.mark.parametrize("demo_option", [[], ["--demo"]])
def test_the_visible_devices_are_set_before_tensorflow_is_imported(run, tmp_path, demo_option):
    (tmp_path / "tensorflow.py").write_text(
        f"import os\nraise SystemExit('visible: ' + os.environ['{VISIBLE}'])\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != VISIBLE}
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    result = run("--set=gpu=7", *demo_option, env=environment)
    assert result.stderr == "visible: 7\n"


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


# Running jobs


class Sweep:
    """Three jobs, runs 0 to 2, below a folder; `run` runs them with training stubbed.

    Attributes:
        events: what the stubs were called for, in order: ("open", number of devices),
            ("check", run) and ("train", run).
    """

    def __init__(self, base, monkeypatch, **scheduler):
        self.base = base
        self.sweep = expand(NO_GAMMA, config_of({"run": range(3)}, scheduler=scheduler))
        root = results_folder(base, self.sweep.scheduler)
        self.names = [job.folder for job in self.sweep.jobs]
        self.folders = [RunFolder(root / name) for name in self.names]
        self._monkeypatch = monkeypatch
        self.events = []

    def run(self, behaviour=lambda run, stop_requested: None, check=lambda run: None):
        """`behaviour(run, stop_requested)` stands for the training of that run.

        `check(run)` stands for its check before any is trained.
        """

        def open_resources(options, device_count):
            assert options == "options"
            self.events.append(("open", device_count))
            return "resources"

        def check_one(variant, settings, resources):
            assert (variant, resources) == (NO_GAMMA, "resources")
            self.events.append(("check", settings.run))
            check(settings.run)

        def train(variant, settings, folder, resources, stop_requested):
            assert (variant, resources) == (NO_GAMMA, "resources")
            folder.start(settings, DATA, {})
            self.events.append(("train", settings.run))
            logging.getLogger("common.training").info("training run %d", settings.run)
            behaviour(settings.run, stop_requested)
            folder.finish()

        stubs = {"Resources": open_resources, "check_job": check_one, "train_job": train}
        for name, stub in stubs.items():
            # Refuses, as the real one would, arguments that do not fit its signature.
            checked = create_autospec(getattr(training, name), side_effect=stub)
            self._monkeypatch.setattr(jobs, name, checked)
        return jobs.run_all(NO_GAMMA, self.sweep, self.folders, self.base, "options")

    def begin(self, index, settings):
        """Leaves what an interrupted job of these settings leaves in the folder."""
        with self.folders[index].lock():
            self.folders[index].start(settings, DATA, {})

    @property
    def trained(self):
        return [run for event, run in self.events if event == "train"]

    @property
    def states(self):
        return [folder.state for folder in self.folders]

    @property
    def log(self):
        """The lines of scheduler.log without their times, and names as `<run>`."""
        text = (self.base / "scheduler.log").read_text()
        for index, name in enumerate(self.names):
            text = text.replace(name, f"<{index}>")
        time = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")
        assert all(time.match(line) for line in text.splitlines())
        return [time.sub("", line) for line in text.splitlines()]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    return Sweep(tmp_path, monkeypatch)


def fail_with(error, at):
    def behaviour(run, stop_requested=None):
        del stop_requested
        if run == at:
            raise error

    return behaviour


@pytest.fixture
def rerun(tmp_path, monkeypatch):
    """The sweep with `force_rerun`."""
    return Sweep(tmp_path, monkeypatch, force_rerun=True)


def test_all_jobs_are_checked_then_trained_in_order_and_logged_with_their_device(sweep):
    assert sweep.run() == 0
    assert sweep.events == [
        ("open", 1),
        *(("check", run) for run in range(3)),
        *(("train", run) for run in range(3)),
    ]
    assert sweep.states == ["done"] * 3
    assert sweep.log == [
        "INFO gpu0 receives task <0>",
        "INFO gpu0 finishes task <0>",
        "INFO gpu0 receives task <1>",
        "INFO gpu0 finishes task <1>",
        "INFO gpu0 receives task <2>",
        "INFO gpu0 finishes task <2>",
    ]


@pytest.mark.parametrize(
    ("gpu", "count", "name"),
    [
        (["0", "1"], 1, "gpu0"),
        (["12"], 1, "gpu12"),
        ([["3"], "1"], 1, "gpu3"),
        ([["0", "1"]], 2, "gpu0,1"),
        ([("4", "5", "6"), "0"], 3, "gpu4,5,6"),
    ],
)
def test_the_first_entry_of_gpu_is_opened_and_named(tmp_path, monkeypatch, gpu, count, name):
    sweep = Sweep(tmp_path, monkeypatch, gpu=gpu)
    sweep.run()
    assert [event for event in sweep.events if event[0] == "open"] == [("open", count)]
    assert sweep.log[0] == f"INFO {name} receives task <0>"


def test_done_jobs_are_skipped_and_unfinished_ones_go_on(sweep):
    for index in (0, 1):
        sweep.begin(index, sweep.sweep.jobs[index].settings)
    sweep.folders[0].finish()
    assert sweep.run() == 0
    assert sweep.events == [("open", 1), ("check", 1), ("check", 2), ("train", 1), ("train", 2)]
    assert sweep.log[:2] == ["INFO gpu0 skips task <0>: it is done", "INFO gpu0 receives task <1>"]


def test_nothing_is_opened_when_all_jobs_are_done(sweep):
    sweep.run()
    sweep.events.clear()
    assert sweep.run() == 0
    assert sweep.events == []
    assert sweep.log[-3:] == [f"INFO gpu0 skips task <{run}>: it is done" for run in range(3)]


@pytest.mark.parametrize("error", [UserError("no data"), ZeroDivisionError("oops")])
def test_a_failing_check_of_the_last_job_means_that_no_job_is_trained(sweep, error):
    with pytest.raises(type(error), match=str(error)):
        sweep.run(check=fail_with(error, at=2))
    assert sweep.events == [("open", 1), ("check", 0), ("check", 1), ("check", 2)]
    assert sweep.states == ["new"] * 3


def old_folders(sweep):
    """`{name: state}` of the folders that were set aside, the jobs named as `<run>`."""
    root = sweep.folders[0].path.parent
    return {
        f"<{run}>{path.name.removeprefix(name)}": RunFolder(path).state
        for run, name in enumerate(sweep.names)
        for path in root.glob(f"{name}.*")
    }


def test_a_forced_rerun_sets_the_old_folders_aside_and_starts_anew(rerun):
    rerun.begin(1, rerun.sweep.jobs[1].settings)
    assert rerun.run() == 0
    assert old_folders(rerun) == {"<1>.old1": "running"}
    assert rerun.run() == 0
    assert rerun.trained == [0, 1, 2, 0, 1, 2]
    assert rerun.states == ["done"] * 3
    assert old_folders(rerun) == {
        "<0>.old1": "done",
        "<1>.old1": "running",
        "<1>.old2": "done",
        "<2>.old1": "done",
    }
    assert "receives" in rerun.folders[0].log_path.read_text()


def test_a_forced_rerun_replaces_what_could_not_be_continued(rerun):
    rerun.folders[0].checkpoints.mkdir(parents=True)  # the original's: no record
    rerun.begin(1, rerun.sweep.jobs[2].settings)  # another configuration
    assert rerun.run() == 0
    assert rerun.states == ["done"] * 3
    assert rerun.folders[0].path.with_name(f"{rerun.names[0]}.old1").is_dir()


def test_a_forced_rerun_sets_nothing_aside_before_all_jobs_are_checked(rerun):
    rerun.run()
    with pytest.raises(UserError, match="no data"):
        rerun.run(check=fail_with(UserError("no data"), at=2))
    assert old_folders(rerun) == {}
    assert rerun.states == ["done"] * 3


def test_a_forced_rerun_that_ends_early_leaves_the_later_jobs_results_in_place(rerun):
    rerun.run()
    with pytest.raises(UserError, match="no space"):
        rerun.run(fail_with(UserError("no space"), at=1))
    assert rerun.states == ["done", "running", "done"]
    assert old_folders(rerun) == {"<0>.old1": "done", "<1>.old1": "done"}


def test_a_forced_rerun_leaves_a_job_that_another_process_runs(rerun):
    rerun.begin(0, rerun.sweep.jobs[0].settings)
    with rerun.folders[0].lock(), pytest.raises(UserError, match="another process"):
        rerun.run()
    assert (rerun.trained, rerun.states[0], old_folders(rerun)) == ([], "running", {})


def test_each_worker_log_has_its_own_runs_messages_and_is_appended_to(sweep):
    sweep.folders[0].path.mkdir(parents=True)
    sweep.folders[0].log_path.write_text("an earlier start\n")
    sweep.run()
    for run, folder in enumerate(sweep.folders):
        text = folder.log_path.read_text()
        assert re.findall(r"training run (\d)", text) == [str(run)]
        assert text.startswith("an earlier start\n") == (run == 0)
        assert f"gpu0 receives task {sweep.names[run]}" in text
        assert f"gpu0 finishes task {sweep.names[run]}" in text


@pytest.mark.parametrize("error", [DivergedError, InvalidSamplesError])
def test_a_diverging_job_does_not_stop_the_others_but_shows_in_the_status(sweep, error):
    assert sweep.run(fail_with(error("loss/g is not finite"), at=1)) == 3
    assert sweep.trained == [0, 1, 2]
    assert sweep.states == ["done", "running", "done"]
    assert sweep.log[3] == "ERROR gpu0 fails task <1>: loss/g is not finite"
    text = sweep.folders[1].log_path.read_text()
    assert "loss/g is not finite" in text
    assert "Traceback" not in text
    assert "not finite" not in sweep.folders[2].log_path.read_text()


def test_something_the_user_must_mend_stops_everything_and_is_logged(sweep):
    with pytest.raises(UserError, match="no data"):
        sweep.run(fail_with(UserError("no data"), at=1))
    assert sweep.trained == [0, 1]
    assert sweep.log[-1] == "ERROR gpu0 fails task <1>: no data"
    assert "Traceback" not in sweep.folders[1].log_path.read_text()


def test_a_defect_stops_everything_with_its_traceback_in_the_workers_log(sweep):
    with pytest.raises(ZeroDivisionError):
        sweep.run(fail_with(ZeroDivisionError("oops"), at=0))
    assert sweep.trained == [0]
    text = sweep.folders[0].log_path.read_text()
    assert "Traceback" in text
    assert "ZeroDivisionError: oops" in text
    assert "gpu0 fails task" in (sweep.base / "scheduler.log").read_text()


def test_a_folder_that_cannot_be_continued_is_found_before_any_training(sweep):
    sweep.folders[2].checkpoints.mkdir(parents=True)
    with pytest.raises(UserError, match=r"no run\.json"):
        sweep.run()
    assert sweep.events == []


def test_another_configuration_is_found_before_any_training(sweep):
    sweep.begin(2, sweep.sweep.jobs[1].settings)
    with pytest.raises(UserError, match="run: 1 -> 2"):
        sweep.run()
    assert sweep.events == []


def test_a_job_that_another_process_runs_is_not_touched(sweep):
    with sweep.folders[0].lock(), pytest.raises(UserError, match="another process"):
        sweep.run()
    assert sweep.trained == []
    assert sweep.states[0] == "new"


@pytest.fixture
def _signals():
    """Makes a signal that nobody handles fail the test, instead of ending the process."""

    def on_signal(number, frame):
        del frame
        pytest.fail(f"signal {number} was not handled")

    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(number, on_signal) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == [on_signal] * 2
    for number, handler in zip(numbers, previous, strict=True):
        signal.signal(number, handler)


def stop_at(number, at, *, checkpoint=True):
    """The training of run `at` receives a signal; then it stops, or was at its end anyway."""

    def behaviour(run, stop_requested):
        assert not stop_requested()
        if run == at:
            os.kill(os.getpid(), number)
            assert stop_requested()
            assert signal.getsignal(number) == signal.SIG_DFL  # the second one ends the process
            if checkpoint:
                raise InterruptedRunError("stopped after iteration 7")

    return behaviour


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_run_and_gives_status_75(sweep, number):
    assert sweep.run(stop_at(number, at=1)) == 75
    assert sweep.trained == [0, 1]
    assert sweep.states == ["done", "running", "new"]
    assert sweep.log[-1] == "INFO gpu0 stops task <1>: stopped after iteration 7"
    assert "stopped after iteration 7" in sweep.folders[1].log_path.read_text()
    assert sweep.run() == 0
    assert sweep.trained == [0, 1, 1, 2]


@pytest.mark.usefixtures("_signals")
def test_a_signal_in_a_jobs_last_iteration_starts_no_other_job(sweep):
    assert sweep.run(stop_at(signal.SIGTERM, at=1, checkpoint=False)) == 75
    assert sweep.trained == [0, 1]
    assert sweep.states == ["done", "done", "new"]


@pytest.mark.usefixtures("_signals")
def test_a_signal_in_the_last_jobs_last_iteration_leaves_nothing_to_do(sweep):
    assert sweep.run(stop_at(signal.SIGTERM, at=2, checkpoint=False)) == 0
    assert sweep.states == ["done"] * 3


def test_logging_is_as_before_afterwards(sweep, tmp_path, monkeypatch):
    root, scheduler = logging.getLogger(), logging.getLogger("scheduler")
    before = (root.level, list(root.handlers), list(scheduler.handlers))
    sweep.run()
    with pytest.raises(ZeroDivisionError):
        Sweep(tmp_path / "more", monkeypatch).run(fail_with(ZeroDivisionError(), at=0))
    assert (root.level, list(root.handlers), list(scheduler.handlers)) == before


# The demo


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_the_demo_trains_two_methods_on_the_digits(variant):
    config = demo.configuration(variant, {"scheduler_config": {"gpu": ["0"]}})
    first, second = (job.settings for job in expand(variant, config).jobs)
    scales = (1.0, 1.2) if variant in (NO_GAMMA, RESNET) else (None, None)
    assert [(s.sn_mode, s.scale) for s in (first, second)] == list(
        zip(("SN", "BSN"), scales, strict=True)
    )
    assert first.dataset == "digits"
    # Digits are 32x32; the networks' images are 8 and 32 times mg.
    assert first.mg * {"cnn": 8, "resnet": 32}[variant.network] == 32
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
