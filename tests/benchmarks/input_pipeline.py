"""What an iteration's batches cost, on files of the real formats made for the purpose.

    python -m tests.benchmarks.input_pipeline --dataset celeba

One JSON line: seconds, and CPU seconds of all threads, to make the batches of one iteration (real
images read at random places, latents, mixing factors), with nothing else running. While training,
they are made beside the step; `tests.benchmarks.train_step` gives the time to compare with.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from common.configuration.settings import make_settings
from common.data import DATASETS, open_source
from common.training.batches import BatchPipeline
from tests.benchmarks.measuring import print_line, spread
from tests.training.small import VARIANTS, values_of

_MG = {"stl10": 6, "celeba": 8, "imagenet": 4}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=sorted(_MG), default="celeba")
    parser.add_argument("--images", type=int, default=10_000, help="in the file that is made")
    parser.add_argument("--steps", type=int, default=50, help="number of timed iterations")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _write(arguments.dataset, Path(folder), arguments.images)
        source = open_source(
            arguments.dataset,
            Path(folder),
            "npy",
            expected_images=arguments.images,
            expected_classes=1 if arguments.dataset == "imagenet" else None,
        )
        variant = VARIANTS["no_gamma_resnet" if arguments.dataset == "imagenet" else "no_gamma_cnn"]
        _measure(variant, source, arguments)


def _write(name, root, count):
    dataset = DATASETS[name]
    path = root / dataset.place.folder / dataset.place.files[0]
    rng = np.random.default_rng(0)
    if not dataset.place.is_folder:
        path.parent.mkdir(parents=True)
        np.save(path, rng.integers(0, 256, (count, *dataset.image_shape), np.uint8))
        return
    (path / "n00000001").mkdir(parents=True)
    for index in range(count):
        image = rng.integers(0, 256, dataset.image_shape, np.uint8)
        np.save(path / "n00000001" / f"n00000001_{index}.npy", image)


def _measure(variant, source, arguments):
    is_cnn = variant.network == "cnn"
    changes = {"n_dis": 1, "batch_size": 64} if is_cnn else {"n_dis": 5, "d_batch_size": 16}
    values = {"mg": _MG[arguments.dataset], "latent_dim": 128, "g_batch_size": 32, **changes}
    settings = make_settings(variant, values_of(variant, dataset=arguments.dataset, **values))
    pipeline = BatchPipeline(source, settings, root_seed=0)
    batches = iter(pipeline.discriminator_batches(0))
    latents = iter(pipeline.generator_latents(0)) if variant.redraw_latents else None

    def draw():
        for _ in range(settings.n_dis):
            next(batches)
        if latents is not None:
            next(latents)

    for _ in range(3):
        draw()
    seconds, cpu_seconds = [], []
    for _ in range(arguments.steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        draw()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    print_line(
        variant=variant.name,
        dataset=arguments.dataset,
        images=arguments.images,
        n_dis=settings.n_dis,
        seconds_per_iteration=spread(seconds),
        mean_cpu_seconds_per_iteration=sum(cpu_seconds) / len(cpu_seconds),
    )


if __name__ == "__main__":
    main()
