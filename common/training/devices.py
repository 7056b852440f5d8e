"""The devices that a job trains on, as a `tf.distribute` strategy."""

import json
import logging
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from common import graph_optimizers
from common.errors import UserError

_LOG = logging.getLogger(__name__)


def is_one_of_several_workers() -> bool:
    """Whether `TF_CONFIG` in the environment says that several hosts train together."""
    return "TF_CONFIG" in os.environ


def is_chief() -> bool:
    """Whether this process is the one that writes results: the only one, or the first worker."""
    if not is_one_of_several_workers():
        return True
    cluster, task = _read_tf_config()
    first = "chief" if "chief" in cluster else "worker"
    return task == (first, 0)


def _read_tf_config() -> tuple[dict[str, list[str]], tuple[str, int]]:
    """`(cluster, (task type, task index))` of `TF_CONFIG`.

    Raises:
        UserError: it is not as TensorFlow needs it.
    """
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        cluster, task = config["cluster"], (config["task"]["type"], config["task"]["index"])
        unknown = set(cluster) - {"chief", "worker"}
        if unknown:
            raise ValueError(f"roles {unknown} are not used in this training")
        addresses = [address for role in cluster.values() for address in role]
        if not all(isinstance(a, str) and ":" in a for a in addresses):
            raise ValueError(f"addresses must be HOST:PORT, found {addresses}")
        if type(task[1]) is not int or not 0 <= task[1] < len(cluster[task[0]]):
            raise ValueError(f"there is no {task[0]} {task[1]} in the cluster")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"TF_CONFIG cannot be used ({error!r}). It must be JSON like "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
            '"task": {"type": "worker", "index": 0}}'
        ) from None
    return cluster, task


def open_strategy(count: int) -> tf.distribute.Strategy:
    """A strategy over `count` devices of this machine, or of every host that `TF_CONFIG` names.

    Without GPUs the devices are CPU ones: logical devices, so that training on several can be
    tried anywhere. To be called before TensorFlow has been used.

    Args:
        count: number of devices, at least 1; a global batch is split equally among them.

    Returns:
        TensorFlow's default strategy for one device, otherwise a `MirroredStrategy`; for several
        hosts a `MultiWorkerMirroredStrategy`.

    Raises:
        UserError: there are fewer GPUs than asked for, but some.
    """
    graph_optimizers.restrain()
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if is_one_of_several_workers():
        return _open_multi_worker_strategy(count, gpus)
    if not gpus:
        _LOG.warning("no GPU was found: training on %d CPU device(s)", count)
    if count == 1:
        return tf.distribute.get_strategy()
    if not gpus:
        return tf.distribute.MirroredStrategy(_logical_cpus(count))
    if len(gpus) < count:
        raise UserError(
            f"the configuration's `gpu` names {count} devices for a job and TensorFlow sees "
            f"{len(gpus)}: correct the ids in config.py, or say --set gpu=0."
        )
    return tf.distribute.MirroredStrategy([f"GPU:{index}" for index in range(count)])


def on_all_replicas(
    strategy: tf.distribute.Strategy, function: Callable[..., Any]
) -> Callable[..., Any]:
    """`function` of a batch, of which each replica of this host computes its part.

    Args:
        strategy: the strategy whose replicas share the work.
        function: takes tensors `[n, ...]` and returns tensors `[n, ...]`, row by row.

    Returns:
        A function of the same arguments and results.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1 or is_one_of_several_workers():
        return function

    def part_of(*batch: tf.Tensor) -> Any:
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        count = tf.shape(batch[0])[0]
        start, stop = count * index // replicas, count * (index + 1) // replicas
        return function(*(tensor[start:stop] for tensor in batch))

    @tf.function(autograph=False, reduce_retracing=True)
    def whole(*batch: tf.Tensor) -> Any:
        parts = strategy.run(part_of, batch)
        return tf.nest.map_structure(
            lambda part: tf.concat(strategy.experimental_local_results(part), 0), parts
        )

    return whole


def _open_multi_worker_strategy(count: int, gpus: list[Any]) -> tf.distribute.Strategy:
    _read_tf_config()
    if gpus and len(gpus) != count:
        raise UserError(f"the configuration's `gpu` names {count} devices and there are {gpus}.")
    if not gpus and count > 1:
        _logical_cpus(count)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _logical_cpus(count: int) -> list[str]:
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu) or []
    if len(configured) < count:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
        except RuntimeError as error:
            raise RuntimeError(
                "open_strategy() must come before any other use of TensorFlow"
            ) from error
    return [f"CPU:{index}" for index in range(count)]
