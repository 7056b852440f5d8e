"""From a job's settings to its training: data, networks, metrics, in that order of checks."""

import dataclasses
import functools
import logging
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import keras
import tensorflow as tf

from common.data import open_source
from common.errors import UserError
from common.metrics import PROTOCOLS, open_network
from common.metrics.evaluation import IMAGES_PER_DEVICE, Evaluator
from common.networks import NETWORKS, Normalization
from common.randomness import derive_seed
from common.training.batches import BatchPipeline
from common.training.devices import (
    is_chief,
    is_one_of_several_workers,
    on_all_replicas,
    open_strategy,
)
from common.training.start_up import StartUp
from common.training.step import Optimizers, TrainingStep
from common.training.trainer import Trainer
from common.variant import Variant

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """What the command line says besides the configuration; none of it changes the training.

    Attributes:
        data_dir: folder of the data sets.
        data_route: "auto", or a data set's route (`common.data`).
        metrics: names of the metrics, empty for none.
        feature_network: the network they use; None for the data set's own.
        inception_path: the Inception graph's archive, `.pb` or `.pth`; None for the cache or
            download.
        inception_sha256: its expected SHA-256; None for what it was when it was first used.
        cache_dir: root of the cache; None for Keras' own.
        strict_metrics: whether metrics that fail end the training.
    """

    data_dir: Path
    data_route: str = "auto"
    metrics: tuple[str, ...] = ("is", "fid")
    feature_network: str | None = None
    inception_path: str | None = None
    inception_sha256: str | None = None
    cache_dir: str | None = None
    strict_metrics: bool = False


class Resources:
    """What jobs share: devices, data sets and the feature network, each opened once.

    Args:
        options: the `RunOptions`.
        devices: number of devices that a job trains on.

    Raises:
        UserError: there are not as many devices.
    """

    def __init__(self, options, devices=1):
        self.options = options
        self.strategy = open_strategy(devices)
        self._sources = {}
        self._networks = {}

    def source(self, settings):
        """The images that a job trains on, an `ImageSource`.

        Raises:
            UserError: they are missing or not as expected.
        """
        key = settings.dataset, settings.expected_images, settings.expected_classes
        if key not in self._sources:
            self._sources[key] = open_source(
                settings.dataset,
                self.options.data_dir,
                self.options.data_route,
                expected_images=settings.expected_images,
                expected_classes=settings.expected_classes,
            )
        return self._sources[key]

    def feature_network(self, settings):
        """The network behind a job's metrics, or None for a job without.

        Raises:
            UserError: it is missing or unusable.
        """
        if not self.options.metrics:
            return None
        default = "digits" if settings.dataset == "digits" else "inception"
        name = self.options.feature_network or default
        if name not in self._networks:
            self._networks[name] = open_network(
                name,
                inception_path=self.options.inception_path,
                inception_sha256=self.options.inception_sha256,
                cache_dir=self.options.cache_dir,
            )
        return self._networks[name]

    def evaluator(self, settings, root_seed):
        """The `Evaluator` of a job, the real images' statistics being ready, or None."""
        network = self.feature_network(settings)
        if network is None or not is_chief():
            return None
        protocol = dataclasses.replace(
            PROTOCOLS["bsn"],
            is_samples=settings.is_samples,
            fid_samples=settings.fid_samples,
            real_images=settings.fid_real,
        )
        evaluator = Evaluator(
            network,
            protocol,
            self.options.metrics,
            self.source(settings),
            seed=root_seed,
            with_replacement=settings.dataset == "imagenet",
            batch_size=IMAGES_PER_DEVICE * self._devices_at_hand(),
            is_cached=True,
            cache_dir=self.options.cache_dir,
            spread=functools.partial(on_all_replicas, self.strategy),
        )
        evaluator.prepare()
        return evaluator

    def _devices_at_hand(self):
        return 1 if is_one_of_several_workers() else self.strategy.num_replicas_in_sync


def check_devices(count):
    """Finds that there are fewer GPUs than the configuration names, but some.

    Raises:
        UserError: there are.
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    if 0 < gpus < count:
        raise UserError(
            f"the configuration's `gpu` names {count} devices and TensorFlow sees {gpus}: correct "
            "the ids in config.py, or say --set gpu=0."
        )


def check_job(variant, settings, resources, replicas):
    """Finds what would keep a job from starting, before any job is trained.

    Args:
        variant: the `Variant`.
        settings: the job's `Settings`.
        resources: the `Resources`.
        replicas: how many devices it is to be trained on.

    Raises:
        UserError: data or network are missing, or the configuration does not fit them.
    """
    source = resources.source(settings)
    unit = NETWORKS[variant.network].IMAGE_SIZE_PER_MG
    size = unit * settings.mg
    if tuple(source.image_shape) != (size, size, 3):
        fitting = source.image_shape[0] // unit
        raise UserError(
            f"mg={settings.mg} gives images of {size}x{size}, and {settings.dataset} has images of "
            f"shape {tuple(source.image_shape)}: say --set mg={fitting} or --only mg={fitting}."
        )
    for name in ("batch_size", "d_batch_size", "g_batch_size"):
        batch = getattr(settings, name)
        if batch is not None and batch % replicas:
            raise UserError(f"{name}={batch} cannot be split equally among {replicas} devices.")
    if settings.jit_compile and replicas > 1:
        raise UserError(f"jit_compile=True is for one device, and the job has {replicas}.")
    if settings.num_gpus not in (None, replicas):
        raise UserError(
            f"num_gpus={settings.num_gpus}, and the job's entry of `gpu` in config.py names "
            f"{replicas} device(s): make them agree."
        )
    resources.feature_network(settings)


def train_job(variant, settings, folder, resources, stop_requested=lambda: False):
    """Trains a job to its end, in its folder, going on from its last checkpoint.

    Args:
        variant: the `Variant`.
        settings: the job's `Settings`, checked.
        folder: its `RunFolder`, locked by the caller.
        resources: the `Resources`.
        stop_requested: see `Trainer.train`.

    Raises:
        UserError: data, metrics or folder are not as needed; before any training.
        InterruptedRunError, DivergedError: see `Trainer.train`.
    """
    start_up = StartUp()
    keras.backend.clear_session()
    set_precision(settings.precision)
    root_seed = derive_seed(settings.seed, settings.run)
    source = resources.source(settings)
    start_up.lap("data")
    evaluator = resources.evaluator(settings, root_seed)
    start_up.lap("metrics")
    conditions = {
        "data": source.record,
        "metrics": describe_metrics(evaluator),
        "replicas": resources.strategy.num_replicas_in_sync,
    }
    folder.start(settings, conditions, describe_environment())
    with resources.strategy.scope():
        step = build_step(variant, settings, root_seed)
    start_up.lap("networks")
    trainer = Trainer(
        settings,
        folder,
        strategy=resources.strategy,
        step=step,
        pipeline=BatchPipeline(source, settings, root_seed),
        root_seed=root_seed,
        evaluator=evaluator,
        strict_metrics=resources.options.strict_metrics,
        start_up=start_up,
    )
    trainer.train(stop_requested)
    folder.finish()


def set_precision(policy):
    """Makes Keras build by a dtype policy: "float32", "float64" or a mixed one."""
    # The default policy, once it was asked for, does not follow floatx.
    keras.config.set_floatx("float64" if policy == "float64" else "float32")
    keras.config.set_dtype_policy(policy)


def build_step(variant, settings, root_seed):
    """Networks, optimisers and losses of a job, with their initial values: a `TrainingStep`."""
    generator, discriminator = build_networks(settings, root_seed, variant)
    return TrainingStep(
        variant, generator, discriminator, Optimizers.adam(settings), settings.d_gp_coe
    )


def build_networks(settings, root_seed, variant=None):
    """`(generator, discriminator)` of a job, with their initial values.

    Args:
        settings: the job's `Settings`.
        root_seed: the run's.
        variant: the `Variant`; None for the first of `recorded_variants`.
    """
    variant = variant or recorded_variants(settings)[0]
    networks = NETWORKS[variant.network]
    normalization = Normalization(settings.sn_mode, settings.scale or 1.0, variant.gamma)
    size = {"mg": settings.mg, "width": settings.width, "seed": root_seed}
    return (
        networks.build_generator(latent_dim=settings.latent_dim, **size),
        networks.build_discriminator(normalization=normalization, **size),
    )


def recorded_variants(settings):
    """What a run may be of whose record says no more than its settings: a list of `Variant`.

    They have the same generator. Where there are several, the names of the variables in a
    checkpoint tell which it is.
    """
    # The ResNet alone has batch sizes of its own for each network, no scale where there are gammas,
    # and a penalty's factor where there is one.
    network = "cnn" if settings.d_batch_size is None else "resnet"
    loss = "hinge" if settings.d_gp_coe is None else "wgan_gp"
    gammas = ("none",) if settings.scale is not None else ("shared", "per_layer")
    return [Variant("recorded", network, loss, gamma) for gamma in gammas]


def describe_metrics(evaluator):
    """What a run's metrics depend on besides its settings: a JSON-able dictionary, or None."""
    return None if evaluator is None else evaluator.conditions


def describe_environment():
    """What last digits may depend on beside the conditions: a JSON-able dictionary."""
    packages = ("tensorflow", "keras", "numpy", "scipy")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "cores": len(os.sched_getaffinity(0)),
    }
