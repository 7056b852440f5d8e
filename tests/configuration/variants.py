"""The variants and a small configuration for tests of settings and sweeps."""

from diff_gamma_cnn.gan_task import VARIANT as DIFF_GAMMA
from no_gamma_cnn.gan_task import VARIANT as NO_GAMMA
from no_gamma_resnet.gan_task import VARIANT as RESNET
from same_gamma_cnn.gan_task import VARIANT as SAME_GAMMA

VARIANTS = (NO_GAMMA, SAME_GAMMA, DIFF_GAMMA, RESNET)

# One complete job of `no_gamma_cnn`: the keys of specification, section 8.
GLOBAL = {
    "batch_size": 64,
    "vis_freq": 200,
    "vis_num_h": 10,
    "vis_num_w": 10,
    "latent_dim": 128,
    "summary_freq": 1,
    "metric_freq": 10_000,
    "extra_checkpoint_freq": 100_000,
    "save_checkpoint_freq": 10_000,
}
SWEPT = {
    "dataset": "cifar10",
    "iteration": 400_000,
    "run": 0,
    "g_lr": 0.0001,
    "d_lr": 0.0001,
    "g_beta1": 0.5,
    "d_beta1": 0.5,
    "g_beta2": 0.999,
    "d_beta2": 0.999,
    "n_dis": 1,
    "mg": 4,
    "sn_mode": "SN",
    "scale": 1.0,
}
JOB = {**GLOBAL, **SWEPT}
# What the ResNet has instead of `batch_size` and `dataset`.
RESNET_JOB = {
    **{key: value for key, value in JOB.items() if key not in ("batch_size", "dataset", "mg")},
    "d_batch_size": 16,
    "g_batch_size": 32,
    "num_gpus": 1,
}
GAMMA_JOB = {**{key: value for key, value in JOB.items() if key != "scale"}, "d_gp_coe": 10}


def config_of(*blocks, scheduler=None, **changes):
    """A `config.py`'s dictionary; a block need only name what differs from `SWEPT`."""
    common = {key: [value] for key, value in SWEPT.items()}
    return {
        "scheduler_config": {"gpu": ["0"], **(scheduler or {})},
        "global_config": {**GLOBAL, **changes},
        "test_config": [{**common, **block} for block in blocks or ({},)],
    }
