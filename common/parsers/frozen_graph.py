"""Runs a frozen graph of 2015 inside TensorFlow 2.

Such graphs use the op BatchNormWithGlobalNormalization, which TensorFlow refuses since GraphDef
version 9, and check every activation with CheckNumerics, which costs much time. The graph is
therefore rewritten: cut at its input, freed of Identity, CheckNumerics and control edges, and each
of those normalisations folded into the convolution before it (specification, section 6).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from common.errors import UserError
from common.keras_private import graph_pb2, node_def_pb2

_BATCH_NORM = "BatchNormWithGlobalNormalization"
_PASS_THROUGH = frozenset({"Identity", "CheckNumerics", "StopGradient"})
_ADDITIONS = frozenset({"BiasAdd", "Add", "AddV2"})
# Stateless ops without side effects: whatever else a graph contains is not a classifier's.
_ALLOWED = frozenset(
    {"Const", "Placeholder", "Conv2D", "MatMul", "BiasAdd", "Add", "AddV2", "Sub", "Mul"}
    | {"Relu", "Relu6", "Softmax", "LRN", "MaxPool", "AvgPool", "Mean", "Concat", "ConcatV2"}
    | {"Reshape", "Squeeze", "ExpandDims", "Shape", "Slice", "StridedSlice", "Pack", "Cast"}
)
# A few bytes can declare a constant of any size; Inception's largest has 2 million numbers.
_MAX_CONSTANT_ELEMENTS = 2**26

_LARGE_CONSTANT = 2**12  # bytes

Nodes = dict[str, node_def_pb2.NodeDef]


def parse_graph(data: bytes) -> graph_pb2.GraphDef:
    """Parses a serialised GraphDef from an untrusted source.

    Raises:
        UserError: The bytes are not a GraphDef with at least one node.
    """
    graph = graph_pb2.GraphDef()
    try:
        graph.ParseFromString(data)
    except DecodeError as error:
        raise UserError(f"the file is not a TensorFlow GraphDef ({error}); get it again") from error
    if not graph.node:
        raise UserError("the GraphDef has no nodes; get the file again")
    return graph


def rewrite(
    graph: graph_pb2.GraphDef,
    input_name: str,
    input_shape: Sequence[int | None],
    output_names: Sequence[str],
) -> tuple[graph_pb2.GraphDef, list[str]]:
    """Rewrites a frozen graph so that a function of TensorFlow 2 can hold it.

    Args:
        graph: The graph as published; not changed.
        input_name: Node that becomes a float32 placeholder; what comes before it is dropped.
        input_shape: Shape of that placeholder, None where any size will do.
        output_names: Nodes whose first output is wanted; what they do not need is dropped.

    Returns:
        The new graph, of the current producer version, and the names of its output tensors, which
        differ from `output_names` where those were mere Identity or CheckNumerics nodes.

    Raises:
        UserError: A node is missing or used twice as a name, an op is not expected in a
            classifier, or a normalisation does not follow a convolution with constant weights.
    """
    nodes = _named_nodes(graph)
    absent = [name for name in (input_name, *output_names) if name not in nodes]
    if absent:
        raise UserError(f"the graph has no node {', '.join(absent)}; it is not the expected one")
    nodes[input_name] = _placeholder(input_name, input_shape)
    outputs = [_resolve(name, nodes) for name in output_names]
    nodes = {name: _cleaned(node, nodes) for name, node in nodes.items()}
    nodes = _needed(nodes, outputs)
    for node in [node for node in nodes.values() if node.op == _BATCH_NORM]:
        nodes.update({new.name: new for new in _folded(node, nodes)})
    nodes = _needed(nodes, outputs)
    _refuse_unexpected(nodes)
    rewritten = graph_pb2.GraphDef(node=nodes.values())
    rewritten.versions.producer = tf.version.GRAPH_DEF_VERSION
    return rewritten, outputs


def before_bias(graph: graph_pb2.GraphDef, output_name: str) -> str | None:
    """Finds the node to whose output a node does no more than add a constant vector.

    Args:
        graph: The graph as published.
        output_name: The node that adds it, possibly behind nodes that only pass it on.

    Returns:
        The other node's name, or None if the output is not made in that way.

    Raises:
        UserError: The graph is damaged.
    """
    nodes = _named_nodes(graph)
    adding = nodes.get(_node_of(_resolve(output_name, nodes)))
    if adding is None or adding.op not in _ADDITIONS or len(adding.input) < 2:
        return None
    term, bias = (_node_of(_resolve(source, nodes)) for source in adding.input[:2])
    return term if bias in nodes and nodes[bias].op == "Const" else None


def import_function(
    graph: graph_pb2.GraphDef, input_name: str, outputs: Sequence[str]
) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """Makes a function of a rewritten graph.

    Args:
        graph: Result of `rewrite`.
        input_name: Name of its placeholder.
        outputs: Names of its output tensors.

    Returns:
        A function from the input tensor to the list of output tensors.

    Raises:
        UserError: TensorFlow refuses the graph.
    """
    # Weights within a graph are copied whenever TensorFlow copies or optimises the graph, which
    # took gigabytes; handed over as tensors they exist once.
    light, weights = _without_weights(graph)
    try:
        imported = tf.compat.v1.wrap_function(
            lambda: tf.compat.v1.import_graph_def(light, name=""), []
        )
        pruned = imported.prune(
            [imported.graph.get_tensor_by_name(f"{name}:0") for name in (input_name, *weights)],
            [imported.graph.get_tensor_by_name(name) for name in outputs],
        )
    # Besides these, a reference to an output that a node does not have is a KeyError.
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        raise UserError(f"TensorFlow cannot import the frozen graph: {error}") from error
    return lambda images: pruned(images, *weights.values())


def _without_weights(
    graph: graph_pb2.GraphDef,
) -> tuple[graph_pb2.GraphDef, dict[str, tf.Tensor]]:
    """The graph with placeholders for its large float32 constants, and these by name."""
    weights = {
        node.name: tf.constant(_array(node)) for node in graph.node if _is_large_constant(node)
    }
    nodes = (
        _placeholder(node.name, weights[node.name].shape) if node.name in weights else node
        for node in graph.node
    )
    return graph_pb2.GraphDef(node=nodes, versions=graph.versions), weights


def _is_large_constant(node: node_def_pb2.NodeDef) -> bool:
    """Whether a node is a float32 constant of many bytes, all of which the file really holds.

    What is not as it should be is left to TensorFlow, which refuses it.
    """
    if node.op != "Const" or node.input:
        return False
    tensor = node.attr["value"].tensor  # which, of another op, would add the attribute
    is_float32 = node.attr["dtype"].type == tensor.dtype == tf.float32.as_datatype_enum
    return is_float32 and len(tensor.tensor_content) > _LARGE_CONSTANT


def _named_nodes(graph: graph_pb2.GraphDef) -> Nodes:
    nodes = {node.name: node for node in graph.node}
    if len(nodes) != len(graph.node):
        raise UserError("the graph has several nodes of one name; it is not the expected one")
    return nodes


def _placeholder(name: str, shape: Sequence[int | None]) -> node_def_pb2.NodeDef:
    node = node_def_pb2.NodeDef(name=name, op="Placeholder")
    node.attr["dtype"].type = tf.float32.as_datatype_enum
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return node


def _node_of(tensor: str) -> str:
    return tensor.rpartition(":")[0] if ":" in tensor else tensor


def _resolve(tensor: str, nodes: Nodes) -> str:
    """Follows a tensor back through nodes that only pass it on; returns `name:index`."""
    seen = set()
    while (name := _node_of(tensor)) in nodes and nodes[name].op in _PASS_THROUGH:
        data = [source for source in nodes[name].input if not source.startswith("^")]
        if name in seen or len(data) != 1:
            raise UserError(f"node {name} of the graph has no single input; the file is damaged")
        seen.add(name)
        tensor = data[0]
    return tensor if ":" in tensor else f"{tensor}:0"


def _cleaned(node: node_def_pb2.NodeDef, nodes: Nodes) -> node_def_pb2.NodeDef:
    """Copies a node without control edges, device and hints, its inputs resolved."""
    cleaned = node_def_pb2.NodeDef(name=node.name, op=node.op)
    cleaned.input.extend(_resolve(source, nodes) for source in node.input if source[:1] != "^")
    for key, value in node.attr.items():
        if not key.startswith("_"):
            cleaned.attr[key].CopyFrom(value)
    return cleaned


def _needed(nodes: Nodes, outputs: Sequence[str]) -> Nodes:
    """Keeps the nodes that the outputs depend on."""
    needed: Nodes = {}
    pending = [(_node_of(output), "an output") for output in outputs]
    while pending:
        name, user = pending.pop()
        if name in needed:
            continue
        if name not in nodes:
            raise UserError(f"the graph has no node {name}, which {user} needs; it is incomplete")
        needed[name] = nodes[name]
        pending += [(_node_of(source), f"node {name}") for source in nodes[name].input]
    return needed


def _refuse_unexpected(nodes: Nodes) -> None:
    unexpected = sorted({node.op for node in nodes.values()} - _ALLOWED)
    if unexpected:
        raise UserError(
            f"the graph uses the op(s) {', '.join(unexpected)}, which the expected one does not"
        )
    for node in nodes.values():
        if node.op == "Const":
            _refuse_oversized(node)


def _refuse_oversized(node: node_def_pb2.NodeDef) -> None:
    sizes = [dimension.size for dimension in node.attr["value"].tensor.tensor_shape.dim]
    if math.prod(sizes) > _MAX_CONSTANT_ELEMENTS or any(size < 0 for size in sizes):
        raise UserError(f"constant {node.name} of the graph has the impossible shape {sizes}")


def _constant_value(tensor: str, nodes: Nodes, user: str) -> np.ndarray:
    """Value of a constant that `user` reads, in float64."""
    node = nodes[_node_of(tensor)]
    if node.op != "Const":
        raise UserError(f"node {node.name}, which {user} reads, is a {node.op}, not a constant")
    return _array(node).astype(np.float64)


def _array(constant: node_def_pb2.NodeDef) -> np.ndarray:
    _refuse_oversized(constant)
    try:
        return tf.make_ndarray(constant.attr["value"].tensor)
    except (ValueError, TypeError) as error:
        raise UserError(f"constant {constant.name} of the graph is damaged: {error}") from error


def _constant(name: str, value: np.ndarray) -> node_def_pb2.NodeDef:
    node = node_def_pb2.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tf.float32.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.float32))
    return node


def _folded(norm: node_def_pb2.NodeDef, nodes: Nodes) -> list[node_def_pb2.NodeDef]:
    """Replaces a normalisation of a convolution by a convolution and a bias.

    `(x * K - mean) / sqrt(variance + epsilon) * gamma + beta` is `x * (K s) + beta - mean s`
    with `s = gamma / sqrt(variance + epsilon)` along the kernel's last axis; `gamma` counts
    only if `scale_after_normalization` is set. The convolution before it is left alone, for it
    may have other users; if it has none it is dropped later.
    """
    if len(norm.input) != 5:
        raise UserError(f"node {norm.name} of the graph has {len(norm.input)} inputs instead of 5")
    convolution = nodes[_node_of(norm.input[0])]
    if convolution.op != "Conv2D" or len(convolution.input) != 2:
        raise UserError(f"node {norm.name} of the graph does not follow a convolution")
    if convolution.attr["data_format"].s not in {b"", b"NHWC"}:
        raise UserError(f"convolution {convolution.name} of the graph does not use NHWC")
    kernel = _constant_value(convolution.input[1], nodes, convolution.name)
    mean, variance, beta, gamma = (
        _constant_value(source, nodes, norm.name) for source in norm.input[1:]
    )
    parameters = (mean, variance, beta, gamma)
    if kernel.ndim != 4 or any(vector.shape != kernel.shape[3:] for vector in parameters):
        raise UserError(f"node {norm.name} of the graph has parameters of unfitting shapes")
    with np.errstate(invalid="ignore", divide="ignore"):  # refused just below
        scale = 1 / np.sqrt(variance + norm.attr["variance_epsilon"].f)
    if norm.attr["scale_after_normalization"].b:
        scale = scale * gamma
    kernel, bias = kernel * scale, beta - mean * scale
    # The checks that are dropped would have found these at run time; a ReLU may hide them.
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise UserError(f"node {norm.name} of the graph has damaged weights: NaN or infinity")
    return _convolution_and_bias(norm.name, convolution, kernel, bias)


def _convolution_and_bias(
    name: str, convolution: node_def_pb2.NodeDef, kernel: np.ndarray, bias: np.ndarray
) -> list[node_def_pb2.NodeDef]:
    """Nodes of a convolution with another kernel and of a bias, the last one of this name."""
    folded_kernel = _constant(f"{name}/folded/kernel", kernel)
    folded_bias = _constant(f"{name}/folded/bias", bias)
    folded = node_def_pb2.NodeDef()
    folded.CopyFrom(convolution)
    folded.name = f"{name}/folded/convolution"
    folded.input[1] = folded_kernel.name
    biased = node_def_pb2.NodeDef(name=name, op="BiasAdd")
    biased.input.extend([folded.name, folded_bias.name])
    biased.attr["T"].type = tf.float32.as_datatype_enum
    return [folded_kernel, folded_bias, folded, biased]
