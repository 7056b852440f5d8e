"""The arithmetic that an iteration cannot do without, and how long it takes on its own.

An iteration is measured by its matrix products and convolutions, run one after another on data
that is ready, with nothing between them. They are counted and timed here layer by layer, on the
layers of the very networks that are trained.
"""

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from common.layers import Reparametrized

_PASSES = ("forward", "by_inputs", "by_kernel")


@dataclass(frozen=True)
class Work:
    """How often an iteration runs a layer's linear map, or a derivative of it, on a batch.

    Attributes:
        layer: a Keras layer that has a kernel.
        inputs_shape: of one image's inputs.
        images: number of images at a time.
        counts: `{"forward" | "by_inputs" | "by_kernel": times per iteration}`.
    """

    layer: Any
    inputs_shape: tuple
    images: int
    counts: dict


def iteration_work(step, settings, *, with_summaries):
    """The `Work` of one training iteration of a step.

    Every discriminator step sends real and generated images forward and back; the slopes of the
    summaries (of its last) need the first layer's input derivative, too. The penalty sends its
    images forward and back and that chain, differentiated, forward and to the kernels once more.
    """
    d_images = settings.d_batch_size or settings.batch_size
    g_images = settings.g_batch_size or settings.batch_size
    n_dis, redraws = settings.n_dis, settings.redraw_latents
    work = []
    for index, (layer, shape) in enumerate(_linear_layers(step.generator)):
        full = {"forward": 1, "by_inputs": int(index > 0), "by_kernel": 1}
        work.append(Work(layer, shape, g_images, full))
        work.append(Work(layer, shape, d_images, {"forward": n_dis - (not redraws)}))
    after_update = settings.summary_after_update and with_summaries
    first = set(_first_layers(step.discriminator))
    for layer, shape in _linear_layers(step.discriminator):
        by_inputs = n_dis if layer not in first else int(with_summaries and not after_update)
        training = {"forward": n_dis, "by_inputs": by_inputs, "by_kernel": n_dis}
        measuring = dict.fromkeys(("forward", "by_inputs"), int(after_update))
        penalty = {"forward": 2 * n_dis, "by_inputs": n_dis, "by_kernel": n_dis}
        work.append(Work(layer, shape, 2 * d_images, training))
        work.append(Work(layer, shape, 2 * d_images, measuring))
        work.append(Work(layer, shape, g_images, {"forward": 1, "by_inputs": 1}))
        if settings.penalty != "none":
            work.append(Work(layer, shape, d_images, penalty))
    return [item for item in work if any(item.counts.values())]


def _linear_layers(model):
    """`(layer, shape of an image's inputs)` of the layers that have kernels, unwrapped."""
    kinds = (keras.layers.Conv2D, keras.layers.Conv2DTranspose, keras.layers.Dense)
    for layer in model.layers:
        inner = layer.layer if isinstance(layer, Reparametrized) else layer
        if isinstance(inner, kinds):
            inputs = layer.input[0] if isinstance(layer.input, (list, tuple)) else layer.input
            yield inner, tuple(inputs.shape[1:])


def _first_layers(model):
    """The layers with kernels that see the images themselves, at any resolution."""
    return [layer for layer, shape in _linear_layers(model) if shape[-1] == 3]


def _linear_map(layer):
    """The layer's linear map as `f(inputs, kernel)`."""
    if isinstance(layer, keras.layers.Dense):
        return tf.matmul
    if isinstance(layer, keras.layers.Conv2DTranspose):
        return lambda x, kernel: keras.ops.conv_transpose(
            x, kernel, list(layer.strides), layer.padding
        )
    return layer.convolution_op


class WorkFunctions:
    """Compiled functions that do some work on random data; calling the object runs each as often
    as an iteration does.

    Args:
        work: list of `Work`.
    """

    def __init__(self, work):
        self._calls = []
        self.flop = 0
        compiled = {}
        for item in work:
            for name in _PASSES:
                count = item.counts.get(name, 0)
                key = (item.layer.name, item.images, name)
                if count and key not in compiled:
                    compiled[key] = self._compile(item, name)
                if count:
                    function, flop = compiled[key]
                    self._calls.append((function, count))
                    self.flop += count * flop

    def __call__(self):
        for function, count in self._calls:
            for _ in range(count):
                function()

    @staticmethod
    def _compile(work, name):
        linear = _linear_map(work.layer)
        inputs = tf.random.normal((work.images, *work.inputs_shape))
        kernel = tf.random.normal(work.layer.kernel.shape, stddev=0.02)
        upstream = tf.random.normal(tf.shape(linear(inputs, kernel)))

        def forward(inputs, kernel, upstream):
            del upstream
            return linear(inputs, kernel)

        def derivative(inputs, kernel, upstream):
            target = inputs if name == "by_inputs" else kernel
            with tf.GradientTape() as tape:
                tape.watch(target)
                outputs = linear(inputs, kernel)
            return tape.gradient(outputs, target, upstream)

        function = tf.function(forward if name == "forward" else derivative, autograph=False)
        concrete = function.get_concrete_function(inputs, kernel, upstream)
        # A derivative needs as many operations as the map itself.
        flop = _flop(tf.function(forward).get_concrete_function(inputs, kernel, upstream))
        return (lambda: concrete(inputs, kernel, upstream)), flop


def _flop(concrete):
    """Floating-point operations of a function's convolutions and matrix products."""
    return sum(_node_flop(operation) for operation in concrete.graph.get_operations())


def _node_flop(operation):
    if operation.type == "MatMul":
        (rows, inner), columns = operation.inputs[0].shape, operation.outputs[0].shape[1]
        return 2 * rows * inner * columns
    if operation.type == "Conv2D":
        positions = operation.outputs[0].shape[:3].num_elements()
        return 2 * positions * operation.inputs[1].shape.num_elements()
    if operation.type == "Conv2DBackpropInput":
        positions = operation.inputs[2].shape[:3].num_elements()
        return 2 * positions * operation.inputs[1].shape.num_elements()
    return 0
