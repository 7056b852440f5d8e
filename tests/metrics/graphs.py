"""Builds frozen graphs in the form that they had in 2015, with random weights."""

import io
import tarfile

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

MEMBER = "inceptionv1_for_inception_score.pb"
FLOAT = tf.float32.as_datatype_enum


class GraphOf2015:
    """A GraphDef of producer version 8 under construction, node by node.

    No Python op of TensorFlow 2 is used: the attributes are those that the ops had then.
    """

    def __init__(self, seed: int = 0) -> None:
        self.graph = graph_pb2.GraphDef()
        self.graph.versions.producer = 8
        self.rng = np.random.default_rng(seed)

    def node(self, op, name, *inputs, **attributes):
        node = self.graph.node.add(op=op, name=name, input=inputs)
        for key, value in attributes.items():
            attribute = node.attr[key]
            if isinstance(value, bool):
                attribute.b = value
            elif isinstance(value, int):
                attribute.type = value
            elif isinstance(value, float):
                attribute.f = value
            elif isinstance(value, bytes):
                attribute.s = value
            else:
                attribute.list.i.extend(value)
        return name

    def constant(self, name, value):
        tensor = tf.make_tensor_proto(value)
        node = self.graph.node.add(op="Const", name=name)
        node.attr["dtype"].type = tensor.dtype
        node.attr["value"].tensor.CopyFrom(tensor)
        return name

    def random(self, name, shape, scale=1.0, shift=0.0):
        values = shift + scale * self.rng.standard_normal(shape)
        return self.constant(name, values.astype(np.float32))

    def convolution(self, name, source, shape, stride, *, scaled, control="^seed"):
        """Convolution, normalisation, check, identity and ReLU, as every layer of Inception."""
        channels = shape[-1]
        fan_in = np.prod(shape[:-1])
        weights = self.random(f"{name}/conv2d_params", shape, fan_in**-0.5)
        convolved = self.node(
            "Conv2D", f"{name}/Conv2D", source, weights,
            T=FLOAT, strides=[1, stride, stride, 1], padding=b"SAME", use_cudnn_on_gpu=True,
        )  # fmt: skip
        parameters = [
            self.random(f"{name}/batchnorm/moving_mean", [channels], 0.2),
            self.constant(
                f"{name}/batchnorm/moving_variance",
                self.rng.uniform(0.2, 2.0, channels).astype(np.float32),
            ),
            self.random(f"{name}/batchnorm/beta", [channels], 0.3),
            self.random(f"{name}/batchnorm/gamma", [channels], 0.3, shift=1.5),
        ]
        normalised = self.node(
            "BatchNormWithGlobalNormalization", f"{name}/batchnorm", convolved, *parameters,
            T=FLOAT, variance_epsilon=0.001, scale_after_normalization=scaled,
        )  # fmt: skip
        self.node("CheckNumerics", f"{name}/CheckNumerics", normalised, T=FLOAT, message=b"bad")
        passed = self.node(
            "Identity", f"{name}/control_dependency", normalised, f"^{name}/CheckNumerics", T=FLOAT
        )
        return self.node("Relu", name, passed, control, T=FLOAT)

    def pool(self, op, name, source, *, window, stride, padding):
        sizes = {"ksize": [1, window, window, 1], "strides": [1, stride, stride, 1]}
        extra = {"T": FLOAT} if op == "AvgPool" else {}  # MaxPool had no type yet
        return self.node(op, name, source, padding=padding, **sizes, **extra)


def small_inception(seed: int = 0, features: int = 2048, logits: int = 1008):
    """A tiny network with the input, outputs, ops and idioms of the published graph."""
    g = GraphOf2015(seed)
    contents = g.constant("DecodeJpeg/contents", b"no jpeg")
    g.node("DecodeJpeg", "DecodeJpeg", contents)
    g.node("Placeholder", "image", dtype=FLOAT)
    g.node("Sub", "Sub", "image", g.constant("Sub/y", np.float32(128)), "^DecodeJpeg", T=FLOAT)
    g.node("Mul", "Mul", "Sub", g.constant("Mul/y", np.float32(1 / 128)), T=FLOAT)
    g.constant("seed", 1)
    hidden = g.convolution("conv", "Mul:0", [3, 3, 3, 8], 8, scaled=False)
    hidden = g.pool("MaxPool", "pool", hidden, window=3, stride=2, padding=b"VALID")
    left = g.convolution("mixed/conv", hidden, [1, 1, 8, 6], 1, scaled=True)
    right = g.pool("AvgPool", "mixed/tower/pool", hidden, window=3, stride=1, padding=b"SAME")
    right = g.convolution(
        "mixed/tower/conv", right, [3, 3, 8, 10], 1, scaled=False, control="^mixed/conv"
    )
    axis = g.constant("mixed/join/concat_dim", 3)
    hidden = g.node("Concat", "mixed/join", axis, left, right, T=FLOAT)
    g.graph.node[-1].attr["N"].i = 2
    hidden = g.convolution("mixed_1", hidden, [1, 1, 16, features], 2, scaled=True)
    pooled = g.pool("AvgPool", "pool_3", hidden, window=9, stride=1, padding=b"VALID")
    shape = g.constant("pool_3/_reshape/shape", np.array([-1, features], np.int32))
    flat = g.node("Reshape", "pool_3/_reshape", pooled, shape, T=FLOAT)
    weights = g.random("softmax/weights", [features, logits], features**-0.5)
    product = g.node("MatMul", "softmax/logits/MatMul", flat, weights, T=FLOAT)
    biased = g.node("BiasAdd", "logits_sum", product, g.random("biases", [logits]), T=FLOAT)
    g.node("Identity", "logits", biased, T=FLOAT)
    g.node("Softmax", "softmax", "logits", T=FLOAT)
    return g.graph


def run_untouched(graph, images):
    """Features and logits by a Session of TensorFlow 1, which knows the removed op."""
    with tf.Graph().as_default() as tf_graph:
        tf.compat.v1.import_graph_def(graph, name="")
        with tf.compat.v1.Session(graph=tf_graph) as session:
            return session.run(["pool_3:0", "logits:0"], {"Mul:0": images})


def tar_gz(members):
    """A .tar.gz of `(TarInfo or name, bytes)` pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, data in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
