"""One backward pass for two things: every image's input gradient, and the loss's weight gradients.

A discriminator's output is one score per image, and nothing in it couples the images. So the chain
of derivatives back from the scores is linear in the seed of each image: running it with seed 1
gives the gradient of each score with respect to its own image (whose norm is the "slope" that the
summaries record), and multiplying it, image by image, by the loss's derivative with respect to the
score just before a layer sums over the images gives that layer's weight gradients of the loss.
Dividing the loss's own gradient by that derivative would fail where the hinge is flat (0 / 0).
"""

import contextvars

import tensorflow as tf

_active = contextvars.ContextVar("image_weights", default=None)


class ImageWeights:
    """A context in which normalised layers weight their weight gradients image by image.

    Run the forward and the backward pass inside it, and call `set` between the two:

        with ImageWeights() as weights, tf.GradientTape() as tape:
            tape.watch(images)
            scores = model(images)                         # [n, 1]
            weights.set(derivative_of_loss(scores))        # [n]
            ... = tape.gradient(scores, [images, *model.trainable_variables])

    The gradient with respect to `images` is then the sum of scores', and those with respect to the
    layers' variables are the loss's.
    """

    def __init__(self):
        self._weights = None

    def set(self, weights):
        """Sets the weight of each image: a tensor `[n]`, the loss's derivative by its score."""
        self._weights = weights

    def weigh(self, gradients):
        """`gradients` `[n, ...]`, those of each image multiplied by the image's weight."""
        if self._weights is None:
            raise RuntimeError("ImageWeights.set() must be called before the backward pass.")
        shape = [-1] + [1] * (gradients.shape.rank - 1)
        return gradients * tf.reshape(tf.cast(self._weights, gradients.dtype), shape)

    def __enter__(self):
        self._token = _active.set(self)
        return self

    def __exit__(self, *exception):
        _active.reset(self._token)


def current_image_weights():
    """The `ImageWeights` whose context the call is in, or None."""
    return _active.get()


def weighted_by_image(function, inputs, *parameters):
    """`function(inputs, *parameters)`, the parameters' gradients weighted image by image."""
    weights = current_image_weights()

    @tf.custom_gradient
    def call(inputs, *parameters):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([inputs, *parameters])
            outputs = function(inputs, *parameters)

        def backward(upstream):
            by_inputs = tape.gradient(outputs, inputs, upstream)
            by_parameters = tape.gradient(outputs, list(parameters), weights.weigh(upstream))
            return [by_inputs, *by_parameters]

        return outputs, backward

    return call(inputs, *parameters)
