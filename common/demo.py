"""`--demo`: the variant on the digits that scikit-learn ships, in minutes and without download."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.configuration.settings import default_values, keys_of
from common.configuration.sweep import Job
from common.networks import NETWORKS
from common.networks.normalization import method_name
from common.results.metrics_table import MetricsRow, read_metrics, values_of
from common.results.run_folder import RunFolder
from common.results.times import training_seconds
from common.variant import Variant

_GLOBAL: dict[str, Any] = {
    "batch_size": 64,
    "d_batch_size": 16,
    "g_batch_size": 32,
    "latent_dim": 128,
    "vis_freq": 100,
    "vis_num_h": 10,
    "vis_num_w": 10,
    "summary_freq": 1,
    "metric_freq": 300,
    "save_checkpoint_freq": 300,
    "extra_checkpoint_freq": 100_000,
    "d_gp_coe": 10.0,
    "width": 16,
    "is_samples": 5_000,
    "fid_samples": 5_000,
    "initial_metrics": True,
}
_SWEPT: dict[str, Any] = {
    "dataset": "digits",
    "iteration": 1200,
    "run": 0,
    "g_lr": 0.0004,
    "d_lr": 0.0001,
    "g_beta1": 0.5,
    "d_beta1": 0.5,
    "g_beta2": 0.999,
    "d_beta2": 0.999,
    "n_dis": 1,
    "mg": 4,
    "num_gpus": 1,
}


def configuration(variant: Variant, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration like `config.py`'s that trains SN and BSSN (with gammas: SN and BSN).

    Args:
        variant: whose keys it has.
        config: the variant's own configuration, whose `scheduler_config` is kept.
    """
    keys = keys_of(variant)
    choices = {**default_values(), **variant.choices}
    changes = NETWORKS[choices["network"]].demo
    swept = {key: changes.get(key, value) for key, value in _SWEPT.items()}
    common = {key: [value] for key, value in swept.items() if key in keys}
    if choices["gamma"] == "none":
        methods = [{"sn_mode": ["SN"], "scale": [1.0]}, {"sn_mode": ["BSN"], "scale": [1.2]}]
    else:
        methods = [{"sn_mode": ["SN"]}, {"sn_mode": ["BSN"]}]
    return {
        "scheduler_config": config["scheduler_config"],
        "global_config": {k: changes.get(k, v) for k, v in _GLOBAL.items() if k in keys},
        "test_config": [{**common, **method} for method in methods],
    }


def print_table(jobs: Sequence[Job], folders: Sequence[RunFolder]) -> None:
    """Prints what the demo's jobs reached, and where their sample grids are."""
    print(f"\n{'method':8}{'IS':^21}{'FID':^21}{'seconds':>8}")
    for job, folder in zip(jobs, folders, strict=True):
        rows = read_metrics(folder.metrics_path)
        scores = (_change(rows, column) for column in ("inception_score_mean", "fid"))
        seconds = training_seconds(folder.times_path)
        print(f"{method_name(job.settings):8}{''.join(scores)}{seconds:8.0f}")
    print("\nIS and FID are of a small classifier of digits: compare them with each other only.")
    for job, folder in zip(jobs, folders, strict=True):
        print(f"{method_name(job.settings)} samples: {folder.samples}")


def _change(rows: Sequence[MetricsRow], column: str) -> str:
    """The first and the last value of the column, which a network's prefix may precede."""
    values = values_of(rows, column)
    return f"{values[0]:8.2f} -> {values[-1]:<9.2f}" if values else f"{'-':^21}"
