"""The process of a job: how it ends, and what it says then."""

import errno
import importlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

import common
from common.command_line import main
from common.configuration.settings import make_settings
from common.errors import UserError
from common.results.run_folder import RunFolder
from common.sweeps import worker
from common.sweeps.attempt import WORKER
from common.training import run
from common.training.errors import DivergedError, InterruptedRunError
from tests.configuration.variants import JOB, NO_GAMMA, config_of

SETTINGS = make_settings(NO_GAMMA, JOB)
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (UserError("mend it"), 2),
        (DivergedError("loss/g is not finite"), 3),
        (InterruptedRunError("stopped after iteration 7"), 75),
        (FULL, 74),  # the next start takes such a job up again
        (tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"), 74),
    ],
)
def test_how_a_job_ends_is_its_exit_status(tmp_path, monkeypatch, caplog, error, code):
    def train(*arguments):
        assert arguments[:2] == (SETTINGS, folder)
        if error:
            raise error

    folder = RunFolder(tmp_path / "run-0,")
    monkeypatch.setattr(run, "train_job", train)
    with caplog.at_level("INFO"):
        found = worker.train_one(SETTINGS, folder, "resources", lambda: False)
    assert found == (code, error)
    assert error is None or str(error) in caplog.messages[-1]


def test_a_job_that_is_stopped_before_it_begins_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "train_job", lambda *_: pytest.fail("trained"))
    folder = RunFolder(tmp_path)
    code, _ = worker.train_one(SETTINGS, folder, "resources", lambda: True)
    assert code == 75


def test_a_defect_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "train_job", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        worker.train_one(SETTINGS, RunFolder(tmp_path), "resources", lambda: False)


STOP = """
import os, signal, sys
from common.sweeps.worker import stop_on_signals

requested = stop_on_signals(second_kills=sys.argv[1] == "yes")
assert not requested()
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
    os.kill(os.getpid(), number)
    assert requested()
"""


@pytest.mark.parametrize(("second_kills", "code"), [("yes", -signal.SIGINT), ("no", 0)])
def test_a_schedulers_child_bears_several_signals(second_kills, code):
    command = [sys.executable, "-c", STOP, second_kills]
    assert subprocess.run(command, check=False, timeout=60).returncode == code


def test_a_child_whose_parent_is_gone_ends_at_once(tmp_path):
    message = {"action": "train", "parent": os.getppid(), "folder": str(tmp_path / "run")}
    result = subprocess.run(
        WORKER, input=json.dumps(message).encode(), check=False, timeout=60, capture_output=True
    )
    assert result.returncode == 75, result.stderr
    assert not (tmp_path / "run").exists()


def test_modules_of_the_current_folder_do_not_stand_in_for_pythons_or_ours(tmp_path):
    (tmp_path / "common").mkdir()
    for path in ("common/__init__.py", "json.py"):
        (tmp_path / path).write_text("raise SystemExit(9)")
    root = str(Path(common.__file__).parents[1])
    result = subprocess.run(
        WORKER,
        input=json.dumps({"action": "train", "parent": os.getppid()}).encode(),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        check=False,
        timeout=60,
        capture_output=True,
    )
    assert result.returncode == 75, result.stderr  # which it ends with as its parent is gone


def test_users_modules_are_found_in_the_folders_of_the_message_after_all_others(
    tmp_path, monkeypatch
):
    for module in ("losses_of_a_user", "json"):
        (tmp_path / f"{module}.py").write_text("NAME = 'mine'")
    message = {"action": "check", "parent": os.getpid(), "search": [str(tmp_path)]}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(message)))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "json")
    monkeypatch.setattr(worker, "die_with", lambda parent: None)

    def check(received):
        assert received == message
        assert importlib.import_module("losses_of_a_user").NAME == "mine"
        assert not hasattr(importlib.import_module("json"), "NAME")
        return 7

    monkeypatch.setattr(worker, "_check", check)
    assert worker.main() == 7


def test_a_message_without_folders_adds_none(monkeypatch):
    message = {"action": "check", "parent": 0}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(message)))
    monkeypatch.setattr(worker, "die_with", lambda parent: None)
    monkeypatch.setattr(worker, "_check", lambda *_: 0)
    before = list(sys.path)
    assert worker.main() == 0
    assert sys.path == before


def test_the_check_says_which_number_of_devices_does_not_fit(tmp_path, capfd):
    """Three entries of `gpu`, of which one cannot share the batch equally."""
    config = config_of(
        {"dataset": ["digits"]}, scheduler={"gpu": ["0", ["1", "2"], ["3", "4", "5"]]}
    )
    assert main(NO_GAMMA, config, tmp_path, ["main.py", "--metrics=none"]) == 2
    assert "error: batch_size=64 cannot be split equally among 3 devices" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
