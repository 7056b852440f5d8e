"""A penalty: spectral norm regularisation (Yoshida and Miyato 2017), `penalty=own_penalty:sigmas`.

`d_gp_coe` times the sum of the squared spectral norms of all kernels.
"""

import tensorflow as tf

from common.losses import Penalty, PenaltyInputs


def squared_norms(inputs: PenaltyInputs) -> tf.Tensor:
    kernels = [v.value for v in inputs.discriminator.trainable_variables if v.name == "kernel"]
    matrices = [tf.reshape(kernel, [-1, kernel.shape[-1]]) for kernel in kernels]
    return tf.add_n([tf.linalg.svd(m, compute_uv=False)[0] ** 2 for m in matrices])


sigmas = Penalty(squared_norms)
