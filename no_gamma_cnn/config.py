"""The paper's experiments without gammas on CIFAR10, STL10 and CelebA.

480 jobs, 450 distinct: SN and BSN (`sn_mode`), with `scale` 1 or not (SSN, BSSN), 5 runs each.
Every list is swept; lists are combined within a block, blocks are joined. Edit, or override with
`--set key=value`; select with `--only key=value`; look with `--dry_run`.
"""

_DATASETS = {"cifar10": 4, "stl10": 6, "celeba": 8}  # name: mg, an eighth of the image size
_LONG = {"stl10": 800_000}  # other iterations than 400,000
_SCALES = [0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6]
_MORE_SCALES = {"cifar10": [1.8, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0, 3.2, 3.4, 3.6, 3.8, 4.0]}


def _block(dataset, **changes):
    """One block of the sweep: the common values, with changes."""
    return {
        "dataset": [dataset],
        "iteration": [_LONG.get(dataset, 400_000)],
        "run": [0, 1, 2, 3, 4],
        "g_lr": [0.0001],
        "d_lr": [0.0001],
        "g_beta1": [0.5],
        "d_beta1": [0.5],
        "g_beta2": [0.999],
        "d_beta2": [0.999],
        "n_dis": [1],
        "mg": [_DATASETS[dataset]],
        "sn_mode": ["SN", "BSN"],
        "scale": [1.0],
        **changes,
    }


def _scale_sweep(dataset):
    return _block(dataset, scale=_SCALES + _MORE_SCALES.get(dataset, []))


def _learning_rate_sweep(dataset):
    return _block(dataset, g_lr=[0.0001, 0.0002], d_lr=[0.0001, 0.0002])


def _five_d_steps(dataset):
    return _block(dataset, n_dis=[5], g_beta2=[0.9], d_beta2=[0.9], iteration=[400_000])


config = {
    "scheduler_config": {
        "gpu": ["0"],
        "temp_folder": "temp",
        "scheduler_log_file_path": "scheduler.log",
        "log_file": "worker.log",
    },
    "global_config": {
        "batch_size": 64,
        "vis_freq": 200,
        "vis_num_h": 10,
        "vis_num_w": 10,
        "latent_dim": 128,
        "summary_freq": 1,
        "metric_freq": 10_000,
        "extra_checkpoint_freq": 100_000,
        "save_checkpoint_freq": 10_000,
    },
    "test_config": [
        kind(dataset)
        for kind in (_scale_sweep, _learning_rate_sweep, _five_d_steps)
        for dataset in _DATASETS
    ],
}
