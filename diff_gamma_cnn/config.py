"""The paper's experiments with one gamma per layer: 75 jobs, WGAN-GP and SN.

Every list is swept; lists are combined within a block, blocks are joined. Edit, or override with
`--set key=value`; select with `--only key=value`; look with `--dry_run`.
"""

from common.configuration.paper import CNN_GLOBAL, SCHEDULER, sn_sweep

config = {
    "scheduler_config": SCHEDULER,
    "global_config": {**CNN_GLOBAL, "d_gp_coe": 10.0},
    "test_config": sn_sweep(),
}
