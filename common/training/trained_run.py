"""A run that was trained, or is about to be trained further: its networks at its checkpoints."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from common.configuration.settings import FIELDS, Settings, check_value, default_values
from common.errors import UserError
from common.metrics import FEATURE_NETWORKS, METRICS
from common.randomness import derive_seed
from common.results.metrics_table import MetricsTable
from common.results.run_folder import RunFolder
from common.training.checkpoint_index import check_index
from common.training.checkpoints import DAMAGES, iteration_of, list_checkpoints
from common.training.run import (
    Resources,
    RunOptions,
    build_networks,
    describe_metrics,
    set_precision,
)
from common.training.sampling import Sampler
from common.variant import Variant

_LOG = logging.getLogger(__name__)

_MAX_REPLICAS = 2**12  # more than any run has


class TrainedRun:
    """The results folder of a job, read.

    Args:
        path: the folder, with `run.json` in it.

    Attributes:
        folder: its `RunFolder`.
        settings: its `Settings`.
        conditions: what else its results depend on.
        root_seed: the seed of everything random in it.

    Raises:
        UserError: it is not the folder of a run.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(path)
        record = self.folder.record
        if record is None:
            raise UserError(f"{path} is not the folder of a run: there is no run.json in it.")
        self.settings = _read_settings(self.folder.record_path, record["settings"])
        self.conditions = record["conditions"]
        self.root_seed = derive_seed(self.settings.seed, self.settings.run)

    @property
    def checkpoints(self) -> dict[int, list[Path]]:
        """`{iteration: [paths]}`, ascending: a recent checkpoint first, then the permanent copy."""
        found: dict[int, list[Path]] = {}
        for path in sorted(list_checkpoints(self.folder.checkpoints), key=iteration_of):
            found.setdefault(iteration_of(path), []).append(path)
        return found

    def build_networks(self, variant: Variant | None = None) -> tuple[keras.Model, keras.Model]:
        """Generator and discriminator, untrained: under the current strategy, in the run's
        precision; see `common.training.run.build_networks`."""
        keras.backend.clear_session()
        set_precision(self.settings.precision)
        return build_networks(self.settings, self.root_seed, variant)


def restore(networks: Mapping[str, keras.Model], checkpoint: Path) -> None:
    """Gives networks the weights of a checkpoint.

    Args:
        networks: "generator", "discriminator" or both.
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


def fill_metrics(path: str | Path, options: RunOptions) -> tuple[MetricsTable, list[int]]:
    """Measures a run at every checkpoint that `metrics.csv` has no row for, as training would.

    The run may be done or interrupted; while it is being trained it is refused. TensorBoard's
    files stay as they are.

    Args:
        path: its results folder.
        options: the `RunOptions`; data and network must be those that the run was trained with, and
            so must the metrics unless it was trained without.

    Returns:
        The `MetricsTable`, and the iterations that were added, ascending.

    Raises:
        UserError: as said, or some checkpoints cannot be restored; all others were measured.
    """
    run = TrainedRun(path)
    with run.folder.lock():
        resources = Resources(options, _read_replicas(run))
        source = resources.source(run.settings)
        _check_same("data", run.conditions.get("data"), source.record)
        evaluator = resources.evaluator(run.settings, run.root_seed)
        recorded = run.conditions.get("metrics")
        if recorded is not None:
            _check_same("metrics", recorded, describe_metrics(evaluator))
        table = MetricsTable(run.folder.metrics_path, evaluator.columns)
        # The generator as it is built is that before the first iteration.
        initial: dict[int, list[Path]] = {-1: []} if run.settings.initial_metrics else {}
        available = {**initial, **run.checkpoints}
        missing = {i: paths for i, paths in available.items() if i not in table.ids}
        with resources.strategy.scope():
            generator, _ = run.build_networks()
        sampler = Sampler(resources.strategy, generator, run.settings, run.root_seed)
        added: list[int] = []
        damaged: list[str] = []
        for global_id, checkpoints in missing.items():
            try:
                if checkpoints:
                    restore_first({"generator": generator}, checkpoints)
            except UserError as error:
                damaged.append(str(error))
                continue
            evaluation = evaluator.evaluate(sampler.metric_samples(global_id))
            table.add(global_id, evaluation.values, evaluation.record)
            run.folder.note_metrics(made=[global_id])
            added.append(global_id)
        run.folder.note_metrics(made=table.ids)
    if damaged:
        raise UserError(f"rows added: {added}; {'; '.join(damaged)}")
    return table, added


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
    prefix = FEATURE_NETWORKS[network].column_prefix
    names = [name for name, row in METRICS.items() if prefix + row.columns[0] in columns]
    return (*names, *own), network


def _read_settings(path: Path, values: dict[str, Any]) -> Settings:
    values = {**default_values(), **values}
    unknown = [name for name in values if name not in FIELDS]
    missing = [name for name in FIELDS if name not in values]
    if unknown or missing:
        raise UserError(f"{path}: unknown or missing keys {', '.join(unknown + missing)}")
    checked: dict[str, Any] = {
        name: None if value is FIELDS[name].default is None else check_value(name, value)
        for name, value in values.items()
    }
    return Settings(**checked)


def _read_replicas(run: TrainedRun) -> int:
    replicas = run.conditions.get("replicas", 1)
    if type(replicas) is not int or not 1 <= replicas <= _MAX_REPLICAS:
        raise UserError(f"{run.folder.record_path}: replicas is {replicas!r}, not a number of such")
    return replicas


def _check_same(what: str, recorded: Any, ours: Any) -> None:
    if recorded != ours:
        raise UserError(
            f"the run was trained with other {what} than these: {recorded!r} -> {ours!r}; "
            "use the same, or compare with the run's checkpoint as a set of its own."
        )
