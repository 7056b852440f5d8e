"""Several hosts by `TF_CONFIG`, as worker processes on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from common.training import devices

SECONDS_TO_NOTICE = 60  # the README's figure


def free_ports(count):
    with_sockets = [socket.socket() for _ in range(count)]
    for s in with_sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in with_sockets]
    for s in with_sockets:
        s.close()
    return ports


def start(folder, tf_config=None, *options):
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, **({"TF_CONFIG": json.dumps(tf_config)} if tf_config else {})}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.worker_main", str(folder), *options],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_workers(folder, *options):
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    return [
        start(
            folder,
            {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}},
            *options,
        )
        for index in range(2)
    ]


def weights(folder):
    (run,) = (folder / "results").iterdir()
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(run / "checkpoint"))
    names = [n for n in reader.get_variable_to_shape_map() if n.startswith(("gen", "disc"))]
    return {name: reader.get_tensor(name) for name in names}


def test_two_workers_train_as_two_devices_and_leave_one_set_of_results(tmp_path):
    workers = start_workers(tmp_path / "workers")
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
    alone = start(tmp_path / "devices")
    _, errors = alone.communicate(timeout=300)
    assert alone.returncode == 0, errors
    ours, theirs = weights(tmp_path / "workers"), weights(tmp_path / "devices")
    assert ours.keys() == theirs.keys()
    assert len(ours) > 50
    for name, value in theirs.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    (run,) = (tmp_path / "workers" / "results").iterdir()
    assert json.loads((run / "run.json").read_text())["state"] == "done"
    assert (run / "time.txt").read_text().count("iter 0 starts") == 1
    assert (tmp_path / "workers" / "scheduler.log").read_text().count("receives task") == 1
    assert len(list((run / "checkpoint").glob("events*"))) == 1


def test_a_lost_worker_ends_the_others_with_a_clear_error(tmp_path):
    chief, other = start_workers(tmp_path / "run", "--set=iteration=100000")
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("run/results/*/checkpoint/model-*.index")):
        assert time.monotonic() < deadline
        assert chief.poll() is None
        time.sleep(0.2)
    other.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    _, errors = chief.communicate(timeout=SECONDS_TO_NOTICE + 30)
    assert time.monotonic() - killed < SECONDS_TO_NOTICE
    assert chief.returncode == 3, errors
    assert "another worker was lost" in errors
    assert "Traceback" not in errors
    other.communicate()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1e999}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0.5}}',
        '{"cluster": {"worker": [1]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        "[" * 100_000,
    ],
)
def test_an_unusable_tf_config_is_named(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG"):
        devices.is_chief()


def test_the_first_worker_is_the_chief_unless_there_is_one(monkeypatch):
    def chief(cluster, kind, index):
        config = {"cluster": cluster, "task": {"type": kind, "index": index}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        return devices.is_chief()

    workers = {"worker": ["a:1", "b:2"]}
    assert chief(workers, "worker", 0)
    assert not chief(workers, "worker", 1)
    assert not chief({"chief": ["c:3"], **workers}, "worker", 0)
    assert chief({"chief": ["c:3"], **workers}, "chief", 0)
    monkeypatch.delenv("TF_CONFIG")
    assert devices.is_chief()
