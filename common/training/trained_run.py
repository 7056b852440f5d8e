"""A run that was trained, or is about to be trained further: its generator at its checkpoints."""

import logging

import keras
import tensorflow as tf

from common.configuration.settings import FIELDS, Settings, check_value, default_values
from common.errors import UserError
from common.metrics import METRICS
from common.networks import NETWORKS
from common.parsers.checkpoint_index import check_index
from common.randomness import derive_seed
from common.results.metrics_table import MetricsTable
from common.results.run_folder import RunFolder
from common.training.checkpoints import DAMAGES, iteration_of, list_checkpoints
from common.training.run import Resources, describe_metrics, set_precision
from common.training.sampling import Sampler

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

    def __init__(self, path):
        self.folder = RunFolder(path)
        record = self.folder.record
        if record is None:
            raise UserError(f"{path} is not the folder of a run: there is no run.json in it.")
        self.settings = _read_settings(self.folder.record_path, record["settings"])
        self.conditions = record["conditions"]
        self.root_seed = derive_seed(self.settings.seed, self.settings.run)

    @property
    def checkpoints(self):
        """`{iteration: [paths]}`, ascending: a recent checkpoint first, then the permanent copy."""
        found = {}
        for path in sorted(list_checkpoints(self.folder.checkpoints), key=iteration_of):
            found.setdefault(iteration_of(path), []).append(path)
        return found

    def build_generator(self):
        """The generator, untrained: under the current strategy, in the run's precision."""
        settings = self.settings
        keras.backend.clear_session()
        set_precision(settings.precision)
        # The ResNet alone has batch sizes of its own for each network.
        network = NETWORKS["cnn" if settings.d_batch_size is None else "resnet"]
        return network.build_generator(
            mg=settings.mg,
            latent_dim=settings.latent_dim,
            width=settings.width,
            seed=self.root_seed,
        )


def restore_generator(generator, checkpoint):
    """Gives a generator the weights of a checkpoint.

    Raises:
        UserError: it is damaged, or of another network.
    """
    try:
        check_index(checkpoint)
        status = tf.train.Checkpoint(generator=generator).read(str(checkpoint))
        status.assert_existing_objects_matched().expect_partial()
    except DAMAGES as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"checkpoint {checkpoint} cannot be restored: {reason}") from error


def restore_first(generator, checkpoints):
    """Gives a generator the weights of the first of some checkpoints that can be restored.

    Returns:
        That checkpoint's path; of those before it a warning tells.

    Raises:
        UserError: none can.
    """
    reasons = []
    for checkpoint in checkpoints:
        try:
            restore_generator(generator, checkpoint)
        except UserError as error:
            reasons.append(str(error))
        else:
            for reason in reasons:
                _LOG.warning("%s; %s is used", reason, checkpoint)
            return checkpoint
    raise UserError("; ".join(reasons))


def fill_metrics(path, options):
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
        initial = {-1: []} if run.settings.initial_metrics else {}
        available = {**initial, **run.checkpoints}
        missing = {i: paths for i, paths in available.items() if i not in table.ids}
        with resources.strategy.scope():
            generator = run.build_generator()
        sampler = Sampler(resources.strategy, generator, run.settings, run.root_seed)
        added, damaged = [], []
        for global_id, checkpoints in missing.items():
            try:
                if checkpoints:
                    restore_first(generator, checkpoints)
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


def recorded_metrics(run):
    """Names of the metrics a run was trained with and of their network; `((), None)` if none."""
    recorded = run.conditions.get("metrics")
    if recorded is None:
        return (), None
    try:
        columns, network = [str(c) for c in recorded["columns"]], str(recorded["network"]["name"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{run.folder.record_path} cannot be read: its metrics have no columns or no network "
            f"({error!r}); name the metrics and the network"
        ) from error
    names = (n for n, m in METRICS.items() if any(c.endswith(m.columns[0]) for c in columns))
    return tuple(names), network


def _read_settings(path, values):
    values = {**default_values(), **values}
    unknown = [name for name in values if name not in FIELDS]
    missing = [name for name in FIELDS if name not in values]
    if unknown or missing:
        raise UserError(f"{path}: unknown or missing keys {', '.join(unknown + missing)}")
    checked = {
        name: None if value is FIELDS[name].default is None else check_value(name, value)
        for name, value in values.items()
    }
    return Settings(**checked)


def _read_replicas(run):
    replicas = run.conditions.get("replicas", 1)
    if type(replicas) is not int or not 1 <= replicas <= _MAX_REPLICAS:
        raise UserError(f"{run.folder.record_path}: replicas is {replicas!r}, not a number of such")
    return replicas


def _check_same(what, recorded, ours):
    if recorded != ours:
        raise UserError(
            f"the run was trained with other {what} than these: {recorded!r} -> {ours!r}; "
            "use the same, or compare with the run's checkpoint as a set of its own."
        )
