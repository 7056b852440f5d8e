"""The paper's experiments without gammas on CIFAR10, STL10 and CelebA: 480 jobs, 450 distinct.

SN and BSN (`sn_mode`), with `scale` 1 or not (SSN, BSSN), five runs each. Every list is swept;
lists are combined within a block, blocks are joined. Edit, or override with `--set key=value`;
select with `--only key=value`; look with `--dry_run`.
"""

from common.configuration.paper import (
    CNN_GLOBAL,
    DATASETS,
    SCHEDULER,
    cnn_block,
    five_d_steps,
    learning_rate_sweep,
)

_SCALES = [0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6]
_MORE_SCALES = {"cifar10": [1.8, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0, 3.2, 3.4, 3.6, 3.8, 4.0]}
_MODES = {"sn_mode": ["SN", "BSN"]}
_UNSCALED = {**_MODES, "scale": [1.0]}

config = {
    "scheduler_config": SCHEDULER,
    "global_config": CNN_GLOBAL,
    "test_config": [
        *(cnn_block(d, {**_MODES, "scale": _SCALES + _MORE_SCALES.get(d, [])}) for d in DATASETS),
        *(learning_rate_sweep(dataset, _UNSCALED) for dataset in DATASETS),
        *(five_d_steps(dataset, _UNSCALED) for dataset in DATASETS),
    ],
}
