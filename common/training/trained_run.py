"""A run that was trained, or is about to be trained further: its networks at its checkpoints."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from common.choices import own_module
from common.configuration.settings import Settings, own_paths, read_settings
from common.errors import UserError, shown
from common.metrics import FEATURE_NETWORKS, METRICS
from common.metrics.evaluation import Evaluator
from common.networks import NETWORKS, ImageShape
from common.networks.build import Networks, build_networks
from common.parsers.checkpoint_index import check_index
from common.randomness import derive_seed
from common.results.metrics_table import MetricsTable
from common.results.run_folder import RunFolder
from common.training.checkpoints import DAMAGES, iteration_of, list_checkpoints
from common.training.run import (
    Resources,
    RunOptions,
    describe_metrics,
    own_digests,
    set_precision,
)
from common.training.sampling import Sampler

_LOG = logging.getLogger(__name__)

_MAX_REPLICAS = 2**12  # more than any run has
_MAX_CLASSES, _MAX_SIDE = 2**24, 2**14

# What the folders were for that named no network yet; their checkpoints tell which one it was.
# Those with gammas come first: networks without would find all of theirs in such a checkpoint, too.
_UNNAMED: tuple[dict[str, Any], ...] = (
    {"network": "cnn", "loss": "wgan_gp", "gamma": "shared"},
    {"network": "cnn", "loss": "wgan_gp", "gamma": "per_layer"},
    {"network": "cnn", "loss": "hinge", "gamma": "none"},
    {
        "network": "resnet",
        "loss": "hinge",
        "gamma": "none",
        "redraw_latents": True,
        "batch_norm_in_d_steps": False,
        "summary_after_update": True,
        "memory_summaries": True,
    },
)


class TrainedRun:
    """The results folder of a job, read.

    Args:
        path: the folder, with `run.json` in it.
        trusted: modules that may be imported because the record names them. Records may be
            anybody's: without this, a run of users' own networks or losses is refused.

    Attributes:
        folder: its `RunFolder`.
        settings: its `Settings`.
        conditions: what else its results depend on.
        root_seed: the seed of everything random in it.

    Raises:
        UserError: it is not the folder of a run, or its record makes no sense.
    """

    def __init__(self, path: str | Path, trusted: Collection[str] = ()) -> None:
        self._trusted = trusted
        self.folder = RunFolder(path)
        record = self.folder.record
        if record is None:
            raise UserError(f"{path} is not the folder of a run: there is no run.json in it.")
        self.conditions = record["conditions"]
        self.refuse_untrusted(own_paths(record["settings"]))
        self.settings = self._read_settings(record["settings"])
        self.root_seed = derive_seed(self.settings.seed, self.settings.run)

    def _read_settings(self, recorded: dict[str, Any]) -> Settings:
        try:
            if "network" in recorded:
                return read_settings(recorded, {})
            candidates = [read_settings(recorded, choices) for choices in _UNNAMED]
        except UserError as error:
            raise UserError(f"{self.folder.record_path}: {error}") from error
        return self._first_that_fits(candidates)

    def _first_that_fits(self, candidates: Iterable[Settings]) -> Settings:
        """The settings whose networks a checkpoint can be restored into."""
        checkpoints = list_checkpoints(self.folder.checkpoints)
        for settings in candidates:
            self.settings, self.root_seed = settings, derive_seed(settings.seed, settings.run)
            for checkpoint in checkpoints:
                try:
                    restore(self.trackables(self.build_networks()), checkpoint)
                except UserError:
                    continue
                return settings
        raise UserError(
            f"{self.folder.record_path} names no network, as those of earlier versions, and no "
            "checkpoint of the run tells which it is. Continue the run in its variant's folder "
            "first: that completes the record."
        )

    def refuse_untrusted(self, paths: Iterable[str]) -> None:
        """Refuses import paths of modules that the user has not said to trust.

        Raises:
            UserError: names the module and the option.
        """
        for path in paths:
            module = path.partition(":")[0]
            if module not in self._trusted:
                raise UserError(
                    f"{self.folder.record_path} names {shown(path)}, which would be imported: if "
                    f"the module is your own, say --trust=FOLDER/{module}.py."
                )

    @property
    def checkpoints(self) -> dict[int, list[Path]]:
        """`{iteration: [paths]}`, ascending: a recent checkpoint first, then the permanent copy."""
        found: dict[int, list[Path]] = {}
        for path in sorted(list_checkpoints(self.folder.checkpoints), key=iteration_of):
            found.setdefault(iteration_of(path), []).append(path)
        return found

    @property
    def classes(self) -> int | None:
        """Number of labels that the networks take, None if they take none.

        Raises:
            UserError: the record does not say it.
        """
        if not NETWORKS[self.settings.network].labelled:
            return None
        labels = self.conditions.get("labels")
        classes = labels.get("classes") if isinstance(labels, dict) else None
        if type(classes) is not int or not 1 <= classes <= _MAX_CLASSES:
            raise UserError(f"{self.folder.record_path}: classes is {classes!r}, not a number")
        return classes

    @property
    def image_shape(self) -> ImageShape:
        """(height, width, channels) of the images.

        Raises:
            UserError: the record does not say it.
        """
        shape = NETWORKS[self.settings.network].image_shape(self.settings.mg)
        if shape is not None:
            return shape
        recorded = self.conditions.get("image_shape")
        sides = recorded if isinstance(recorded, list) else []
        if len(sides) != 3 or not all(type(n) is int and 1 <= n <= _MAX_SIDE for n in sides):
            raise UserError(f"{self.folder.record_path}: image_shape is {recorded!r}, not a shape")
        height, width, channels = sides
        return height, width, channels

    def build_networks(self) -> Networks:
        """The networks, untrained: under the current strategy, in the run's precision."""
        keras.backend.clear_session()
        set_precision(self.settings.precision)
        return build_networks(self.settings, self.root_seed, self.image_shape, self.classes)

    @staticmethod
    def trackables(networks: Networks) -> dict[str, keras.Model]:
        """Networks by the names that checkpoints have for them."""
        return {name: model for name, model in networks._asdict().items() if model is not None}


def restore(networks: Mapping[str, keras.Model], checkpoint: Path) -> None:
    """Gives networks the weights of a checkpoint.

    Args:
        networks: models by their names in checkpoints, all or some.
        checkpoint: its path, without a suffix.

    Raises:
        UserError: it is damaged, or of another network.
    """
    try:
        check_index(checkpoint)
        status = tf.train.Checkpoint(**networks).read(str(checkpoint))
        status.assert_existing_objects_matched().expect_partial()
    except DAMAGES as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"checkpoint {checkpoint} cannot be restored: {reason}") from error


def restore_first(networks: Mapping[str, keras.Model], checkpoints: Iterable[Path]) -> Path:
    """Gives networks the weights of the first of some checkpoints that can be restored.

    Returns:
        That checkpoint's path; of those before it a warning tells.

    Raises:
        UserError: none can.
    """
    reasons: list[str] = []
    for checkpoint in checkpoints:
        try:
            restore(networks, checkpoint)
        except UserError as error:
            reasons.append(str(error))
        else:
            for reason in reasons:
                _LOG.warning("%s; %s is used", reason, checkpoint)
            return checkpoint
    raise UserError("; ".join(reasons))


def fill_metrics(run: TrainedRun, options: RunOptions) -> tuple[MetricsTable, list[int]]:
    """Measures a run at every checkpoint that `metrics.csv` has no row for, as training would.

    The run may be done or interrupted; while it is being trained it is refused. TensorBoard's
    files stay as they are.

    Args:
        run: the run.
        options: the `RunOptions`; data and network must be those that the run was trained with, and
            so must the metrics unless it was trained without.

    Returns:
        The `MetricsTable`, and the iterations that were added, ascending.

    Raises:
        UserError: as said, or some checkpoints cannot be restored; all others were measured.
    """
    with run.folder.lock():
        _check_own_files(run, options.metrics)
        resources = Resources(options, _read_replicas(run))
        source = resources.source(run.settings)
        _check_same("data", run.conditions.get("data"), source.record)
        evaluator = resources.evaluator(run.settings, run.root_seed)
        if evaluator is None:
            raise UserError("there are no metrics to add to the run's table")
        recorded = run.conditions.get("metrics")
        if recorded is not None:
            _check_same("metrics", recorded, describe_metrics(evaluator))
        table = MetricsTable(run.folder.metrics_path, evaluator.columns)
        added, damaged = _measure_missing(run, table, evaluator, resources.strategy)
        run.folder.note_metrics(made=table.ids)
    if damaged:
        raise UserError(f"rows added: {added}; {'; '.join(damaged)}")
    return table, added


def _measure_missing(
    run: TrainedRun, table: MetricsTable, evaluator: Evaluator, strategy: tf.distribute.Strategy
) -> tuple[list[int], list[str]]:
    """Adds the rows that a run's table lacks.

    Returns:
        The iterations added, ascending, and what is wrong with checkpoints that cannot be restored.
    """
    # The generator as it is built is that before the first iteration.
    initial: dict[int, list[Path]] = {-1: []} if run.settings.initial_metrics else {}
    available = {**initial, **run.checkpoints}
    missing = {i: paths for i, paths in available.items() if i not in table.ids}
    with strategy.scope():
        networks = run.build_networks()
    models = run.trackables(networks)
    sampler = Sampler(strategy, networks.sampled, run.settings, run.root_seed, run.classes)
    added: list[int] = []
    damaged: list[str] = []
    for global_id, checkpoints in missing.items():
        try:
            if checkpoints:
                restore_first(models, checkpoints)
        except UserError as error:
            damaged.append(str(error))
            continue
        evaluation = evaluator.evaluate(sampler.metric_samples(global_id))
        table.add(global_id, evaluation.values, evaluation.record)
        run.folder.note_metrics(made=[global_id])
        added.append(global_id)
    return added, damaged


def recorded_metrics(run: TrainedRun) -> tuple[tuple[str, ...], str | None]:
    """Names of the metrics a run was trained with and of their network; `((), None)` if none.

    Raises:
        UserError: the record does not say them.
    """
    recorded = run.conditions.get("metrics")
    if recorded is None:
        return (), None
    try:
        columns = [str(column) for column in recorded["columns"]]
        network = str(recorded["network"]["name"])
        own = [str(name) for name in recorded.get("own_metrics", [])]
        if network not in FEATURE_NETWORKS:
            raise ValueError(f"the network {network} is not one of {', '.join(FEATURE_NETWORKS)}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{run.folder.record_path}: it cannot be told how the run's metrics are made again "
            f"({error!r}); name --metrics and --feature_network"
        ) from error
    run.refuse_untrusted(own)
    prefix = FEATURE_NETWORKS[network].column_prefix
    names = [name for name, row in METRICS.items() if prefix + row.columns[0] in columns]
    return (*names, *own), network


def _read_replicas(run: TrainedRun) -> int:
    replicas = run.conditions.get("replicas", 1)
    if type(replicas) is not int or not 1 <= replicas <= _MAX_REPLICAS:
        raise UserError(f"{run.folder.record_path}: replicas is {replicas!r}, not a number of such")
    return replicas


def _check_own_files(run: TrainedRun, metrics: Iterable[str]) -> None:
    recorded = run.conditions.get("own")
    recorded = recorded if isinstance(recorded, dict) else {}
    again = [name for name in metrics if name in recorded]
    for path, digest in own_digests([*own_paths(asdict(run.settings)), *again]).items():
        if recorded.get(path) != digest:
            raise UserError(
                f"{own_module(path)} is not as it was when {run.folder.path} was trained: put that "
                "version back, or compare with the run's checkpoint as a set of its own."
            )


def _check_same(what: str, recorded: Any, ours: Any) -> None:
    if recorded != ours:
        raise UserError(
            f"the run was trained with other {what} than these: {recorded!r} -> {ours!r}; "
            "use the same, or compare with the run's checkpoint as a set of its own."
        )
