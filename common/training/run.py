"""From a job's settings to its training: data, networks, metrics, in that order of checks."""

import dataclasses
import functools
import hashlib
import logging
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from common.choices import own_module
from common.configuration.settings import Settings, own_paths
from common.data import DATASETS, ImageSource, open_source
from common.errors import UserError
from common.metrics import PROTOCOLS, open_network
from common.metrics.evaluation import IMAGES_PER_DEVICE, Evaluator
from common.metrics.feature_network import FeatureNetwork
from common.networks import NETWORKS
from common.networks.build import Networks, build_networks, call_network
from common.randomness import derive_seed
from common.results.run_folder import RunFolder
from common.sampling import SAMPLINGS
from common.training.batches import BatchPipeline, labels_of
from common.training.devices import (
    is_chief,
    is_one_of_several_workers,
    on_all_replicas,
    open_strategy,
)
from common.training.sampling import Sampler
from common.training.start_up import StartUp
from common.training.steps import choose_step
from common.training.trainer import Trainer

_LOG = logging.getLogger(__name__)


# Keys that networks and steps are not built from.
_NOT_OF_NETWORKS = ("run", "seed", "iteration", "g_lr", "d_lr", "is_samples", "fid_samples")


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

    def __init__(self, options: RunOptions, devices: int = 1) -> None:
        self.options = options
        self.strategy = open_strategy(devices)
        self._sources: dict[tuple[Any, ...], ImageSource] = {}
        self._checked: set[Settings] = set()
        self._networks: dict[str, FeatureNetwork] = {}

    def source(self, settings: Settings) -> ImageSource:
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

    def feature_network(self, settings: Settings) -> FeatureNetwork | None:
        """The network behind a job's metrics, or None for a job without.

        Raises:
            UserError: it is missing or unusable.
        """
        if not self.options.metrics:
            return None
        name = self.options.feature_network or DATASETS[settings.dataset].feature_network
        if name not in self._networks:
            self._networks[name] = open_network(
                name,
                inception_path=self.options.inception_path,
                inception_sha256=self.options.inception_sha256,
                cache_dir=self.options.cache_dir,
            )
        return self._networks[name]

    def evaluator(self, settings: Settings, root_seed: int) -> Evaluator | None:
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
            with_replacement=DATASETS[settings.dataset].real_with_replacement,
            batch_size=IMAGES_PER_DEVICE * self._devices_at_hand(),
            is_cached=True,
            cache_dir=self.options.cache_dir,
            spread=functools.partial(on_all_replicas, self.strategy),
        )
        evaluator.prepare()
        return evaluator

    def _devices_at_hand(self) -> int:
        return 1 if is_one_of_several_workers() else self.strategy.num_replicas_in_sync

    def check_networks(self, settings: Settings) -> None:
        """Builds a job's networks, once for all jobs that have the same, and chooses its step.

        Raises:
            UserError: they cannot be built, do not make images and scores of the right shapes, or
                cannot be trained by the step that the configuration asks for.
        """
        changes_nothing: dict[str, Any] = dict.fromkeys(_NOT_OF_NETWORKS)
        key = dataclasses.replace(settings, **changes_nothing)
        if key in self._checked:
            return
        keras.backend.clear_session()
        set_precision(settings.precision)
        source = self.source(settings)
        try:
            networks = networks_for(settings, source, root_seed=0)
            _try_out(settings, networks, source.classes)
        except Exception as error:  # whatever a user's own function raises
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise UserError(
                f"the networks of network={settings.network}, sn_mode={settings.sn_mode} cannot be "
                f"used: {type(error).__name__}: {reason}"
            ) from error
        shapes = [networks.generator.output_shape, networks.discriminator.output_shape]
        wanted = [(None, *source.image_shape), (None, 1)]
        if shapes != wanted:
            raise UserError(
                f"network={settings.network} makes images of shape {shapes[0]} and scores of shape "
                f"{shapes[1]}; {settings.dataset} needs {wanted[0]} and {wanted[1]}."
            )
        choose_step(settings, networks)
        self._checked.add(key)


def check_devices(count: int) -> None:
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


def check_job(settings: Settings, resources: Resources, replicas: int) -> None:
    """Finds what would keep a job from starting, before any job is trained.

    Args:
        settings: the job's `Settings`.
        resources: the `Resources`.
        replicas: how many devices it is to be trained on.

    Raises:
        UserError: data or network are missing, or the configuration does not fit them.
    """
    source = resources.source(settings)
    _check_shape(settings, source)
    _check_batches(settings, len(source), replicas)
    if NETWORKS[settings.network].labelled:
        labels_of(source)
    if settings.jit_compile and replicas > 1:
        raise UserError(f"jit_compile=True is for one device, and the job has {replicas}.")
    if settings.num_gpus not in (None, replicas):
        raise UserError(
            f"num_gpus={settings.num_gpus}, and the job's entry of `gpu` in config.py names "
            f"{replicas} device(s): make them agree."
        )
    if settings.step == "fused" or own_paths(dataclasses.asdict(settings)):
        resources.check_networks(settings)
    resources.feature_network(settings)


def _check_shape(settings: Settings, source: ImageSource) -> None:
    row = NETWORKS[settings.network]
    shape = tuple(source.image_shape)
    wanted = row.image_shape(settings.mg)
    if wanted is not None and wanted != shape:
        fitting = shape[0] * settings.mg // wanted[0]
        raise UserError(
            f"mg={settings.mg} gives images of {wanted[0]}x{wanted[1]}, and {settings.dataset} has "
            f"images of shape {shape}: say --set mg={fitting} or --only mg={fitting}."
        )
    if row.image_shapes and shape not in row.image_shapes:
        raise UserError(
            f"network={settings.network} is for images of shape "
            f"{' or '.join(map(str, row.image_shapes))}, and {settings.dataset} has {shape}."
        )


def _check_batches(settings: Settings, images: int, replicas: int) -> None:
    sizes = {
        name: getattr(settings, name) for name in ("batch_size", "d_batch_size", "g_batch_size")
    }
    drawn = settings.d_batch_size or settings.batch_size
    if SAMPLINGS[settings.sampling].in_epochs:
        if settings.last_batch == "drop" and drawn > images:
            raise UserError(
                f"a batch of {drawn} images is more than the {images:,} of {settings.dataset}, and "
                "last_batch=drop leaves none: take smaller batches, or last_batch=keep."
            )
        if settings.last_batch == "keep" and images % drawn:
            sizes["an epoch's last batch"] = images % drawn
    for name, size in sizes.items():
        if size is not None and size % replicas:
            raise UserError(f"{name}={size} cannot be split equally among {replicas} devices.")


def train_job(
    settings: Settings,
    folder: RunFolder,
    resources: Resources,
    stop_requested: Callable[[], bool] = lambda: False,
) -> None:
    """Trains a job to its end, in its folder, going on from its last checkpoint.

    Args:
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
        **_conditions(settings, source),
        "metrics": describe_metrics(evaluator),
        "replicas": resources.strategy.num_replicas_in_sync,
    }
    folder.start(settings, conditions, describe_environment())
    with resources.strategy.scope():
        networks = networks_for(settings, source, root_seed)
        step, why = choose_step(settings, networks)
    _LOG.info("the %s step trains: %s", step.name, why)
    folder.note_step(step.name, why)
    start_up.lap("networks")
    classes = source.classes if NETWORKS[settings.network].labelled else None
    trainer = Trainer(
        settings,
        folder,
        strategy=resources.strategy,
        step=step,
        pipeline=BatchPipeline(source, settings, root_seed),
        sampler=Sampler(resources.strategy, networks.sampled, settings, root_seed, classes),
        evaluator=evaluator,
        strict_metrics=resources.options.strict_metrics,
        start_up=start_up,
    )
    trainer.train(stop_requested)
    folder.finish()


def _try_out(settings: Settings, networks: Networks, classes: int | None) -> None:
    """Calls both networks once: what is wrong in a call does not show when they are built."""
    latents = tf.zeros([2, settings.latent_dim], keras.config.floatx())
    labels = None
    if NETWORKS[settings.network].labelled and classes is not None:
        labels = tf.constant([0, classes - 1], tf.int64)
    images = call_network(networks.generator, latents, labels, training=False)
    call_network(networks.discriminator, images, labels, training=False)


def networks_for(settings: Settings, source: ImageSource, root_seed: int) -> Networks:
    """The networks of a job for a data set, with their initial values."""
    return build_networks(settings, root_seed, source.image_shape, source.classes)


def _conditions(settings: Settings, source: ImageSource) -> dict[str, Any]:
    """What a run's training depends on beside its settings, JSON-able.

    Where nothing but the settings and the data's record matters, nothing but that is named: the
    records of earlier versions stay valid.
    """
    row = NETWORKS[settings.network]
    conditions: dict[str, Any] = {"data": source.record}
    if row.image_shape(settings.mg) is None:
        conditions["image_shape"] = list(source.image_shape)
    if row.labelled:
        conditions["labels"] = {"classes": source.classes, "sha256": source.labels_sha256}
    if rows := own_paths(dataclasses.asdict(settings)):
        conditions["own"] = {
            path: hashlib.sha256(own_module(path).read_bytes()).hexdigest() for path in rows
        }
    return conditions


def set_precision(policy: str) -> None:
    """Makes Keras build by a dtype policy: "float32", "float64" or a mixed one."""
    # The default policy, once it was asked for, does not follow floatx.
    keras.config.set_floatx("float64" if policy == "float64" else "float32")
    keras.config.set_dtype_policy(policy)


def describe_metrics(evaluator: Evaluator | None) -> dict[str, Any] | None:
    """What a run's metrics depend on besides its settings: a JSON-able dictionary, or None."""
    return None if evaluator is None else evaluator.conditions


def describe_environment() -> dict[str, Any]:
    """What last digits may depend on beside the conditions: a JSON-able dictionary."""
    packages = ("tensorflow", "keras", "numpy", "scipy")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "cores": len(os.sched_getaffinity(0)),
    }
