"""The smallest networks, settings and data that train, for tests of the engine."""

import numpy as np

from common.configuration.settings import keys_of, make_settings
from common.data import ArraySource
from diff_gamma_cnn.gan_task import VARIANT as DIFF_GAMMA_CNN
from no_gamma_cnn.gan_task import VARIANT as NO_GAMMA_CNN
from no_gamma_resnet.gan_task import VARIANT as NO_GAMMA_RESNET
from same_gamma_cnn.gan_task import VARIANT as SAME_GAMMA_CNN

VARIANTS = {
    variant.name: variant
    for variant in (NO_GAMMA_CNN, SAME_GAMMA_CNN, DIFF_GAMMA_CNN, NO_GAMMA_RESNET)
}

_VALUES = {
    "dataset": "digits",
    "iteration": 4,
    "run": 0,
    "g_lr": 1e-3,
    "d_lr": 2e-3,
    "g_beta1": 0.5,
    "d_beta1": 0.4,
    "g_beta2": 0.99,
    "d_beta2": 0.9,
    "n_dis": 2,
    "mg": 1,
    "sn_mode": "BSN",
    "scale": 1.3,
    "d_gp_coe": 10.0,
    "batch_size": 4,
    "d_batch_size": 4,
    "g_batch_size": 6,
    "num_gpus": 1,
    "latent_dim": 8,
    "vis_freq": 2,
    "vis_num_h": 2,
    "vis_num_w": 3,
    "summary_freq": 1,
    "metric_freq": 2,
    "save_checkpoint_freq": 2,
    "extra_checkpoint_freq": 4,
    "width": 2,
    "is_samples": 40,
    "fid_samples": 30,
    "fid_real": 20,
}


def values_of(variant, **changes):
    """The smallest configuration of a variant, `{key: value}`, with changes."""
    keys = keys_of(variant)
    return {key: value for key, value in {**_VALUES, **changes}.items() if key in keys}


def small_settings(variant, **changes):
    """`Settings` of the smallest kind for a variant, with changes."""
    return make_settings(variant, values_of(variant, **changes))


def noise_source(size, count=50):
    """Random images `[count, size, size, 3]` as an `ImageSource`."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return ArraySource("noise", "array", pixels, {"dataset": "noise", "images": count})
