"""From `config.py` and the command line's texts to jobs and their folders."""

import os
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.configuration.settings import FIELDS, keys_of
from common.configuration.sweep import SchedulerConfig, expand, folder_name, results_folder
from common.errors import UserError
from tests.configuration.variants import (
    GLOBAL,
    JOB,
    NO_GAMMA,
    RESNET,
    RESNET_JOB,
    SAME_GAMMA,
    SWEPT,
    config_of,
)

SCHEDULER = SchedulerConfig(gpu=["0"])


def refused(config, *words, overrides=(), only=(), variant=NO_GAMMA):
    with pytest.raises(UserError) as caught:
        expand(variant, config, overrides, only)
    for word in words:
        assert word in str(caught.value)


def values_of(sweep, *keys):
    return [tuple(getattr(job.settings, key) for key in keys) for job in sweep.jobs]


# Expansion


def test_lists_are_multiplied_within_a_block_and_blocks_are_joined_in_order():
    config = config_of(
        {"run": [1, 0], "sn_mode": ["SN", "BSN"]}, {"run": [7], "sn_mode": ["BSN"], "scale": [2.0]}
    )
    sweep = expand(NO_GAMMA, config)
    assert values_of(sweep, "run", "sn_mode", "scale") == [
        (1, "SN", 1.0),
        (1, "BSN", 1.0),
        (0, "SN", 1.0),
        (0, "BSN", 1.0),
        (7, "BSN", 2.0),
    ]
    assert sweep.count == 5


@pytest.mark.parametrize("runs", [[0, 1, 2], (0, 1, 2), range(3)])
def test_a_list_may_be_a_tuple_or_a_range(runs):
    sweep = expand(NO_GAMMA, config_of({"run": runs}))
    assert values_of(sweep, "run") == [(0,), (1,), (2,)]
    assert ["run-0," in job.folder for job in sweep.jobs] == [True, False, False]


@pytest.mark.parametrize("values", [5, "SN", {"a": 1}, {1}, None, iter([1])])
def test_anything_else_than_a_list_is_refused(values):
    refused(config_of({"run": [0]}, {"run": values}), "test_config[1]['run']", "list")


def test_a_test_value_overrides_a_global_one_and_is_in_the_name():
    sweep = expand(NO_GAMMA, config_of({}, {"batch_size": [8, 16]}, batch_size=32))
    assert values_of(sweep, "batch_size") == [(32,), (8,), (16,)]
    assert [job.folder.split(",")[0] for job in sweep.jobs] == [
        "d_beta1-0.5",
        "batch_size-8",
        "batch_size-16",
    ]


def test_equal_jobs_merge():
    sweep = expand(NO_GAMMA, config_of({"run": [0, 1, 0]}, {"run": [1]}))
    assert (sweep.count, values_of(sweep, "run")) == (4, [(0,), (1,)])


@pytest.mark.parametrize(
    "blocks",
    [
        [{"scale": [1, 1.0]}],
        [{"scale": [1]}, {"scale": [1.0]}],
        [{"scale": [1]}, {"scale": [1], "precision": ["float32"]}],  # its default
    ],
)
def test_jobs_that_are_equal_but_for_how_they_are_written_are_one_under_the_first_name(blocks):
    sweep = expand(NO_GAMMA, config_of(*blocks))
    assert (sweep.count, len(sweep.jobs)) == (2, 1)
    assert "scale-1,sn_mode" in sweep.jobs[0].folder
    assert "precision" not in sweep.jobs[0].folder


def test_the_names_of_a_configuration_with_integers_for_floats_are_the_originals():
    (job,) = expand(NO_GAMMA, config_of({"scale": [1]})).jobs
    assert "scale-1,sn_mode" in job.folder
    assert job.settings.scale == 1.0


def test_a_configuration_of_global_keys_with_one_swept_key():
    config = {
        "scheduler_config": {"gpu": ["0"]},
        "global_config": RESNET_JOB,
        "test_config": [{"run": [3]}],
    }
    (job,) = expand(RESNET, config).jobs
    assert (job.folder, job.settings.run) == ("run-3,", 3)


# Refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"globals": {}}, ["unknown section 'globals'", "global_config"]),
        ({"test_config": {}}, ["test_config must be a list"]),
        ({"test_config": [[]]}, ["test_config[0] must be a dictionary"]),
        ({"global_config": []}, ["global_config must be a dict"]),
        ({"scheduler_config": None}, ["scheduler_config must be a dict"]),
        ({"test_config": []}, ["lacks dataset, iteration"]),
        ({"test_config": [{**{key: [value] for key, value in SWEPT.items()}, "run": []}]}, ["[]"]),
        ({"scheduler_config": {"gpus": ["0"], "gpu": ["0"]}}, ["scheduler_config key 'gpus'"]),
        ({"global_config": {**GLOBAL, "foo": 1}}, ["unknown configuration key 'foo'"]),
        ({"global_config": {**GLOBAL, "d_gp_coe": 1}}, ["no_gamma_cnn has no key 'd_gp_coe'"]),
        ({"global_config": {**GLOBAL, "batch_size": "64"}}, ["batch_size='64'", "int"]),
        ({"global_config": {**GLOBAL, "dataset": "a/b"}, "test_config": []}, ["dataset='a/b'"]),
        ({"global_config": {"batch_size": 64}}, ["lacks", "vis_freq", "latent_dim"]),
    ],
)
def test_a_wrong_configuration_is_refused(change, words):
    refused({**config_of(), **change}, *words)


@pytest.mark.parametrize("config", [None, [], "config", 3])
def test_a_configuration_that_is_no_dictionary_is_refused(config):
    refused(config, "dictionary")


@pytest.mark.parametrize("block", [{"foo": [1]}, {3: [1]}, {None: [1]}])
def test_an_unknown_swept_key_is_refused(block):
    refused(config_of(block), f"unknown configuration key {next(iter(block))!r}")


@pytest.mark.parametrize("value", [True, "1.0", float("nan"), float("inf"), 0, None, [1.0]])
def test_a_wrong_swept_value_is_refused(value):
    refused(config_of({"scale": [1.0, value]}), f"scale={value!r}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gpu", []),
        ("gpu", "0"),
        ("gpu", [""]),
        ("gpu", [[]]),
        ("gpu", [[["0"]]]),
        ("gpu", [True]),
        ("gpu", [0.0]),
        ("gpu", ["-1"]),
        ("gpu", ["0,1"]),
        ("gpu", ["0 1"]),
        ("gpu", None),
        ("log_file", ""),
        ("log_file", ".."),
        ("log_file", "logs/worker.log"),
        ("log_file", 3),
        ("log_file", "x" * 256),
        ("result_root_folder", "results/" + "x" * 256),
        ("scheduler_log_file_path", "a\0b"),
        ("force_rerun", "yes"),
        ("force_rerun", 1),
        ("config_string_value_maxlen", 0),
        ("config_string_value_maxlen", -3),
        ("config_string_value_maxlen", True),
        ("config_string_value_maxlen", 30.0),
        ("ignored_keys_for_folder_name", "run"),
        ("ignored_characters_for_folder_name", [1]),
        ("ignored_characters_for_folder_name", [["a"]]),
    ],
)
def test_a_wrong_scheduler_value_is_refused(key, value):
    message = f"scheduler_config {key}={value!r}"
    refused(config_of(scheduler={key: value}), message[:200], "needed")


def test_devices_are_needed():
    config = config_of()
    del config["scheduler_config"]["gpu"]
    refused(config, '"gpu"')


@pytest.mark.parametrize(
    ("gpu", "slots"),
    [
        (["0"], [("0",)]),
        (["0", "1"], [("0",), ("1",)]),
        ([["0", "1"]], [("0", "1")]),
        ([("0", "1"), "2"], [("0", "1"), ("2",)]),
        ([0, [1, "02"]], [("0",), ("1", "2")]),
        (["GPU-8932f937", "MIG-GPU-1/0/0"], [("GPU-8932f937",), ("MIG-GPU-1/0/0",)]),
    ],
)
def test_devices_are_ids_or_groups_of_ids(gpu, slots):
    assert expand(NO_GAMMA, config_of(scheduler={"gpu": gpu})).scheduler.slots == tuple(slots)


@pytest.mark.parametrize("gpu", [["0", "0"], [0, "0"], [["1", "1"]], [["0", "1"], "1"], ["01", 1]])
def test_a_device_that_is_listed_twice_is_refused_and_named(gpu):
    device = "0" if gpu[0] in ("0", 0) else "1"
    refused(config_of(scheduler={"gpu": gpu}), f"device {device} is listed more than once")


# Choices


def test_normalisation_scale_gamma_network_and_loss_are_swept_in_one_file():
    modes, losses = ["none", "SN", "BSN"], ["hinge", "wgan_gp", "non_saturating"]
    common = {
        "sn_mode": modes,
        "scale": [1.0, 1.2],
        "gamma": ["none", "shared", "per_layer"],
        "loss": losses,
    }
    blocks = [{**common, "network": ["cnn"]}, {**common, "network": ["resnet"], "mg": [1]}]
    sweep = expand(NO_GAMMA, config_of(*blocks, d_gp_coe=10.0, sn_iterations=2))
    assert len(sweep.jobs) == sweep.count == 2 * 3 * 2 * 3 * 3
    found = {
        (s.network, s.sn_mode, s.scale, s.gamma, s.loss) for s in (j.settings for j in sweep.jobs)
    }
    assert found == set(
        product(["cnn", "resnet"], modes, [1.0, 1.2], ["none", "shared", "per_layer"], losses)
    )
    for job in sweep.jobs:  # what is shared reaches the jobs on which it has an effect
        assert (job.settings.d_gp_coe is not None) == (job.settings.loss == "wgan_gp")
        assert (job.settings.sn_iterations == 2) == (job.settings.sn_mode != "none")
    assert "gamma-shared," in sweep.jobs[3].folder


def test_a_shared_key_without_effect_on_any_job_is_refused():
    refused(config_of({"sn_mode": ["LN", "none"]}, sn_iterations=2), "'sn_iterations'", "it is for")
    refused(config_of(), "'last_batch'", overrides=["last_batch=drop"])


# --set


def test_set_replaces_a_swept_key_in_every_job_and_name():
    config = config_of({"run": range(2), "iteration": [5, 6]}, {"run": [9]})
    sweep = expand(NO_GAMMA, config, overrides=["iteration=100"])
    assert values_of(sweep, "run", "iteration") == [(0, 100), (1, 100), (9, 100)]
    assert sweep.count == 3
    assert all("iteration-100,mg-4," in job.folder for job in sweep.jobs)


def test_set_replaces_a_global_key_outside_the_name():
    (before,) = expand(NO_GAMMA, config_of()).jobs
    (after,) = expand(NO_GAMMA, config_of(), overrides=["metric_freq=7", "width=16"]).jobs
    assert (after.settings.metric_freq, after.settings.width) == (7, 16)
    assert after.folder == before.folder


def another_value(key):
    """A text for a key that is neither its default's nor the test configuration's."""
    field = FIELDS[key]
    choices = field.metadata["checks"].get("choices")
    if choices:
        return next(c for c in reversed(list(choices)) if c not in (field.default, JOB.get(key)))
    if field.type is bool:
        return str(not field.default)
    return "0.25" if field.type is float else "12"


@pytest.mark.parametrize("key", [key for key in keys_of(NO_GAMMA) if key != "redraw_latents"])
def test_set_reaches_every_key_of_a_job(key):
    """`redraw_latents` needs other batch sizes, see the settings' tests."""
    text = another_value(key)
    companion = {"penalty": ["d_gp_coe=1"], "sampling": ["last_batch=drop"]}.get(key, [])
    (job,) = expand(NO_GAMMA, config_of(), overrides=[f"{key}={text}", *companion]).jobs
    assert str(getattr(job.settings, key)).lower() == text.lower()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("gpu=0,1", ["0", "1"]),
        ("gpu=0+1,2", [["0", "1"], "2"]),
        ("result_root_folder=a=b", "a=b"),
        ("scheduler_log_file_path=x.log", "x.log"),
        ("log_file=y.log", "y.log"),
        ("temp_folder=t", "t"),
        ("force_rerun=true", True),
        ("config_string_value_maxlen=4", 4),
        ("ignored_keys_for_folder_name=run,mg", ["run", "mg"]),
        ("ignored_keys_for_folder_name=", []),
        ("ignored_characters_for_folder_name=.", ["."]),
        ("test_config_string_separator=;", ";"),
        ("test_config_string_indicator=:", ":"),
        ("test_config_string_inst_separator=&", "&"),
    ],
)
def test_set_reaches_every_scheduler_key(text, value):
    scheduler = expand(NO_GAMMA, config_of(), overrides=[text]).scheduler
    assert getattr(scheduler, text.partition("=")[0]) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", ["--set 'nonsense'", "KEY=VALUE"]),
        ("=1", ["--set '=1'", "KEY=VALUE"]),
        ("", ["--set ''", "KEY=VALUE"]),
        ("foo=1", ["unknown configuration key 'foo'"]),
        ("d_gp_coe=1", ["no_gamma_cnn has no key 'd_gp_coe'"]),
        ("run=one", ["run='one'", "int"]),
        ("run=-1", ["run=-1", "at least 0"]),
        ("dataset=../x", ["dataset='../x'", "cifar10", "digits"]),
        ("scale=0", ["scale=0.0", "above 0"]),
        ("gpu=", ["gpu=[]"]),
        ("force_rerun=maybe", ["force_rerun='maybe'", "bool"]),
        ("config_string_value_maxlen=x", ["config_string_value_maxlen='x'", "int"]),
    ],
)
def test_a_wrong_set_is_refused(text, words):
    refused(config_of(), *words, overrides=[text])


# --only


def test_only_selects_by_typed_value():
    config = config_of({"scale": [0.9, 1.0], "run": range(3)})
    sweep = expand(NO_GAMMA, config, only=["scale=1"])
    assert values_of(sweep, "scale", "run") == [(1.0, 0), (1.0, 1), (1.0, 2)]
    sweep = expand(NO_GAMMA, config, only=["scale=1", "run=2"])
    assert values_of(sweep, "scale", "run") == [(1.0, 2)]
    assert sweep.count == 1


def test_only_with_one_key_several_times_means_any_of_its_values():
    config = config_of({"scale": [0.9, 1.0, 1.2], "run": range(3)})
    sweep = expand(NO_GAMMA, config, only=["run=2", "scale=0.9", "run=0", "scale=1.2"])
    assert values_of(sweep, "scale", "run") == [(0.9, 0), (1.2, 0), (0.9, 2), (1.2, 2)]
    assert expand(NO_GAMMA, config, only=["run=1", "run=7", "run=1"]).count == 3
    refused(config, "no job", "--only run=0 --only scale=7", only=["run=0", "scale=7"])


def test_only_may_name_a_global_key_and_sees_what_set_says():
    config = config_of({"run": range(2)})
    assert expand(NO_GAMMA, config, only=["batch_size=64"]).count == 2
    assert expand(NO_GAMMA, config, ["batch_size=8"], ["batch_size=8"]).count == 2
    refused(config, "--only batch_size=64", overrides=["batch_size=8"], only=["batch_size=64"])


@pytest.mark.parametrize(
    ("only", "words"),
    [
        (["run"], ["--only 'run'", "KEY=VALUE"]),
        (["foo=1"], ["unknown configuration key 'foo'"]),
        (["num_gpus=1"], ["no job", "--only num_gpus=1"]),
        (["gpu=0"], ["unknown configuration key 'gpu'"]),
        (["scale=one"], ["scale='one'"]),
        (["dataset=nope"], ["dataset='nope'", "cifar10"]),
        (["dataset=stl10"], ["no job", "--only dataset=stl10"]),
        (["run=7", "run=8"], ["no job", "--only run=7 --only run=8"]),
        (["run=0", "run=one"], ["run='one'"]),
    ],
)
def test_a_wrong_only_is_refused(only, words):
    refused(config_of({"run": range(2)}), *words, only=only)


# Folders


def test_the_name_is_sorted_and_ends_in_a_comma():
    values = {"sn_mode": "SN", "d_lr": 0.0001, "dataset": "cifar10", "D": 1e-05}
    name = folder_name(values, SCHEDULER)
    assert name == "D-1e-05,d_lr-0.0001,dataset-cifar10,sn_mode-SN,"


def test_values_are_cut_to_30_characters_before_characters_are_removed():
    text = "[a] " + "x" * 40
    assert folder_name({"b": [1, 2], "dataset": text}, SCHEDULER) == f"b-1,2,dataset-a{'x' * 26},"


def test_the_scheduler_section_changes_the_name():
    scheduler = SchedulerConfig(
        gpu=["0"],
        config_string_value_maxlen=3,
        ignored_keys_for_folder_name=["mg"],
        ignored_characters_for_folder_name=["i"],
        test_config_string_separator=";",
        test_config_string_indicator="=",
    )
    values = {"dataset": "cifar10", "mg": 4, "iteration": 400_000}
    assert folder_name(values, scheduler) == "dataset=cf;teraton=400;"


@pytest.mark.parametrize("value", ["a/b", "../x", "a\nb", "a\0b", "\udcff", "\x1b[0m"])
def test_a_value_that_no_folder_can_be_named_after_is_refused(value):
    with pytest.raises(UserError, match="cannot be a folder's name"):
        folder_name({"run": 0, "dataset": value}, SCHEDULER)


@pytest.mark.parametrize("key", [key for key in keys_of(NO_GAMMA) if FIELDS[key].type is str])
@pytest.mark.parametrize("value", ["a/b", "..", "a\nb"])
def test_no_swept_key_takes_any_text(key, value):
    refused(config_of({key: [value]}), f"{key}={value!r}", "one of")


@pytest.mark.parametrize("separator", ["/", "\n", "\0"])
def test_a_separator_that_no_folder_can_be_named_with_is_refused(separator):
    scheduler = {"test_config_string_separator": separator}
    refused(config_of(scheduler=scheduler), "cannot be a folder's name")


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_a_name_that_means_another_folder_is_refused(name):
    scheduler = SchedulerConfig(
        gpu=["0"], test_config_string_separator=name, test_config_string_indicator=""
    )
    with pytest.raises(UserError, match="cannot be a folder's name"):
        folder_name({"": ""}, scheduler)


def test_a_name_of_255_bytes_is_the_longest():
    assert len(folder_name({"é" * 112: "x" * 29}, SCHEDULER).encode()) == 255
    with pytest.raises(UserError, match="256 bytes") as caught:
        folder_name({"é" * 112: "x" * 30}, SCHEDULER)
    assert "config_string_value_maxlen" in str(caught.value)


def test_different_jobs_that_would_share_a_folder_are_refused_and_their_keys_named():
    scheduler = {"ignored_keys_for_folder_name": ["run", "scale"]}
    config = config_of({"run": [0]}, {"run": [1], "scale": [2.0]}, scheduler=scheduler)
    refused(config, "differ in run, scale would share", "dataset-cifar10")
    config = config_of({"iteration": [1000, 1001]})
    refused(config, "differ in iteration ", overrides=["config_string_value_maxlen=3"])


def test_equal_jobs_may_share_a_folder():
    scheduler = {"ignored_keys_for_folder_name": ["run"]}
    sweep = expand(NO_GAMMA, config_of({"run": [0]}, {"run": [0]}, scheduler=scheduler))
    assert (sweep.count, len(sweep.jobs)) == (2, 1)


def test_the_results_are_beside_the_configuration_or_where_they_are_told_to_be(tmp_path):
    scheduler = SchedulerConfig(gpu=["0"], result_root_folder="r")
    assert results_folder(tmp_path, SCHEDULER) == tmp_path / "results"
    assert results_folder(tmp_path, scheduler) == tmp_path / "r"
    scheduler = SchedulerConfig(gpu=["0"], result_root_folder=str(tmp_path / "x"))
    assert results_folder("elsewhere", scheduler) == tmp_path / "x"


# All of Unicode, lone surrogates too: the command line makes them of bytes that are not UTF-8.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=40) | st.sampled_from(
    ["..", ".", "/", "\0", "a/b", "é" * 130]
)
VALUES = TEXTS | st.integers() | st.floats() | st.booleans() | st.lists(st.integers(), max_size=4)


@given(values=st.dictionaries(TEXTS, VALUES, max_size=8), separator=st.sampled_from([",", "", "."]))
@settings(max_examples=300, deadline=None)
def test_any_swept_values_name_one_real_folder_or_are_refused(tmp_path_factory, values, separator):
    scheduler = SchedulerConfig(
        gpu=["0"], test_config_string_separator=separator, test_config_string_indicator=separator
    )
    try:
        name = folder_name(values, scheduler)
    except UserError:
        return
    base = tmp_path_factory.getbasetemp() / "names"
    base.mkdir(exist_ok=True)
    (base / name).mkdir()
    assert os.listdir(base) == [name]
    assert "\n" not in name
    (base / name).rmdir()


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "run": st.lists(st.integers(0, 3), min_size=1, max_size=3),
                "d_gp_coe": st.lists(st.sampled_from([0, 1, 1.0, 2.5]), min_size=1, max_size=3),
            }
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_sweep_has_each_job_once_and_counts_all(blocks):
    shared = {key: value for key, value in JOB.items() if key not in ("scale", "run")}
    config = {"scheduler_config": {"gpu": ["0"]}, "global_config": shared, "test_config": blocks}
    sweep = expand(SAME_GAMMA, config)
    expected = [pair for block in blocks for pair in product(block["d_gp_coe"], block["run"])]
    assert sweep.count == len(expected)
    names = {}
    for coefficient, run in expected:  # 1 == 1.0
        names.setdefault((coefficient, run), f"d_gp_coe-{coefficient},run-{run},")
    assert sorted(job.folder for job in sweep.jobs) == sorted(names.values())


@pytest.mark.parametrize(
    "runs", [range(1_000_001), range(10**30), [0] * 1001], ids=["million", "endless", "product"]
)
def test_too_many_combinations_are_refused_before_they_are_made(runs):
    with pytest.raises(UserError, match=r"test_config\[0\] has more than 1,000,000 combinations"):
        expand(NO_GAMMA, config_of({"run": runs, "n_dis": [1] * 1001}))


@pytest.mark.parametrize("key", ["gpu", "force_rerun", "config_string_value_maxlen"])
def test_a_scheduler_value_that_cannot_even_be_shown_is_refused(key):
    value = [10**5000] if key == "gpu" else 10**5000
    if key == "config_string_value_maxlen":
        value = -value
    with pytest.raises(UserError, match="too large to show"):
        expand(NO_GAMMA, config_of(scheduler={key: value}))
