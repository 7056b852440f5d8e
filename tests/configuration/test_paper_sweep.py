"""`no_gamma_cnn/config.py` against the experiments that specification, section 8, lists."""

from collections import Counter
from itertools import product

import pytest

from common.configuration.sweep import expand
from no_gamma_cnn.config import config
from no_gamma_cnn.gan_task import VARIANT

MG = {"cifar10": 4, "stl10": 6, "celeba": 8}
SCALES = ["0.7", "0.8", "0.9", "1.0", "1.2", "1.4", "1.6"]
CIFAR10_SCALES = [f"{tenths // 10}.{tenths % 10}" for tenths in range(18, 41, 2)]
RUNS = ["0", "1", "2", "3", "4"]


def name(dataset, beta2, g_lr, d_lr, iteration, n_dis, run, scale, mode):  # noqa: PLR0917
    return (
        f"d_beta1-0.5,d_beta2-{beta2},d_lr-{d_lr},dataset-{dataset},"
        f"g_beta1-0.5,g_beta2-{beta2},g_lr-{g_lr},iteration-{iteration},"
        f"mg-{MG[dataset]},n_dis-{n_dis},run-{run},scale-{scale},sn_mode-{mode},"
    )


def specified(kind, dataset):
    """The folder names of one kind of block, from the specification's words."""
    lr, scale, beta2, n_dis = ["0.0001"], ["1.0"], "0.999", 1
    iteration = 800_000 if dataset == "stl10" else 400_000
    if kind == "scales":
        scale = SCALES + (CIFAR10_SCALES if dataset == "cifar10" else [])
    elif kind == "learning rates":
        lr = ["0.0001", "0.0002"]
    else:
        beta2, n_dis, iteration = "0.9", 5, 400_000
    return [
        name(dataset, beta2, g_lr, d_lr, iteration, n_dis, run, s, mode)
        for g_lr, d_lr, run, s, mode in product(lr, lr, RUNS, scale, ("SN", "BSN"))
    ]


def kind_of(block):
    if len(block["scale"]) > 1:
        return "scales"
    return "learning rates" if len(block["g_lr"]) > 1 else "five D steps"


COUNTS = {
    ("scales", "cifar10"): 190,
    ("scales", "stl10"): 70,
    ("scales", "celeba"): 70,
    **{(kind, name): 40 for kind in ["learning rates"] for name in MG},
    **{(kind, name): 10 for kind in ["five D steps"] for name in MG},
}


def test_there_are_480_jobs_of_which_450_are_distinct_with_the_originals_names():
    sweep = expand(VARIANT, config)
    expected = Counter(job for key in COUNTS for job in specified(*key))
    assert sum(expected.values()) == sweep.count == 480
    assert len(sweep.jobs) == 450
    assert {job.folder for job in sweep.jobs} == set(expected)
    assert sum(count - 1 for count in expected.values()) == 30


def test_the_name_given_in_the_specification_is_among_them():
    folders = {job.folder for job in expand(VARIANT, config).jobs}
    assert (
        "d_beta1-0.5,d_beta2-0.999,d_lr-0.0001,dataset-cifar10,g_beta1-0.5,g_beta2-0.999,"
        "g_lr-0.0001,iteration-400000,mg-4,n_dis-1,run-0,scale-0.7,sn_mode-SN,"
    ) in folders


@pytest.mark.parametrize(("kind", "dataset"), COUNTS)
def test_every_kind_of_block_has_the_specified_jobs(kind, dataset):
    blocks = [b for b in config["test_config"] if (kind_of(b), *b["dataset"]) == (kind, dataset)]
    sweep = expand(VARIANT, {**config, "test_config": blocks})
    assert sorted(job.folder for job in sweep.jobs) == sorted(specified(kind, dataset))
    assert sweep.count == COUNTS[kind, dataset]


@pytest.mark.parametrize(("dataset", "count"), [("cifar10", 230), ("stl10", 110), ("celeba", 110)])
def test_every_data_set_has_its_share(dataset, count):
    sweep = expand(VARIANT, config, only=[f"dataset={dataset}"])
    assert (sweep.count, len(sweep.jobs)) == (count + 10, count)


def test_all_jobs_have_the_common_values():
    common = {
        "batch_size": 64,
        "vis_freq": 200,
        "vis_num_h": 10,
        "vis_num_w": 10,
        "latent_dim": 128,
        "summary_freq": 1,
        "metric_freq": 10_000,
        "save_checkpoint_freq": 10_000,
        "extra_checkpoint_freq": 100_000,
        "width": 64,
        "is_samples": 50_000,
        "fid_samples": 10_000,
        "fid_real": 5_000,
    }
    for job in expand(VARIANT, config).jobs:
        assert {key: getattr(job.settings, key) for key in common} == common


def test_settings_say_what_the_name_says():
    for job in expand(VARIANT, config).jobs:
        pairs = dict(part.split("-", 1) for part in job.folder.split(",") if part)
        assert {key: str(getattr(job.settings, key)) for key in pairs} == pairs


def test_the_scheduler_section_is_the_specified_one():
    assert config["scheduler_config"] == {
        "gpu": ["0"],
        "temp_folder": "temp",
        "scheduler_log_file_path": "scheduler.log",
        "log_file": "worker.log",
    }
