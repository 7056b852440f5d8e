"""One backward pass for two things: every image's input gradient, and the loss's weight gradients.

A discriminator's output is one score per image, and nothing in it couples the images. So the chain
of derivatives back from the scores is linear in the seed of each image: running it with seed 1
gives the gradient of each score with respect to its own image (whose norm is the "slope" that the
summaries record), and multiplying it, image by image, by the loss's derivative with respect to the
score just before a layer sums over the images gives that layer's weight gradients of the loss.
Dividing the loss's own gradient by that derivative would fail where the hinge is flat (0 / 0).
"""

import contextvars
from collections.abc import Callable
from types import TracebackType

import tensorflow as tf

_active: contextvars.ContextVar["ImageWeights | None"] = contextvars.ContextVar(
    "image_weights", default=None
)


class ImageWeights:
    """A context in which wrapped layers weight their weight gradients image by image.

    Run the forward and the backward pass inside it, and call `set` between the two:

        with ImageWeights() as weights, tf.GradientTape() as tape:
            tape.watch(images)
            scores = model(images)                         # [n, 1]
            weights.set(derivative_of_loss(scores))        # [n]
            ... = tape.gradient(scores, [images, *model.trainable_variables])

    The gradient with respect to `images` is then the sum of scores', and those with respect to the
    layers' variables are the loss's.
    """

    def __init__(self) -> None:
        self._weights: tf.Tensor | None = None

    def set(self, weights: tf.Tensor) -> None:
        """Sets the weight of each image: a tensor `[n]`, the loss's derivative by its score."""
        self._weights = weights

    def get(self) -> tf.Tensor:
        """The weights, `[n]`.

        Raises:
            RuntimeError: they have not been set.
        """
        if self._weights is None:
            raise RuntimeError("ImageWeights.set() must be called before the backward pass.")
        return self._weights

    def __enter__(self) -> "ImageWeights":
        self._token = _active.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _active.reset(self._token)


def current_image_weights() -> ImageWeights | None:
    """The `ImageWeights` whose context the call is in, or None."""
    return _active.get()


Map = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Backward = Callable[[tf.Tensor], tuple[tf.Tensor | None, tf.Tensor]]


def weighted_linear(linear: Map, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`linear(inputs, kernel)`, a bilinear map, its kernel gradient weighted image by image.

    Outside an `ImageWeights` context the gradient is the ordinary one.

    Args:
        linear: `f(inputs, kernel) -> outputs`, linear in each.
        inputs: `[n, ...]`; integers, e.g. of an embedding, have no gradient.
        kernel: of any shape.
    """
    weights = current_image_weights()
    if weights is None:
        return linear(inputs, kernel)

    @tf.custom_gradient
    def call(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Backward]:
        outputs = linear(inputs, kernel)
        differentiable = inputs.dtype.is_floating

        def backward(upstream: tf.Tensor) -> tuple[tf.Tensor | None, tf.Tensor]:
            by_inputs = None
            if differentiable:
                by_inputs = _gradient(lambda x: linear(x, kernel), inputs, upstream)
            # The gradient is bilinear in inputs and upstream: the smaller one takes the weights.
            if differentiable and _size_per_image(inputs) < _size_per_image(upstream):
                weighted = _times(inputs, weights.get()), upstream
            else:
                weighted = inputs, _times(upstream, weights.get())
            by_kernel = _gradient(lambda k: linear(weighted[0], k), kernel, weighted[1])
            return by_inputs, by_kernel

        return outputs, backward

    return call(inputs, kernel)


def weighted_bias_add(add: Map, outputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """`add(outputs, bias)`, the bias' gradient weighted image by image, as in `weighted_linear`.

    Args:
        add: `f(outputs, bias)`, the sum.
        outputs: `[n, ...]`.
        bias: `[c]`.
    """
    weights = current_image_weights()
    if weights is None:
        return add(outputs, bias)

    @tf.custom_gradient
    def call(outputs: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Backward]:
        def backward(upstream: tf.Tensor) -> tuple[tf.Tensor | None, tf.Tensor]:
            flat = tf.reshape(upstream, [tf.shape(upstream)[0], -1])
            over_images = tf.matmul(tf.cast(weights.get(), flat.dtype)[None], flat)
            over_images = tf.reshape(over_images, tf.concat([[1], tf.shape(upstream)[1:]], 0))
            return upstream, _gradient(
                lambda b: add(tf.zeros_like(over_images), b), bias, over_images
            )

        return add(outputs, bias), backward

    return call(outputs, bias)


def _gradient(
    function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, upstream: tf.Tensor
) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = function(x)
    return tape.gradient(outputs, x, upstream)


def _size_per_image(tensor: tf.Tensor) -> float:
    return tensor.shape[1:].num_elements() or float("inf")


def _times(tensor: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """`tensor` `[n, ...]`, that of each image multiplied by the image's weight."""
    shape = [-1] + [1] * (tensor.shape.rank - 1)
    return tensor * tf.reshape(tf.cast(weights, tensor.dtype), shape)
