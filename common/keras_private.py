"""The only place that reaches into what Keras and TensorFlow keep to themselves.

Each function is small and has a test of its own, which fails where a new release changes what the
function reads; `setup.py` therefore bounds the releases from above.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

# The messages of graphs, and of checkpoints' indices, which have no public name.
from tensorflow.core.framework import graph_pb2, node_def_pb2
from tensorflow.core.protobuf import tensor_bundle_pb2

__all__ = [
    "GraphCall",
    "adam_moments",
    "all_layers",
    "graph_calls",
    "graph_pb2",
    "is_functional",
    "is_multi_worker",
    "is_plain_model",
    "node_def_pb2",
    "producer",
    "tensor_bundle_pb2",
]


def all_layers(model: keras.Layer) -> list[keras.Layer]:
    """The layer itself, its layers, theirs, and so on: each once, outer ones first."""
    return list(model._flatten_layers())


def is_functional(model: object) -> bool:
    """Whether it is a functional model, of Keras' class or of one derived from it."""
    return isinstance(model, keras.src.models.functional.Functional)


def is_plain_model(model: object) -> bool:
    """Whether it is a functional or sequential model of exactly Keras' class, so that its calls are
    those of its graph and nothing else."""
    return type(model) in (keras.src.models.functional.Functional, keras.Sequential)


def producer(tensor: keras.KerasTensor) -> keras.Operation:
    """The layer or other operation whose output a symbolic tensor is."""
    return tensor._keras_history.operation


class GraphCall(NamedTuple):
    """One call in a model's graph.

    Attributes:
        operation: the layer or other operation that is called.
        args, kwargs: as given; tensors among them are symbolic.
        inputs: the symbolic tensors among them.
        outputs: symbolic tensors.
    """

    operation: keras.Operation
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]


def graph_calls(model: keras.Model) -> Iterator[GraphCall]:
    """The calls of a built functional or sequential model in an order in which they may be run.

    Operations that are no layers are among them; nested models are one call each.
    """
    graph = model._functional if isinstance(model, keras.Sequential) else model
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            arguments = node.arguments
            yield GraphCall(
                node.operation,
                arguments.args,
                arguments.kwargs,
                arguments.keras_tensors,
                node.outputs,
            )


def adam_moments(
    optimizer: keras.optimizers.Adam, variable: keras.Variable
) -> tuple[keras.Variable, keras.Variable]:
    """Adam's `(m, v)` of a variable, the means of its gradient and of the gradient's square."""
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index], optimizer._velocities[index]


def is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    """Whether the strategy spans several hosts."""
    return bool(strategy.extended._in_multi_worker_mode())
