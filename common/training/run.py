"""From a job's settings to its training: data, networks, metrics, in that order of checks."""

import dataclasses
import functools
import hashlib
import logging
import os
import platform
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from common.choices import own_module
from common.configuration.settings import Settings, own_paths
from common.data import DATASETS, ImageSource, open_source
from common.metrics import PROTOCOLS, open_network
from common.metrics.evaluation import IMAGES_PER_DEVICE, Evaluator
from common.metrics.feature_network import FeatureNetwork
from common.networks import NETWORKS
from common.networks.build import Networks, build_networks
from common.randomness import derive_seed
from common.results.run_folder import RunFolder
from common.training.batches import BatchPipeline
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
        self._checked: set[Hashable] = set()
        self._networks: dict[str, FeatureNetwork] = {}

    def once(self, key: Hashable, check: Callable[[], None]) -> None:
        """Calls `check` unless one of the same key has found nothing."""
        if key not in self._checked:
            check()
            self._checked.add(key)

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
        **_conditions(settings, source, resources.options),
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


def networks_for(settings: Settings, source: ImageSource, root_seed: int) -> Networks:
    """The networks of a job for a data set, with their initial values."""
    return build_networks(settings, root_seed, source.image_shape, source.classes)


def _conditions(settings: Settings, source: ImageSource, options: RunOptions) -> dict[str, Any]:
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
    of_options = [name for name in (*options.metrics, options.feature_network or "") if ":" in name]
    if rows := [*own_paths(dataclasses.asdict(settings)), *of_options]:
        conditions["own"] = own_digests(rows)
    return conditions


def own_digests(paths: Iterable[str]) -> dict[str, str]:
    """`{import path: SHA-256 of its module's file}` of users' own rows."""
    return {path: hashlib.sha256(own_module(path).read_bytes()).hexdigest() for path in paths}


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
