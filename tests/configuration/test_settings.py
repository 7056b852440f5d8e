"""A job's keys: types, ranges, and which variant has which."""

import dataclasses
import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.configuration.settings import (
    FIELDS,
    check_value,
    keys_of,
    make_settings,
    parse_value,
    read_settings,
)
from common.data import DATASETS
from common.errors import UserError
from common.variant import Variant
from tests.configuration.variants import (
    DIFF_GAMMA,
    GAMMA_JOB,
    JOB,
    NO_GAMMA,
    RESNET,
    RESNET_JOB,
    SAME_GAMMA,
    VARIANTS,
)

COMPLETE = [
    (NO_GAMMA, JOB),
    (SAME_GAMMA, GAMMA_JOB),
    (DIFF_GAMMA, GAMMA_JOB),
    (RESNET, RESNET_JOB),
]


def refused(variant, values, *words):
    with pytest.raises(UserError) as caught:
        make_settings(variant, values)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("variant", "job"), COMPLETE)
def test_the_keys_of_the_specification_make_a_job(variant, job):
    settings = make_settings(variant, job)
    assert {key: getattr(settings, key) for key in job} == job


@pytest.mark.parametrize(("variant", "job"), COMPLETE)
def test_every_key_of_the_specification_is_needed(variant, job):
    for missing in job:
        values = {key: value for key, value in job.items() if key != missing}
        refused(variant, values, variant.name, f"lacks {missing}.")


def test_all_missing_keys_are_named():
    refused(NO_GAMMA, {}, *JOB)


def test_the_resnet_has_imagenet_and_its_mg_without_being_told():
    settings = make_settings(RESNET, RESNET_JOB)
    assert (settings.dataset, settings.mg) == ("imagenet", 4)


def test_which_variant_has_which_key():
    some = {"d_gp_coe", "batch_size", "d_batch_size", "g_batch_size", "num_gpus"}
    owned = {variant.name: some & set(keys_of(variant)) for variant in VARIANTS}
    assert owned == {
        "no_gamma_cnn": {"batch_size"},
        "same_gamma_cnn": {"d_gp_coe", "batch_size"},
        "diff_gamma_cnn": {"d_gp_coe", "batch_size"},
        "no_gamma_resnet": {"d_batch_size", "g_batch_size", "num_gpus"},
    }
    of_choices = some | {"ema_start", "last_batch"}
    assert all(
        set(FIELDS) - set(keys_of(variant)) == of_choices - owned[variant.name]
        for variant in VARIANTS
    )


@pytest.mark.parametrize(
    ("choice", "needs"),
    [
        ({"redraw_latents": True}, ["d_batch_size", "g_batch_size", "num_gpus"]),
        ({"penalty": "r1"}, ["d_gp_coe"]),
        ({"loss": "wgan_gp"}, ["d_gp_coe"]),
    ],
)
def test_a_choice_brings_its_keys(choice, needs):
    without = {key: value for key, value in JOB.items() if key != "batch_size"}
    job = without if "redraw_latents" in choice else JOB
    for missing in needs:
        values = {**job, **choice, **{key: 2 for key in needs if key != missing}}
        refused(NO_GAMMA, values, f"lacks {missing}.")
    settings = make_settings(NO_GAMMA, {**job, **choice, **dict.fromkeys(needs, 2)})
    assert [getattr(settings, key) for key in needs] == [2] * len(needs)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"last_batch": "drop"}, "last_batch"),
        ({"ema_start": 5}, "ema_start"),
        ({"sn_mode": "LN", "sn_iterations": 2}, "sn_iterations"),
    ],
)
def test_a_key_that_would_have_no_effect_is_refused(values, key):
    refused(NO_GAMMA, {**JOB, **values}, repr(key), "it is for")


def test_the_penalty_is_the_losss_own_unless_another_is_named():
    assert make_settings(SAME_GAMMA, GAMMA_JOB).penalty == "wgan_gp"
    assert make_settings(SAME_GAMMA, {**GAMMA_JOB, "penalty": "r1"}).penalty == "r1"
    without = {key: value for key, value in GAMMA_JOB.items() if key != "d_gp_coe"}
    settings = make_settings(SAME_GAMMA, {**without, "penalty": "none"})
    assert (settings.penalty, settings.d_gp_coe) == ("none", None)
    assert make_settings(NO_GAMMA, JOB).penalty == "none"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("network", "vgg", ["network='vgg'", "cnn", "resnet", "module:attribute"]),
        ("loss", "hinges", ["loss='hinges'", "non_saturating"]),
        ("loss", "no_such_module:X", ["no_such_module", "cannot be imported", "PYTHONPATH"]),
        ("loss", "json:X", ["json", "has no 'X'"]),
        ("loss", "json:dumps", ["a function", "common.losses.Loss"]),
        ("penalty", "gp", ["penalty='gp'", "one_sided"]),
        ("g_sn_mode", "BSN", ["g_sn_mode='BSN'", "none, SN"]),
        ("latents", "gaussian", ["latents='gaussian'", "normal"]),
    ],
)
def test_a_choice_that_is_not_there_is_refused_and_what_is_there_is_named(key, value, words):
    refused(NO_GAMMA, {**JOB, key: value}, *words)


OLD_GAMMA = {**GAMMA_JOB, "restore": False, "seed": 0, "width": 64, "scale": None}


def test_a_record_of_an_earlier_version_is_completed_by_the_variants_choices():
    settings = read_settings(OLD_GAMMA, SAME_GAMMA.choices)
    assert settings == make_settings(SAME_GAMMA, GAMMA_JOB)
    assert (settings.network, settings.penalty, settings.scale) == ("cnn", "wgan_gp", 1.0)


def test_a_record_with_keys_that_nobody_knows_is_refused():
    with pytest.raises(UserError, match="unknown or missing keys depth"):
        read_settings({**OLD_GAMMA, "depth": 3}, SAME_GAMMA.choices)


@pytest.mark.parametrize(
    ("variant", "job", "key"),
    [
        (NO_GAMMA, JOB, "d_gp_coe"),
        (NO_GAMMA, JOB, "num_gpus"),
        (RESNET, RESNET_JOB, "batch_size"),
    ],
)
def test_a_key_of_another_variant_is_refused(variant, job, key):
    refused(variant, {**job, key: 1}, variant.name, repr(key), "it is for")


@pytest.mark.parametrize("key", ["iterations", "", "Scale", 3, None, "__class__"])
def test_an_unknown_key_is_refused(key):
    refused(NO_GAMMA, {**JOB, key: 1}, f"unknown configuration key {key!r}", "sn_mode")


def test_integers_pass_for_floats_and_become_floats():
    settings = make_settings(NO_GAMMA, {**JOB, "scale": 1, "g_beta1": 0})
    assert (repr(settings.scale), repr(settings.g_beta1)) == ("1.0", "0.0")


WRONG_TYPES = [
    ("run", True),
    ("run", 1.0),
    ("run", "1"),
    ("run", None),
    ("run", [1]),
    ("scale", "1.0"),
    ("scale", True),
    ("scale", None),
    ("scale", 1j),
    ("dataset", 1),
    ("dataset", None),
    ("sn_mode", b"SN"),
    ("restore", 0),
    ("restore", "false"),
    ("initial_metrics", None),
    ("expected_images", 5.0),
]
OUT_OF_RANGE = [
    ("scale", 0),
    ("scale", -1.0),
    ("scale", math.nan),
    ("scale", math.inf),
    ("scale", 10**400),
    ("g_lr", -math.inf),
    ("g_lr", -1e-9),
    ("d_lr", math.nan),
    ("g_beta1", 1),
    ("g_beta2", 1.0),
    ("d_beta1", -0.1),
    ("d_beta2", 1.5),
    ("iteration", 0),
    ("run", -1),
    ("n_dis", 0),
    ("mg", 0),
    ("batch_size", 0),
    ("latent_dim", 0),
    ("vis_freq", 0),
    ("vis_num_h", 0),
    ("vis_num_w", 0),
    ("summary_freq", 0),
    ("metric_freq", 0),
    ("save_checkpoint_freq", 0),
    ("extra_checkpoint_freq", -5),
    ("sn_mode", "sn"),
    ("sn_mode", "BSSN"),
    ("dataset", "CIFAR10"),
    ("dataset", ""),
    ("seed", -1),
    ("width", 0),
    ("expected_images", 0),
    ("is_samples", 9),
    ("fid_samples", 1),
    ("fid_real", 1),
]


@pytest.mark.parametrize(("key", "value"), WRONG_TYPES)
def test_a_wrong_type_is_refused(key, value):
    wanted = FIELDS[key].type.__name__
    refused(NO_GAMMA, {**JOB, key: value}, f"{key}={value!r}", f"type {wanted} is needed")


@pytest.mark.parametrize(("key", "value"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused(key, value):
    refused(NO_GAMMA, {**JOB, key: value}, f"{key}=", "must be")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scale", 1e-300),
        ("g_lr", 0.0),
        ("g_beta1", 0.0),
        ("g_beta2", 1 - 2**-53),
        ("run", 0),
        ("is_samples", 10),
        ("fid_samples", 2),
        ("fid_real", 2),
        ("expected_images", None),
        ("sn_mode", "BSN"),
        ("seed", 2**64),
    ],
)
def test_a_value_at_its_bound_is_accepted(key, value):
    assert getattr(make_settings(NO_GAMMA, {**JOB, key: value}), key) == value


def test_the_data_sets_are_those_of_the_paper_and_the_digits_for_every_variant():
    assert set(DATASETS) == {"cifar10", "stl10", "celeba", "imagenet", "digits"}
    for (variant, job), name in product(COMPLETE, DATASETS):
        assert make_settings(variant, {**job, "dataset": name}).dataset == name


@pytest.mark.parametrize(("variant", "job"), COMPLETE)
def test_an_unknown_data_set_is_refused_and_the_known_ones_are_named(variant, job):
    refused(variant, {**job, "dataset": "mnist"}, "dataset='mnist'", *DATASETS)


def test_keys_beyond_the_original_change_nothing_by_default():
    settings = make_settings(NO_GAMMA, JOB)
    beyond = {key: getattr(settings, key) for key in FIELDS if key not in JOB}
    assert beyond == {
        "d_gp_coe": None,
        "d_batch_size": None,
        "g_batch_size": None,
        "num_gpus": None,
        "restore": False,
        "network": "cnn",
        "loss": "hinge",
        "penalty": "none",
        "gamma": "none",
        "redraw_latents": False,
        "batch_norm_in_d_steps": True,
        "summary_after_update": False,
        "memory_summaries": False,
        "g_sn_mode": "none",
        "sn_iterations": 1,
        "sn_gradient": "through",
        "sn_advance": "update",
        "sn_epsilon": "added",
        "ema_decay": None,
        "ema_start": 0,
        "adam_form": "keras",
        "adam_epsilon": 1e-8,
        "latents": "normal",
        "sampling": "with_replacement",
        "last_batch": "keep",
        "flip": False,
        "step": "auto",
        "seed": 0,
        "width": 64,
        "precision": "float32",
        "jit_compile": False,
        "expected_images": None,
        "expected_classes": None,
        "is_samples": 50_000,
        "fid_samples": 10_000,
        "fid_real": 5_000,
        "initial_metrics": False,
    }


def test_settings_cannot_be_changed():
    settings = make_settings(NO_GAMMA, JOB)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.run = 1


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("scale", "1", 1.0),
        ("g_lr", "2e-4", 0.0002),
        ("iteration", "100", 100),
        ("dataset", "stl10", "stl10"),
        ("restore", "True", True),
        ("restore", "0", False),
        ("initial_metrics", "1", True),
        ("initial_metrics", "false", False),
        ("expected_images", "500", 500),
    ],
)
def test_text_is_typed_as_its_key_is(key, text, value):
    parsed = parse_value(key, text)
    assert (type(parsed), parsed) == (type(value), value)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("iteration", "1.0"),
        ("iteration", "1e5"),
        ("iteration", ""),
        ("iteration", "9" * 5000),
        ("iteration", "0"),
        ("scale", "one"),
        ("scale", "nan"),
        ("scale", "inf"),
        ("scale", "1e999"),
        ("restore", "yes"),
        ("sn_mode", "sn"),
        ("dataset", "cifar"),
    ],
)
def test_text_that_is_not_of_its_keys_type_is_refused(key, text):
    with pytest.raises(UserError, match=f"^{key}="):
        parse_value(key, text)


def test_text_for_an_unknown_key_is_refused():
    with pytest.raises(UserError, match="unknown configuration key 'foo'"):
        parse_value("foo", "1")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(key=st.sampled_from(list(FIELDS)), value=ANYTHING)
def test_any_value_is_typed_or_refused(key, value):
    try:
        checked = check_value(key, value)
    except UserError:
        return
    assert checked == value
    assert checked is None or type(checked) is FIELDS[key].type


def _deep():
    value = []
    for _ in range(5000):
        value = [value]
    return value


_HUGE = {"large": 10**5000, "small": -(10**5000), "deep": _deep()}


@pytest.mark.parametrize("value", _HUGE.values(), ids=_HUGE)
@pytest.mark.parametrize("key", ["iteration", "g_lr", "sn_mode", "restore"])
def test_values_that_cannot_even_be_shown_are_refused(key, value):
    with pytest.raises(UserError, match=f"^{key}="):
        check_value(key, value)


@pytest.mark.parametrize(("key", "end"), [("seed", 2**128), ("iteration", 2**63)])
def test_integers_have_an_end(key, end):
    assert check_value(key, end - 1) == end - 1
    with pytest.raises(UserError, match=f"below {end}"):
        check_value(key, end)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("sys:foo", "the module sys (None) has no 'foo'"),
        ("exits:x", "SystemExit: bye"),
        (":x", "cannot be imported"),
        ("json:", "has no ''"),
        ("a:b:c", "cannot be imported"),
    ],
)
def test_import_paths_that_lead_nowhere_are_one_clear_error(tmp_path, monkeypatch, value, words):
    (tmp_path / "exits.py").write_text("raise SystemExit('bye')")
    monkeypatch.syspath_prepend(tmp_path)
    refused(NO_GAMMA, {**JOB, "loss": value}, words)


def test_a_choice_that_no_key_has_is_refused_in_a_variant_too():
    variant = Variant("mine", network="cnn", gama="none")
    with pytest.raises(UserError, match="unknown configuration key 'gama'"):
        make_settings(variant, JOB)
