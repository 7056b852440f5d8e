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

import pytest

from common import demo, jobs
from common.command_line import main
from common.configuration.sweep import expand, results_folder
from common.errors import UserError
from common.metrics import InvalidSamplesError
from common.results.run_folder import RunFolder
from common.results.times import record_time
from common.training.errors import DivergedError, InterruptedRunError
from tests.configuration.variants import NO_GAMMA, RESNET, SAME_GAMMA, VARIANTS, config_of

VARIANT_FOLDER = Path(__file__).parents[1] / "no_gamma_cnn"
EVERY_OPTION = [
    "only",
    "set",
    "dry_run",
    "demo",
    "metrics",
    "feature_network",
    "inception_path",
    "cache_dir",
    "data_dir",
    "data_route",
    "help",
]
METRIC_COLUMNS = ("inception_score_mean", "inception_score_std", "fid")
DATA = {"dataset": "cifar10"}


# `python main.py`, without training


@pytest.fixture
def run(tmp_path):
    """Runs `python main.py` in the variant's folder, what it writes being in `tmp_path`."""

    def run_main(*arguments, python=(), stdout=subprocess.PIPE):
        places = [f"result_root_folder={tmp_path}", f"scheduler_log_file_path={tmp_path}/log"]
        # Should a mistake go unnoticed, the run must end for want of data, not begin a download.
        data = ["--data_route=archive", f"--data_dir={tmp_path}/data"]
        options = [*(f"--set={place}" for place in places), *data]
        command = [sys.executable, *python, "main.py", *options, *arguments]
        streams = {"stdout": stdout, "stderr": subprocess.PIPE, "text": True}
        return subprocess.run(command, cwd=VARIANT_FOLDER, check=False, timeout=100, **streams)

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
    record = {"format": 1, "settings": {}, "data": {}}
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
        (["--only", "dataset=nope"], ["--only dataset=nope"]),
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
    refused(run("--dry_run", b"--set=dataset=\xff"), "dataset-")


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
    assert list(tmp_path.iterdir()) == [folder]


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


def test_a_defect_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr("common.command_line.expand", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(NO_GAMMA, config_of(), tmp_path, ["main.py"])


def test_main_py_ends_with_the_status(tmp_path):
    for name in ("main.py", "config.py", "gan_task.py"):
        shutil.copy(VARIANT_FOLDER / name, tmp_path)
    command = [sys.executable, tmp_path / "main.py", "--dry_run"]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    config = (tmp_path / "config.py").read_text()
    (tmp_path / "config.py").write_text(config.replace('"gpu"', '"gpus"'))
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    refused(result, "scheduler_config key 'gpus'")


# Running jobs


class Sweep:
    """Three jobs, runs 0 to 2, below a folder; `run` runs them with training stubbed."""

    def __init__(self, base, monkeypatch, gpu=("0",)):
        self.base = base
        self.sweep = expand(NO_GAMMA, config_of({"run": range(3)}, scheduler={"gpu": list(gpu)}))
        root = results_folder(base, self.sweep.scheduler)
        self.names = [job.folder for job in self.sweep.jobs]
        self.folders = [RunFolder(root / name) for name in self.names]
        self._monkeypatch = monkeypatch
        self.trained = []

    def run(self, behaviour=lambda run, stop_requested: None):
        """`behaviour(run, stop_requested)` stands for the training of that run."""

        def train(variant, settings, folder, options, stop_requested):
            assert (variant, options) == (NO_GAMMA, "options")
            folder.start(settings, DATA, {})
            self.trained.append(settings.run)
            logging.getLogger("common.training").info("training run %d", settings.run)
            behaviour(settings.run, stop_requested)
            folder.finish()

        self._monkeypatch.setattr(jobs, "train_job", train)
        return jobs.run_all(NO_GAMMA, self.sweep, self.folders, self.base, "options")

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
    def behaviour(run, stop_requested):
        del stop_requested
        if run == at:
            raise error

    return behaviour


def test_all_jobs_are_trained_in_order_and_logged_with_their_device(sweep):
    assert sweep.run() == 0
    assert sweep.trained == [0, 1, 2]
    assert sweep.states == ["done"] * 3
    assert sweep.log == [
        "INFO gpu0 receives task <0>",
        "INFO gpu0 finishes task <0>",
        "INFO gpu0 receives task <1>",
        "INFO gpu0 finishes task <1>",
        "INFO gpu0 receives task <2>",
        "INFO gpu0 finishes task <2>",
    ]


def test_several_devices_are_named_together(tmp_path, monkeypatch):
    sweep = Sweep(tmp_path, monkeypatch, gpu=[["0", "1"]])
    sweep.run()
    assert sweep.log[0] == "INFO gpu0,1 receives task <0>"


def test_done_jobs_are_skipped_and_unfinished_ones_go_on(sweep):
    for index, settings in enumerate(job.settings for job in sweep.sweep.jobs[:2]):
        sweep.folders[index].path.mkdir(parents=True)
        sweep.folders[index].start(settings, DATA, {})
    sweep.folders[0].finish()
    assert sweep.run() == 0
    assert sweep.trained == [1, 2]
    assert sweep.log[:2] == ["INFO gpu0 skips task <0>: it is done", "INFO gpu0 receives task <1>"]
    assert sweep.run() == 0
    assert sweep.trained == [1, 2]


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
    assert sweep.trained == []
    assert not (sweep.base / "scheduler.log").exists()


def test_another_configuration_is_found_before_any_training(sweep):
    sweep.folders[2].path.mkdir(parents=True)
    sweep.folders[2].start(sweep.sweep.jobs[1].settings, DATA, {})
    with pytest.raises(UserError, match="run: 1 -> 2"):
        sweep.run()
    assert sweep.trained == []


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
