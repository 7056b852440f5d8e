"""`python -m tests.benchmarks.preprocess`: the preparation against a loop over OpenCV.

Both prepare the same generated archive, by turns, in processes of their own. Every data set gives
one line of JSON: images per second of both (the medians over the rounds), the ratio, the
processor time that either takes for an image (which says more than the rates where others use the
machine), and the largest resident memory, with all child processes, of ours in MB (pages that
processes share count for each).
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from tests.preparation.archives import (
    STL10_MEMBER,
    celeba_name,
    encode,
    photograph,
    write_celeba,
    write_imagenet,
    write_stl10,
)

ROOT = Path(__file__).parents[2]
DISTINCT = 200  # images made; the archives repeat them


def generate_stl10(path: Path, count: int) -> None:
    """Images whose stream is packed to about 0.9 of its size, as the genuine one's."""
    distinct = [np.asarray(photograph(n, 96, 96, 2)).T for n in range(min(DISTINCT, count))]
    planes = np.stack(distinct)[np.arange(count) % len(distinct)]
    write_stl10(path, planes, 6, test_X=planes[: count // 12].tobytes())


def generate_celeba(path: Path, count: int) -> None:
    """178x218 JPEGs of some 9 kB."""
    files = [encode(photograph(n, 218, 178, 4), quality=85) for n in range(min(DISTINCT, count))]
    write_celeba(path, {celeba_name(n + 1): files[n % len(files)] for n in range(count)})


def generate_imagenet(path: Path, count: int) -> None:
    """500x375 and 375x500 JPEGs of some 100 kB, in 10 classes."""
    shapes = ((375, 500), (375, 500), (375, 500), (500, 375))
    numbers = range(min(DISTINCT, count))
    files = [encode(photograph(n, *shapes[n % 4], 12), quality=93) for n in numbers]
    classes = {f"n{number:08}": {} for number in range(10)}
    for n in range(count):
        name = f"n{n % 10:08}"
        classes[name][f"{name}_{n}.JPEG"] = files[n % len(files)]
    write_imagenet(path, classes)


def opencv_stl10(archive: Path, output: Path) -> None:
    """The whole file at once, then image by image."""
    import cv2  # noqa: PLC0415

    with tarfile.open(archive) as tar:
        data = tar.extractfile(STL10_MEMBER).read()
    images = np.frombuffer(data, np.uint8).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    made = [cv2.resize(image, (48, 48), interpolation=cv2.INTER_LINEAR) for image in images]
    np.save(output, np.array(made))


def opencv_celeba(archive: Path, output: Path) -> None:
    """Image by image."""
    import cv2  # noqa: PLC0415

    made = []
    with zipfile.ZipFile(archive) as zip_file:
        for name in sorted(name for name in zip_file.namelist() if name.endswith(".jpg")):
            image = cv2.imdecode(np.frombuffer(zip_file.read(name), np.uint8), cv2.IMREAD_COLOR)
            top, left = (image.shape[0] - 128) // 2, (image.shape[1] - 128) // 2
            crop = image[top : top + 128, left : left + 128]
            small = cv2.resize(crop, (64, 64), interpolation=cv2.INTER_LINEAR)
            made.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
    np.save(output, np.array(made))


def opencv_imagenet(archive: Path, output: Path) -> None:
    """Image by image, from the archives within the archive."""
    import cv2  # noqa: PLC0415

    with tarfile.open(archive) as outer:
        for entry in outer:
            folder = output / Path(entry.name).stem
            folder.mkdir(parents=True)
            with tarfile.open(fileobj=outer.extractfile(entry)) as inner:
                for member in inner:
                    data = np.frombuffer(inner.extractfile(member).read(), np.uint8)
                    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
                    side = min(image.shape[:2])
                    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
                    crop = image[top : top + side, left : left + side]
                    small = cv2.resize(crop, (128, 128), interpolation=cv2.INTER_LINEAR)
                    rgb = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
                    np.save(folder / f"{Path(member.name).stem}.npy", rgb)


BENCHMARKS = {  # folder: (makes the archive, images, the loop, further options of ours)
    "STL10": (generate_stl10, 40_000, opencv_stl10, []),
    "CelebA": (generate_celeba, 100_000, opencv_celeba, []),
    "ImageNet": (generate_imagenet, 36_000, opencv_imagenet, ["--expected_classes=10"]),
}


class Cost(NamedTuple):
    """What a command took, with its child processes: seconds, processor seconds, and MB at most."""

    seconds: float
    processor: float
    memory: float


def run(command: list[str]) -> Cost:
    """Runs a command to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    os.sync()  # lest this one wait for the disk to store what others wrote
    start, largest, used = time.perf_counter(), 0, _processor_time()
    process = psutil.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [process, *process.children(recursive=True)]
            largest = max(largest, sum(each.memory_info().rss for each in family))
        with contextlib.suppress(psutil.TimeoutExpired):
            # Later on seldom enough to leave ours the cores.
            process.wait(min(0.5, 0.02 + (time.perf_counter() - start) / 10))
    if process.returncode:
        raise SystemExit(process.stderr.read().decode())
    return Cost(time.perf_counter() - start, _processor_time() - used, largest / 2**20)


def _processor_time() -> float:
    """Returns the seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def check_same(ours: Path, theirs: Path) -> None:
    """Raises a ValueError unless two outputs have the same images."""
    files = sorted(ours.glob("*/*.npy")) if ours.is_dir() else [ours]
    if ours.is_dir() and len(files) != len(list(theirs.glob("*/*.npy"))):
        raise ValueError(f"{ours} and {theirs} have not as many files")
    for file in files:
        if not np.array_equal(np.load(file), np.load(theirs / file.relative_to(ours))):
            raise ValueError(f"{file} differs from that in {theirs}")


def measure(name: str, folder: Path, scale: float, rounds: int) -> dict:
    """Measures one data set; returns what is printed."""
    generate, count, _, more = BENCHMARKS[name]
    count = int(count * scale)
    archive = folder / name
    generate(archive, count)
    script = ROOT / "dataset_preprocess" / name / "preprocess.py"
    ours = [sys.executable, str(script), f"--input={archive}", f"--expected_images={count}", *more]
    theirs = [sys.executable, "-m", "tests.benchmarks.preprocess", f"--loop={name}", str(archive)]
    costs = {"ours": [], "opencv": []}
    for number in range(rounds):
        output, other = folder / f"{number}.npy", folder / f"{number}.opencv.npy"
        costs["ours"].append(run([*ours, f"--output={output}"]))
        costs["opencv"].append(run([*theirs, str(other)]))
        check_same(output, other)

    def median(which: str, field: str) -> float:
        return statistics.median(getattr(cost, field) for cost in costs[which])

    return {
        "data_set": name,
        "images": count,
        "archive_mb": round(archive.stat().st_size / 1e6, 1),
        "images_per_second": round(count / median("ours", "seconds")),
        "opencv_images_per_second": round(count / median("opencv", "seconds")),
        "ratio": round(median("opencv", "seconds") / median("ours", "seconds"), 2),
        "processor_ms": round(1000 * median("ours", "processor") / count, 3),
        "opencv_processor_ms": round(1000 * median("opencv", "processor") / count, 3),
        "peak_memory_mb": round(max(cost.memory for cost in costs["ours"])),
        "cores": len(os.sched_getaffinity(0)),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BENCHMARKS, help="one data set; by default all")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the archives")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run")
    parser.add_argument("--loop", choices=BENCHMARKS, help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        BENCHMARKS[options.loop][2](*options.paths)
        return
    for name in [options.only] if options.only else BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(name, Path(folder), options.scale, options.rounds)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
