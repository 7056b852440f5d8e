"""The terms of the adversarial losses: pure functions of scores `[n, 1]` to a scalar."""

import tensorflow as tf


def hinge_real(scores: tf.Tensor) -> tf.Tensor:
    """`mean(relu(1 - D(x)))`, at least 0 (Miyato et al. 2018; FIDELITY section 3)."""
    return tf.reduce_mean(tf.nn.relu(1.0 - scores))


def hinge_fake(scores: tf.Tensor) -> tf.Tensor:
    """`mean(relu(1 + D(G(z))))`, at least 0 (Miyato et al. 2018; FIDELITY section 3)."""
    return tf.reduce_mean(tf.nn.relu(1.0 + scores))


def mean(scores: tf.Tensor) -> tf.Tensor:
    """`mean(D(x))` (Arjovsky et al. 2017)."""
    return tf.reduce_mean(scores)


def negative_mean(scores: tf.Tensor) -> tf.Tensor:
    """`-mean(D(x))` (Arjovsky et al. 2017; FIDELITY section 3)."""
    return -tf.reduce_mean(scores)


def softplus_real(scores: tf.Tensor) -> tf.Tensor:
    """`mean(softplus(-D(x)))`: cross-entropy of "real" (Goodfellow et al. 2014, section 3)."""
    return tf.reduce_mean(tf.nn.softplus(-scores))


def softplus_fake(scores: tf.Tensor) -> tf.Tensor:
    """`mean(softplus(D(x)))`: cross-entropy of "generated" (Goodfellow et al. 2014)."""
    return tf.reduce_mean(tf.nn.softplus(scores))


def squares_real(scores: tf.Tensor) -> tf.Tensor:
    """`mean((D(x) - 1)²) / 2` (Mao et al. 2017, equation 9)."""
    return 0.5 * tf.reduce_mean(tf.square(scores - 1.0))


def squares_fake(scores: tf.Tensor) -> tf.Tensor:
    """`mean(D(x)²) / 2` (Mao et al. 2017, equation 9)."""
    return 0.5 * tf.reduce_mean(tf.square(scores))
