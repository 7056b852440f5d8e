"""The smallest networks, settings and data that train, for tests of the engine."""

import numpy as np

from common.configuration.settings import Settings, keys_of, make_settings
from common.data import ArraySource
from common.networks import NETWORKS
from common.networks.build import Networks, build_networks
from common.training.steps import choose_step
from common.variant import Variant
from diff_gamma_cnn.gan_task import VARIANT as DIFF_GAMMA_CNN
from no_gamma_cnn.gan_task import VARIANT as NO_GAMMA_CNN
from no_gamma_resnet.gan_task import VARIANT as NO_GAMMA_RESNET
from same_gamma_cnn.gan_task import VARIANT as SAME_GAMMA_CNN

VARIANTS = {
    variant.name: variant
    for variant in (NO_GAMMA_CNN, SAME_GAMMA_CNN, DIFF_GAMMA_CNN, NO_GAMMA_RESNET)
}

# What small runs are made of: a variant, and changes. "labels" has much that the variants have not:
# labels, the plain step, shuffled epochs with a smaller last batch, flips, a moving average.
RUNS = {
    **{name: (variant, {}) for name, variant in VARIANTS.items()},
    "labels": (
        NO_GAMMA_CNN,
        {
            "network": "tests.examples.own_network:mlp",
            "step": "plain",
            "sampling": "shuffled",
            "flip": True,
            "latents": "uniform",
            "ema_decay": 0.9,
            "ema_start": 2,
            "adam_form": "pytorch",
        },
    ),
    "fused labels": (
        NO_GAMMA_CNN,
        {"network": "tests.training.own_networks:labelled", "step": "fused"},
    ),
    "dropout": (
        NO_GAMMA_CNN,
        {"network": "tests.training.own_networks:dropout"},
    ),
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
    keys = keys_of(Variant(variant.name, **{**variant.choices, **changes}))
    values = {key: value for key, value in {**_VALUES, **changes}.items() if key in keys}
    if ":" in changes.get("network", ""):  # those of the tests normalise themselves, if at all
        values |= {"sn_mode": "none", "scale": 1.0} | {
            k: v for k, v in changes.items() if k in keys
        }
    if variant.choices["gamma"] != "none" and "scale" not in changes:
        del values["scale"]  # the paper has none there
    return values


def small_settings(variant, **changes) -> Settings:
    """`Settings` of the smallest kind for a variant, with changes."""
    return make_settings(variant, values_of(variant, **changes))


def image_shape_of(settings) -> tuple:
    """The shape that the settings' network makes, 8x8 in colours where it makes any."""
    return NETWORKS[settings.network].image_shape(settings.mg) or (8, 8, 3)


def small_networks(settings, root_seed=3, classes=5) -> Networks:
    """The networks of some settings."""
    return build_networks(settings, root_seed, image_shape_of(settings), classes)


def small_step(settings, root_seed=3, classes=5):
    """The step of some settings, with networks of its own."""
    return choose_step(settings, small_networks(settings, root_seed, classes)).step


def source_for(settings):
    """Images of the shape that the settings' network makes, with labels if it takes labels."""
    labels = np.arange(50) % 5 if NETWORKS[settings.network].labelled else None
    return noise_source(image_shape_of(settings), labels=labels)


def noise_source(shape, count=50, labels=None):
    """Random images `[count, *shape]` as an `ImageSource`; a number makes square ones in RGB."""
    shape = (shape, shape, 3) if isinstance(shape, int) else shape
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    facts = {"dataset": "noise", "images": count}
    if labels is None:
        return ArraySource("noise", "array", pixels, facts)
    return ArraySource("noise", "array", pixels, facts, labels=labels, classes=5)
