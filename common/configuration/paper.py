"""The values that the paper's experiments have in common, for the variants' `config.py`.

Each function returns one block of a `test_config`: `{key: [values]}` (specification, section 8).
"""

from typing import Any

Block = dict[str, Any]  # {key: [values]}

DATASETS = {"cifar10": 4, "stl10": 6, "celeba": 8}  # name: mg, an eighth of the image size
RUNS = [0, 1, 2, 3, 4]

SCHEDULER = {
    "gpu": ["0"],
    "temp_folder": "temp",
    "scheduler_log_file_path": "scheduler.log",
    "log_file": "worker.log",
}

MONITORING = {
    "vis_freq": 200,
    "vis_num_h": 10,
    "vis_num_w": 10,
    "latent_dim": 128,
    "summary_freq": 1,
    "metric_freq": 10_000,
    "save_checkpoint_freq": 10_000,
}

CNN_GLOBAL = {"batch_size": 64, **MONITORING, "extra_checkpoint_freq": 100_000}


def cnn_block(dataset: str, normalization: Block, **changes: list[Any]) -> Block:
    """A CNN's block: one `n_dis` 1 job per run and normalisation, unless changed.

    Args:
        dataset: "cifar10", "stl10" or "celeba".
        normalization: `{key: [values]}` of `sn_mode` and, where there is one, `scale`.
        **changes: `key=[values]` that replace the common ones.
    """
    return {
        "dataset": [dataset],
        "iteration": [800_000 if dataset == "stl10" else 400_000],
        "run": RUNS,
        "g_lr": [0.0001],
        "d_lr": [0.0001],
        "g_beta1": [0.5],
        "d_beta1": [0.5],
        "g_beta2": [0.999],
        "d_beta2": [0.999],
        "n_dis": [1],
        "mg": [DATASETS[dataset]],
        **normalization,
        **changes,
    }


def learning_rate_sweep(dataset: str, normalization: Block) -> Block:
    """Every combination of two learning rates."""
    return cnn_block(dataset, normalization, g_lr=[0.0001, 0.0002], d_lr=[0.0001, 0.0002])


def five_d_steps(dataset: str, normalization: Block) -> Block:
    """Five discriminator steps per iteration."""
    return cnn_block(
        dataset, normalization, n_dis=[5], g_beta2=[0.9], d_beta2=[0.9], iteration=[400_000]
    )


def sn_sweep() -> list[Block]:
    """The whole `test_config` of the variants with gammas, which train SN alone."""
    normalization: Block = {"sn_mode": ["SN"]}
    kinds = (learning_rate_sweep, five_d_steps)
    return [kind(dataset, normalization) for kind in kinds for dataset in DATASETS]
