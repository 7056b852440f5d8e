"""From a job's settings to its training: data, networks, metrics, in that order of checks."""

import logging
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import keras
import tensorflow as tf

from common.data import open_source
from common.errors import UserError
from common.metrics import Evaluator, open_network
from common.networks import NETWORKS, Normalization
from common.training.batches import BatchPipeline
from common.training.randomness import derive_seed
from common.training.step import Optimizers, TrainingStep
from common.training.trainer import Trainer

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """What the command line says besides the configuration; none of it changes the training.

    Attributes:
        data_dir: folder of the data sets.
        data_route: "auto", or a data set's route (`common.data`).
        metrics: names of the metrics, empty for none.
        feature_network: the network they use; None for the data set's own.
        inception_path: the Inception graph's archive or `.pb`; None for the cache or download.
        cache_dir: root of the cache; None for Keras' own.
    """

    data_dir: Path
    data_route: str = "auto"
    metrics: tuple[str, ...] = ("is", "fid")
    feature_network: str | None = None
    inception_path: str | None = None
    cache_dir: str | None = None


def train_job(variant, settings, folder, options, stop_requested=lambda: False):
    """Trains a job to its end, in its folder, going on from its last checkpoint.

    Args:
        variant: the `Variant`.
        settings: the job's `Settings`.
        folder: its `RunFolder`, locked by the caller.
        options: the `RunOptions`.
        stop_requested: see `Trainer.train`.

    Raises:
        UserError: data, metrics or folder are not as needed; before any training.
        InterruptedRunError, DivergedError: see `Trainer.train`.
    """
    keras.backend.clear_session()
    # TensorFlow's remapper fuses layers for inference; on training graphs it finds nothing to fuse
    # and, as of 2.21, fails with an error on some of them.
    tf.config.optimizer.set_experimental_options({"remapping": False})
    folder.check(settings)
    root_seed = derive_seed(settings.seed, settings.run)
    source = open_source(
        settings.dataset, options.data_dir, options.data_route, settings.expected_images
    )
    _check_image_size(variant, settings, source)
    evaluator = _open_evaluator(settings, options, source, root_seed)
    folder.start(settings, source.record, describe_environment())
    strategy = tf.distribute.get_strategy()
    with strategy.scope():
        step = build_step(variant, settings, root_seed)
    trainer = Trainer(
        settings,
        folder,
        strategy=strategy,
        step=step,
        pipeline=BatchPipeline(source, settings, root_seed),
        root_seed=root_seed,
        evaluator=evaluator,
    )
    trainer.train(stop_requested)
    folder.finish()


def build_step(variant, settings, root_seed):
    """Networks, optimisers and losses of a job, with their initial values: a `TrainingStep`."""
    networks = NETWORKS[variant.network]
    normalization = Normalization(settings.sn_mode, settings.scale or 1.0, variant.gamma)
    size = {"mg": settings.mg, "width": settings.width, "seed": root_seed}
    return TrainingStep(
        variant,
        networks.build_generator(latent_dim=settings.latent_dim, **size),
        networks.build_discriminator(normalization=normalization, **size),
        Optimizers.adam(settings),
        settings.d_gp_coe,
    )


def _check_image_size(variant, settings, source):
    size = NETWORKS[variant.network].IMAGE_SIZE_PER_MG * settings.mg
    if tuple(source.image_shape) != (size, size, 3):
        raise UserError(
            f"mg={settings.mg} gives images of {size}x{size}, and {settings.dataset} has images of "
            f"shape {tuple(source.image_shape)}: set mg to match."
        )


def _open_evaluator(settings, options, source, root_seed):
    if not options.metrics:
        return None
    default = "digits" if settings.dataset == "digits" else "inception"
    network = open_network(
        options.feature_network or default,
        inception_path=options.inception_path,
        cache_dir=options.cache_dir,
    )
    evaluator = Evaluator(
        network,
        source,
        run_seed=root_seed,
        is_samples=settings.is_samples,
        fid_samples=settings.fid_samples,
        fid_real=settings.fid_real,
        cache_dir=options.cache_dir,
        metrics=options.metrics,
    )
    evaluator.prepare()
    return evaluator


def describe_environment():
    """Versions and devices, for a run's record: a JSON-able dictionary."""
    packages = ("tensorflow", "keras", "numpy")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "devices": [device.name for device in tf.config.list_logical_devices()],
    }
