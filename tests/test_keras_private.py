"""What Keras and TensorFlow keep to themselves is still as the project reads it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.layers import Add, Dense

from common import keras_private
from common.parsers.checkpoint_index import _entries


@pytest.fixture
def inner():
    return keras.Sequential([keras.Input((3,)), Dense(3, name="deep")], name="inner")


@pytest.fixture
def model(inner):
    inputs = keras.Input((3,), name="inputs")
    x = inner(inputs)
    outputs = Add(name="sum")([x, keras.ops.negative(inputs)])
    return keras.Model(inputs, outputs, name="model")


def test_all_layers_are_found_outer_ones_first(model):
    names = [layer.name for layer in keras_private.all_layers(model)]
    assert names[0] == "model"
    assert sorted(names) == sorted(
        ["model", "inputs", "inner", "sum", "deep", *input_of_inner(model)]
    )
    assert names.index("inner") < names.index("deep")


def input_of_inner(model):
    return [layer.name for layer in model.get_layer("inner")._layers if "input" in layer.name]


def test_functional_models_are_told_from_others(model, inner):
    class Own(keras.Model):
        pass

    class OwnFunctional(type(model)):
        pass

    own = OwnFunctional(model.inputs, model.outputs)
    assert [keras_private.is_functional(x) for x in (model, own, inner, Own(), Dense(1))] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert [keras_private.is_plain_model(x) for x in (model, own, inner, Own(), Dense(1))] == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_the_producer_of_a_tensor(model):
    assert keras_private.producer(model.outputs[0]) is model.get_layer("sum")
    assert keras_private.producer(model.inputs[0]) is model.get_layer("inputs")


def test_graph_calls_come_in_order_with_what_they_were_given(model):
    calls = list(keras_private.graph_calls(model))
    names = [call.operation.name for call in calls]
    assert names[0] == "inputs"
    assert names[-1] == "sum"
    assert set(names[1:-1]) == {"inner", next(n for n in names if n.startswith("negative"))}
    last = calls[-1]
    assert [id(x) for x in last.args[0]] == [id(x) for x in last.inputs]
    assert last.kwargs == {}
    assert last.outputs[0] is model.outputs[0]
    produced = {id(tensor) for call in calls[:-1] for tensor in call.outputs}
    assert {id(tensor) for tensor in last.inputs} <= produced


def test_graph_calls_give_keyword_arguments(inner):
    class TwoArguments(keras.layers.Layer):
        def call(self, x, other=None):
            return x + other

    inputs = keras.Input((3,))
    other = inner(inputs)
    model = keras.Model(inputs, TwoArguments()(inputs, other=other))
    last = list(keras_private.graph_calls(model))[-1]
    assert last.args == (inputs,)
    assert last.kwargs["other"] is other


def test_graph_calls_of_a_sequential_model(inner):
    names = [call.operation.name for call in keras_private.graph_calls(inner)]
    assert len(names) == 2
    assert names[1] == "deep"


def test_adams_moments():
    variables = [keras.Variable(np.ones(2), name=name) for name in ("a", "b")]
    optimizer = keras.optimizers.Adam(beta_1=0.75, beta_2=0.5)
    optimizer.apply([tf.ones(2), 4 * tf.ones(2)], variables)
    m, v = keras_private.adam_moments(optimizer, variables[1])
    np.testing.assert_allclose(m, [1.0, 1.0])
    np.testing.assert_allclose(v, [8.0, 8.0])


def test_strategies_of_one_host():
    assert keras_private.is_multi_worker(tf.distribute.get_strategy()) is False
    assert keras_private.is_multi_worker(tf.distribute.MirroredStrategy(["CPU:0"])) is False


def test_the_messages_of_graphs_and_of_checkpoints_indices(tmp_path):
    graph = tf.function(lambda x: x + 1).get_concrete_function(tf.constant(1.0)).graph
    message = keras_private.graph_pb2.GraphDef.FromString(graph.as_graph_def().SerializeToString())
    assert "AddV2" in [node.op for node in message.node]
    assert isinstance(message.node[0], keras_private.node_def_pb2.NodeDef)
    tf.train.Checkpoint(v=tf.Variable([1.0, 2.0])).write(str(tmp_path / "model"))
    entries = dict(_entries((tmp_path / "model.index").read_bytes()))
    value = entries[b"v/.ATTRIBUTES/VARIABLE_VALUE"]
    entry = keras_private.tensor_bundle_pb2.BundleEntryProto.FromString(value)
    assert (entry.size, [dim.size for dim in entry.shape.dim]) == (8, [2])
