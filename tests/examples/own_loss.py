"""An adversarial loss: a hinge of margin 2, `loss=own_loss:margin`."""

import tensorflow as tf

from common.losses import Loss

margin = Loss(
    real=lambda scores: tf.reduce_mean(tf.nn.relu(2.0 - scores)),
    fake=lambda scores: tf.reduce_mean(tf.nn.relu(2.0 + scores)),
    generator=lambda scores: -tf.reduce_mean(scores),
)
