"""The paper's experiments with one gamma shared by all layers: 75 jobs, WGAN-GP and SN.

Every list is swept; lists are combined within a block, blocks are joined. Edit, or override with
`--set key=value`; select with `--only key=value`; look with `--dry_run`.
"""

from common.configuration.paper import (
    CNN_GLOBAL,
    DATASETS,
    SCHEDULER,
    five_d_steps,
    learning_rate_sweep,
)

_NORMALIZATION = {"sn_mode": ["SN"]}

config = {
    "scheduler_config": SCHEDULER,
    "global_config": {**CNN_GLOBAL, "d_gp_coe": 10.0},
    "test_config": [
        *(learning_rate_sweep(dataset, _NORMALIZATION) for dataset in DATASETS),
        *(five_d_steps(dataset, _NORMALIZATION) for dataset in DATASETS),
    ],
}
