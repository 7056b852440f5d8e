"""Signals, full disks and kills, on the scripts as processes of their own."""

import contextlib
import os
import resource
import signal
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.preparation.archives import (
    celeba_name,
    encode,
    photograph,
    write_celeba,
    write_imagenet,
    write_stl10,
)
from tests.preparation.conftest import ROOT

COUNTS = {"CelebA": 4000, "ImageNet": 1500, "STL10": 4000}
OUTPUTS = {"CelebA": "celeba.npy", "ImageNet": "ILSVRC2012", "STL10": "stl10.npy"}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Archives that take about a second or more."""
    folder = tmp_path_factory.mktemp("archives")
    face, large = encode(photograph(0, 218, 178)), encode(photograph(1, 500, 375))
    write_celeba(folder / "CelebA", {celeba_name(n): face for n in range(1, 1 + COUNTS["CelebA"])})
    names = {f"n1_{n}.JPEG": large for n in range(COUNTS["ImageNet"])}
    write_imagenet(folder / "ImageNet", {"n1": names})
    planes = np.stack([photograph(n, 96, 96) for n in range(50)]).transpose(0, 3, 2, 1)
    write_stl10(folder / "STL10", np.tile(planes, (COUNTS["STL10"] // 50, 1, 1, 1)))
    return folder


@pytest.fixture
def start_on(start, archives, tmp_path):
    """Returns a function that starts a script on its archive; the output goes to `tmp_path`."""

    def start_on(name, *options, **environment):
        expected = [f"--expected_images={COUNTS[name]}"]
        if name == "ImageNet":
            expected.append("--expected_classes=1")
        output = f"--output={tmp_path / OUTPUTS[name]}"
        return start(
            name, archives / name, "--workers=2", output, *expected, *options, **environment
        )

    return start_on


@pytest.fixture
def started(start_on, tmp_path):
    """Returns a function that starts a script and waits until it is at work."""

    def started(name):
        output = tmp_path / OUTPUTS[name]
        process = start_on(name)
        family = psutil.Process(process.pid)
        while process.poll() is None:
            part = output.with_name(output.name + ".part")
            folder = output.with_name(output.name + ".partial") / "n1"
            if part.is_file() and part.stat().st_size > 128:
                break
            if folder.is_dir() and any(folder.iterdir()):
                break
            time.sleep(0.005)
        assert process.poll() is None, process.communicate()
        return process, family.children(recursive=True)

    return started


def peak_memory(process):
    """Waits for a script; returns its and its children's largest resident memory, in bytes."""
    family, largest = psutil.Process(process.pid), 0
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            members = [family, *family.children(recursive=True)]
            largest = max(largest, sum(each.memory_info().rss for each in members))
        time.sleep(0.02)
    _, error = process.communicate()
    assert process.returncode == 0, error
    return largest


def gone(processes):
    return not psutil.wait_procs(processes, timeout=20)[1]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(tmp_path, started, name, number):
    process, children = started(name)
    if number == signal.SIGINT:  # as a terminal does: to all
        for child in children:
            child.send_signal(number)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 75
    assert error.splitlines()[-1].startswith(f"stopped: {tmp_path}/{OUTPUTS[name]} was not made")
    assert "Traceback" not in error
    assert gone(children)
    if name != "ImageNet":
        assert list(tmp_path.iterdir()) == []
        return
    partial = tmp_path / "ILSVRC2012.partial"
    made = {path.name: path.stat().st_mtime_ns for path in (partial / "n1").iterdir()}
    assert 0 < len(made) < COUNTS[name]
    process, _ = started(name)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert os.listdir(tmp_path) == ["ILSVRC2012"]
    paths = {path.name: path for path in (tmp_path / "ILSVRC2012" / "n1").iterdir()}
    assert len(paths) == COUNTS[name]
    again = [name for name, time in made.items() if paths[name].stat().st_mtime_ns != time]
    assert again == []


def test_killed(tmp_path, started):
    """Workers do not outlive the process that feeds them; a restart is clean."""
    process, children = started("CelebA")
    process.kill()
    process.communicate(timeout=60)
    assert gone(children)
    assert os.listdir(tmp_path) == ["celeba.npy.part"]
    process, _ = started("CelebA")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert os.listdir(tmp_path) == ["celeba.npy"]
    assert np.load(tmp_path / "celeba.npy", mmap_mode="r").shape == (COUNTS["CelebA"], 64, 64, 3)


def test_killed_worker(tmp_path, started):
    process, children = started("CelebA")
    next(child for child in children if "spawn_main" in " ".join(child.cmdline())).kill()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "a worker process was killed" in error.splitlines()[-1]
    assert gone(children)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", COUNTS)
def test_only_one_at_a_time(started, start_on, name):
    process, _ = started(name)
    process.send_signal(signal.SIGSTOP)
    other = start_on(name)
    _, error = other.communicate(timeout=60)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert other.returncode == 2
    assert "another process writes" in error
    assert process.returncode == 75


@pytest.mark.parametrize("name", COUNTS)
def test_no_space_left(tmp_path, start_on, name):
    """The kernel refuses to let a file grow beyond 20 kB, as if the disk were full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        process = start_on(name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    [line] = [line for line in error.splitlines() if "error: " in line]
    member = {"STL10": "unlabeled_X.bin", "CelebA": ".jpg", "ImageNet": ".JPEG"}[name]
    for words in ("File too large", "cannot be written", str(tmp_path), member):
        assert words in line
    assert not (tmp_path / OUTPUTS[name]).exists()


@pytest.mark.parametrize("name", COUNTS)
def test_memory(start_on, name):
    """Of all processes together, counting shared pages for each."""
    assert 2**24 < peak_memory(start_on(name)) < 500 * 10**6


def test_memory_of_huge_images(tmp_path, start):
    """Workers decode such images one at a time, without further copies."""
    huge = encode(Image.new("RGB", (9331, 6530), (200, 100, 50)))  # as ImageNet's largest
    small = encode(Image.new("RGB", (128, 128)))
    # Two tasks of 32 images, which start at the same time with some huge ones.
    files = {f"n1_{n}.JPEG": huge if n % 32 < 3 else small for n in range(64)}
    write_imagenet(tmp_path / "tar", {"n1": files})
    process = start("ImageNet", tmp_path / "tar", "--workers=2", "--expected_images=64",
                    "--expected_classes=1", f"--output={tmp_path}/out")  # fmt: skip
    assert 2**24 < peak_memory(process) < 500 * 10**6


def test_tensorflow_is_not_loaded(tmp_path, start_on):
    for name in ("tensorflow", "keras"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    process = start_on("STL10", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
