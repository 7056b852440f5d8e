"""The paper's experiments without gammas on ImageNet, 128x128 pixels: 24 jobs.

SN and BSN (`sn_mode`), with `scale` 1 or not (SSN, BSSN), three runs each. Every list is swept.
Edit, or override with `--set key=value`; select with `--only key=value`; look with `--dry_run`.

For two GPUs: `"gpu": [["0", "1"]]` in `scheduler_config` and `"num_gpus": [2]`.
"""

from common.configuration.paper import MONITORING, SCHEDULER

config = {
    "scheduler_config": SCHEDULER,
    "global_config": {**MONITORING, "iteration": 500_000, "extra_checkpoint_freq": 50_000},
    "test_config": [
        {
            "run": [0, 1, 2],
            "g_lr": [0.0002],
            "d_lr": [0.0002],
            "g_beta1": [0.0],
            "d_beta1": [0.0],
            "g_beta2": [0.9],
            "d_beta2": [0.9],
            "n_dis": [5],
            "num_gpus": [1],
            "d_batch_size": [16],
            "g_batch_size": [32],
            "scale": [1.0, 1.2, 1.4, 1.6],
            "sn_mode": ["SN", "BSN"],
        }
    ],
}
