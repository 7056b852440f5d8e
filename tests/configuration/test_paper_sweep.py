"""The variants' `config.py` against the experiments that specification, section 8, lists."""

from collections import Counter
from itertools import product

import pytest

from common.configuration.sweep import expand
from diff_gamma_cnn.config import config as diff_gamma
from no_gamma_cnn.config import config as no_gamma
from no_gamma_resnet.config import config as resnet
from same_gamma_cnn.config import config as same_gamma
from tests.configuration.variants import DIFF_GAMMA, NO_GAMMA, RESNET, SAME_GAMMA


def named(variant, config):
    return pytest.param(variant, config, id=variant.name)


GAMMAS = [named(SAME_GAMMA, same_gamma), named(DIFF_GAMMA, diff_gamma)]
CONFIGS = [named(NO_GAMMA, no_gamma), *GAMMAS, named(RESNET, resnet)]
MG = {"cifar10": 4, "stl10": 6, "celeba": 8}
SCALES = ["0.7", "0.8", "0.9", "1.0", "1.2", "1.4", "1.6"]
CIFAR10_SCALES = [f"{tenths // 10}.{tenths % 10}" for tenths in range(18, 41, 2)]
RUNS = ["0", "1", "2", "3", "4"]
BOTH = ("SN", "BSN")


def name(dataset, beta2, g_lr, d_lr, iteration, n_dis, run, scale, mode):  # noqa: PLR0917
    return (
        f"d_beta1-0.5,d_beta2-{beta2},d_lr-{d_lr},dataset-{dataset},"
        f"g_beta1-0.5,g_beta2-{beta2},g_lr-{g_lr},iteration-{iteration},"
        f"mg-{MG[dataset]},n_dis-{n_dis},run-{run},{scale}sn_mode-{mode},"
    )


def specified(kind, dataset, modes=BOTH, scale=("scale-1.0,",)):
    """The folder names of one kind of block, from the specification's words."""
    lr, beta2, n_dis = ["0.0001"], "0.999", 1
    iteration = 800_000 if dataset == "stl10" else 400_000
    if kind == "scales":
        scales = SCALES + (CIFAR10_SCALES if dataset == "cifar10" else [])
        scale = [f"scale-{value}," for value in scales]
    elif kind == "learning rates":
        lr = ["0.0001", "0.0002"]
    else:
        beta2, n_dis, iteration = "0.9", 5, 400_000
    return [
        name(dataset, beta2, g_lr, d_lr, iteration, n_dis, run, s, mode)
        for g_lr, d_lr, run, s, mode in product(lr, lr, RUNS, scale, modes)
    ]


def kind_of(block):
    if len(block.get("scale", [])) > 1:
        return "scales"
    return "learning rates" if len(block["g_lr"]) > 1 else "five D steps"


def jobs_of(config, kind, dataset):
    """The configuration with the blocks of one kind and data set alone."""
    blocks = [b for b in config["test_config"] if (kind_of(b), *b["dataset"]) == (kind, dataset)]
    return {**config, "test_config": blocks}


def folders_of(variant, config):
    return [job.folder for job in expand(variant, config).jobs]


# Without gammas

COUNTS = {
    ("scales", "cifar10"): 190,
    ("scales", "stl10"): 70,
    ("scales", "celeba"): 70,
    **{("learning rates", name): 40 for name in MG},
    **{("five D steps", name): 10 for name in MG},
}


def test_there_are_480_jobs_of_which_450_are_distinct_with_the_originals_names():
    sweep = expand(NO_GAMMA, no_gamma)
    expected = Counter(job for key in COUNTS for job in specified(*key))
    assert sum(expected.values()) == sweep.count == 480
    assert len(sweep.jobs) == 450
    assert {job.folder for job in sweep.jobs} == set(expected)
    assert sum(count - 1 for count in expected.values()) == 30


def test_the_name_given_in_the_specification_is_among_them():
    assert (
        "d_beta1-0.5,d_beta2-0.999,d_lr-0.0001,dataset-cifar10,g_beta1-0.5,g_beta2-0.999,"
        "g_lr-0.0001,iteration-400000,mg-4,n_dis-1,run-0,scale-0.7,sn_mode-SN,"
    ) in folders_of(NO_GAMMA, no_gamma)


@pytest.mark.parametrize(("kind", "dataset"), COUNTS)
def test_every_kind_of_block_has_the_specified_jobs(kind, dataset):
    sweep = expand(NO_GAMMA, jobs_of(no_gamma, kind, dataset))
    assert sorted(job.folder for job in sweep.jobs) == sorted(specified(kind, dataset))
    assert sweep.count == COUNTS[kind, dataset]


@pytest.mark.parametrize(("dataset", "count"), [("cifar10", 230), ("stl10", 110), ("celeba", 110)])
def test_every_data_set_has_its_share(dataset, count):
    sweep = expand(NO_GAMMA, no_gamma, only=[f"dataset={dataset}"])
    assert (sweep.count, len(sweep.jobs)) == (count + 10, count)


# With gammas

GAMMA_COUNTS = {
    **{("learning rates", name): 20 for name in MG},
    **{("five D steps", name): 5 for name in MG},
}


@pytest.mark.parametrize(("variant", "config"), GAMMAS)
def test_with_gammas_there_are_75_jobs_of_sn_without_scale(variant, config):
    folders = folders_of(variant, config)
    expected = [f for key in GAMMA_COUNTS for f in specified(*key, modes=["SN"], scale=[""])]
    assert expand(variant, config).count == len(folders) == 75
    assert sorted(folders) == sorted(expected)


@pytest.mark.parametrize(("variant", "config"), GAMMAS)
@pytest.mark.parametrize(("kind", "dataset"), GAMMA_COUNTS)
def test_with_gammas_every_kind_of_block_has_the_specified_jobs(variant, config, kind, dataset):
    folders = folders_of(variant, jobs_of(config, kind, dataset))
    assert sorted(folders) == sorted(specified(kind, dataset, modes=["SN"], scale=[""]))
    assert len(folders) == GAMMA_COUNTS[kind, dataset]


@pytest.mark.parametrize(("variant", "config"), GAMMAS)
def test_with_gammas_the_penaltys_factor_is_10_and_not_swept(variant, config):
    assert config["global_config"]["d_gp_coe"] == 10
    assert {job.settings.d_gp_coe for job in expand(variant, config).jobs} == {10.0}


# The ResNet


def test_the_resnet_has_24_jobs():
    sweep = expand(RESNET, resnet)
    expected = [
        "d_batch_size-16,d_beta1-0.0,d_beta2-0.9,d_lr-0.0002,"
        "g_batch_size-32,g_beta1-0.0,g_beta2-0.9,g_lr-0.0002,"
        f"n_dis-5,num_gpus-1,run-{run},scale-{scale},sn_mode-{mode},"
        for run, scale, mode in product(RUNS[:3], ["1.0", "1.2", "1.4", "1.6"], BOTH)
    ]
    assert sweep.count == len(sweep.jobs) == 24
    assert sorted(job.folder for job in sweep.jobs) == sorted(expected)


def test_the_resnet_trains_on_two_gpus_as_its_description_says():
    scheduler = {**resnet["scheduler_config"], "gpu": [["0", "1"]]}
    (block,) = resnet["test_config"]
    config = {**resnet, "scheduler_config": scheduler, "test_config": [{**block, "num_gpus": [2]}]}
    sweep = expand(RESNET, config)
    assert {job.settings.num_gpus for job in sweep.jobs} == {2}
    assert all("num_gpus-2," in job.folder for job in sweep.jobs)


# Common values

COMMON = {
    "vis_freq": 200,
    "vis_num_h": 10,
    "vis_num_w": 10,
    "latent_dim": 128,
    "summary_freq": 1,
    "metric_freq": 10_000,
    "save_checkpoint_freq": 10_000,
}
CNN = {"batch_size": 64, **COMMON, "extra_checkpoint_freq": 100_000}
GLOBALS = {
    "no_gamma_cnn": CNN,
    "same_gamma_cnn": {**CNN, "d_gp_coe": 10},
    "diff_gamma_cnn": {**CNN, "d_gp_coe": 10},
    "no_gamma_resnet": {**COMMON, "iteration": 500_000, "extra_checkpoint_freq": 50_000},
}


@pytest.mark.parametrize(("variant", "config"), CONFIGS)
def test_the_global_section_is_the_specified_one(variant, config):
    assert config["global_config"] == GLOBALS[variant.name]


@pytest.mark.parametrize(("variant", "config"), CONFIGS)
def test_all_jobs_have_the_global_values_and_the_papers_sizes(variant, config):
    sizes = {"width": 64, "is_samples": 50_000, "fid_samples": 10_000, "fid_real": 5_000}
    common = {**GLOBALS[variant.name], **sizes, "seed": 0, "expected_images": None}
    if variant is RESNET:
        common |= {"dataset": "imagenet", "mg": 4}
    for job in expand(variant, config).jobs:
        assert {key: getattr(job.settings, key) for key in common} == common


@pytest.mark.parametrize(("variant", "config"), CONFIGS)
def test_settings_say_what_the_name_says(variant, config):
    for job in expand(variant, config).jobs:
        pairs = dict(part.split("-", 1) for part in job.folder.split(",") if part)
        assert {key: str(getattr(job.settings, key)) for key in pairs} == pairs


@pytest.mark.parametrize(("variant", "config"), CONFIGS)
def test_no_variant_changes_the_schedulers_section(variant, config):
    assert config["scheduler_config"] == {
        "gpu": ["0"],
        "temp_folder": "temp",
        "scheduler_log_file_path": "scheduler.log",
        "log_file": "worker.log",
    }
    scheduler = expand(variant, config).scheduler
    assert (scheduler.result_root_folder, scheduler.force_rerun) == ("results", False)
