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

    def convolution(self, name, source, shape, stride, *, scaled, control="^seed", padding=b"SAME"):
        """Convolution, normalisation, check, identity and ReLU, as every layer of Inception."""
        channels = shape[-1]
        fan_in = np.prod(shape[:-1])
        weights = self.random(f"{name}/conv2d_params", shape, fan_in**-0.5)
        convolved = self.node(
            "Conv2D", f"{name}/Conv2D", source, weights,
            T=FLOAT, strides=[1, stride, stride, 1], padding=padding, use_cudnn_on_gpu=True,
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


class FullInception(GraphOf2015):
    """The published graph's layers in their real sizes, with random weights.

    Attributes:
        weights: the same numbers under the names, and in the layout, of their PyTorch conversion.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.weights = {}
        self.channels = {"Mul": 3}
        self.node("Placeholder", "Mul", dtype=FLOAT)
        self.constant("seed", 1)
        hidden = self._stem()
        for letter, pooled in zip("bcd", (32, 64, 64), strict=True):
            hidden = self._block_35(f"Mixed_5{letter}", hidden, pooled)
        hidden = self._reduction(
            "Mixed_6a", hidden, [("branch3x3", [(384, 3, 3)])],
            ("branch3x3dbl", [(64, 1, 1), (96, 3, 3), (96, 3, 3)]),
        )  # fmt: skip
        for letter, width in zip("bcde", (128, 160, 160, 192), strict=True):
            hidden = self._block_17(f"Mixed_6{letter}", hidden, width)
        hidden = self._reduction(
            "Mixed_7a", hidden, [("branch3x3", [(192, 1, 1), (320, 3, 3)])],
            ("branch7x7x3", [(192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3)]),
        )  # fmt: skip
        hidden = self._block_8("Mixed_7b", hidden, "AvgPool")
        hidden = self._block_8("Mixed_7c", hidden, "MaxPool")
        self.pool("AvgPool", "pool_3", hidden, window=8, stride=1, padding=b"VALID")
        self._classifier()

    def layer(self, name, source, size, stride=1, padding=b"SAME"):
        filters, height, width = size
        shape = [height, width, self.channels[source], filters]
        self.convolution(name, source, shape, stride, scaled=True, padding=padding)
        self.channels[name] = filters
        value = {
            node.name: tf.make_ndarray(node.attr["value"].tensor)
            for node in self.graph.node[-12:]
            if node.op == "Const"
        }
        self.weights |= {
            f"{name}.conv.weight": value[f"{name}/conv2d_params"].transpose(3, 2, 0, 1),
            f"{name}.bn.weight": value[f"{name}/batchnorm/gamma"],
            f"{name}.bn.bias": value[f"{name}/batchnorm/beta"],
            f"{name}.bn.running_mean": value[f"{name}/batchnorm/moving_mean"],
            f"{name}.bn.running_var": value[f"{name}/batchnorm/moving_variance"],
            f"{name}.bn.num_batches_tracked": np.array(7),
        }
        return name

    def chain(self, name, source, sizes, last=(1, b"SAME")):
        for number, size in enumerate(sizes, start=1):
            place = f"{name}_{number}" if len(sizes) > 1 else name
            stride, padding = last if number == len(sizes) else (1, b"SAME")
            source = self.layer(place, source, size, stride, padding)
        return source

    def pooled(self, op, name, source, stride=1, padding=b"SAME"):
        self.pool(op, name, source, window=3, stride=stride, padding=padding)
        self.channels[name] = self.channels[source]
        return name

    def join(self, name, *branches):
        axis = self.constant(f"{name}/axis", 3)
        self.node("Concat", name, axis, *branches, T=FLOAT)
        self.graph.node[-1].attr["N"].i = len(branches)
        self.channels[name] = sum(self.channels[branch] for branch in branches)
        return name

    def _stem(self):
        hidden = self.layer("Conv2d_1a_3x3", "Mul", (32, 3, 3), 2, b"VALID")
        hidden = self.layer("Conv2d_2a_3x3", hidden, (32, 3, 3), 1, b"VALID")
        hidden = self.layer("Conv2d_2b_3x3", hidden, (64, 3, 3))
        hidden = self.pooled("MaxPool", "pool", hidden, 2, b"VALID")
        hidden = self.layer("Conv2d_3b_1x1", hidden, (80, 1, 1), 1, b"VALID")
        hidden = self.layer("Conv2d_4a_3x3", hidden, (192, 3, 3), 1, b"VALID")
        return self.pooled("MaxPool", "pool_1", hidden, 2, b"VALID")

    def _pool_branch(self, name, source, filters, op="AvgPool"):
        return self.layer(
            f"{name}.branch_pool", self.pooled(op, f"{name}/pool", source), (filters, 1, 1)
        )

    def _block_35(self, name, source, pooled):
        return self.join(
            name,
            self.layer(f"{name}.branch1x1", source, (64, 1, 1)),
            self.chain(f"{name}.branch5x5", source, [(48, 1, 1), (64, 5, 5)]),
            self.chain(f"{name}.branch3x3dbl", source, [(64, 1, 1), (96, 3, 3), (96, 3, 3)]),
            self._pool_branch(name, source, pooled),
        )

    def _reduction(self, name, source, first, second):
        branches = [
            self.chain(f"{name}.{branch}", source, sizes, last=(2, b"VALID"))
            for branch, sizes in (*first, second)
        ]
        pooled = self.pooled("MaxPool", f"{name}/pool", source, 2, b"VALID")
        return self.join(name, *branches, pooled)

    def _block_17(self, name, source, width):
        row, column = (1, 7), (7, 1)
        sizes = [(width, 1, 1), *((width, *shape) for shape in (column, row, column))]
        return self.join(
            name,
            self.layer(f"{name}.branch1x1", source, (192, 1, 1)),
            self.chain(f"{name}.branch7x7", source, [(width, 1, 1), (width, *row), (192, *column)]),
            self.chain(f"{name}.branch7x7dbl", source, [*sizes, (192, *row)]),
            self._pool_branch(name, source, 192),
        )

    def _block_8(self, name, source, op):
        ends = []
        starts = {
            f"{name}.branch3x3_2": self.layer(f"{name}.branch3x3_1", source, (384, 1, 1)),
            f"{name}.branch3x3dbl_3": self.layer(
                f"{name}.branch3x3dbl_2",
                self.layer(f"{name}.branch3x3dbl_1", source, (448, 1, 1)), (384, 3, 3),
            ),
        }  # fmt: skip
        for place, start in starts.items():
            halves = [
                self.layer(f"{place}a", start, (384, 1, 3)),
                self.layer(f"{place}b", start, (384, 3, 1)),
            ]
            ends.append(self.join(f"{place}/join", *halves))
        return self.join(
            name,
            self.layer(f"{name}.branch1x1", source, (320, 1, 1)),
            *ends,
            self._pool_branch(name, source, 192, op),
        )

    def _classifier(self):
        shape = self.constant("pool_3/_reshape/shape", np.array([-1, 2048], np.int32))
        flat = self.node("Reshape", "pool_3/_reshape", "pool_3", shape, T=FLOAT)
        weights = self.random("softmax/weights", [2048, 1008], 2048**-0.5)
        product = self.node("MatMul", "softmax/logits/MatMul", flat, weights, T=FLOAT)
        biases = self.random("softmax/biases", [1008])
        self.node("BiasAdd", "logits", product, biases, T=FLOAT)
        nodes = {node.name: node for node in self.graph.node[-4:]}
        value = {n: tf.make_ndarray(nodes[n].attr["value"].tensor) for n in (weights, biases)}
        self.weights |= {"fc.weight": value[weights].T, "fc.bias": value[biases]}


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
