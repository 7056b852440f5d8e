"""Every key that a job's configuration may hold: its type, its meaning and what it may be."""

import dataclasses
import math
from dataclasses import dataclass

from common.data import DATASETS
from common.errors import UserError, shown

_REQUIRED = object()
_INT_END = 2**63  # where TensorFlow's integers end


def _key(doc, *, default=_REQUIRED, only=None, required=None, **checks):
    """A field with its checks.

    `only` and `required` say which variants have it and which cannot do without it, where that is
    not all of them: `f(variant) -> bool`. The checks are `minimum`, `above`, `below`, `choices`.
    """
    metadata = {"doc": doc, "only": only, "required": required, "checks": checks}
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _has_gamma(variant):
    return variant.gamma != "none"


def _without_gamma(variant):
    return not _has_gamma(variant)


def _has_penalty(variant):
    return variant.loss == "wgan_gp"


def _is_cnn(variant):
    return variant.network == "cnn"


def _redraws(variant):
    return variant.redraw_latents


def _reuses(variant):
    return not variant.redraw_latents


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one job, checked and typed (specification, section 8).

    Keys of the original's `config.py` keep their names; those below "Beyond the original" are
    ours and have defaults that change nothing.
    """

    dataset: str = _key("data set", default="imagenet", required=_is_cnn, choices=tuple(DATASETS))
    iteration: int = _key("number of training iterations", minimum=1)
    run: int = _key("which repetition this is; part of the seed", minimum=0)
    g_lr: float = _key("learning rate of the generator", minimum=0)
    d_lr: float = _key("learning rate of the discriminator", minimum=0)
    g_beta1: float = _key("Adam's beta1 of the generator", minimum=0, below=1)
    d_beta1: float = _key("Adam's beta1 of the discriminator", minimum=0, below=1)
    g_beta2: float = _key("Adam's beta2 of the generator", minimum=0, below=1)
    d_beta2: float = _key("Adam's beta2 of the discriminator", minimum=0, below=1)
    n_dis: int = _key("discriminator steps per iteration", minimum=1)
    mg: int = _key("side of G's first feature map", default=4, required=_is_cnn, minimum=1)
    sn_mode: str = _key("normalisation of the convolutions", choices=("SN", "BSN"))
    scale: float = _key("factor on normalised weights", above=0, only=_without_gamma, default=None)
    d_gp_coe: float = _key("gradient penalty's factor", minimum=0, only=_has_penalty, default=None)
    batch_size: int = _key("images per step", minimum=1, only=_reuses, default=None)
    d_batch_size: int = _key("images per D step", minimum=1, only=_redraws, default=None)
    g_batch_size: int = _key("images per G step", minimum=1, only=_redraws, default=None)
    num_gpus: int = _key("devices to train on", minimum=1, only=_redraws, default=None)
    latent_dim: int = _key("length of the latent vector", minimum=1)
    vis_freq: int = _key("iterations between sample grids", minimum=1)
    vis_num_h: int = _key("rows of a sample grid", minimum=1)
    vis_num_w: int = _key("columns of a sample grid", minimum=1)
    summary_freq: int = _key("iterations between TensorBoard summaries", minimum=1)
    metric_freq: int = _key("iterations between metrics", minimum=1)
    save_checkpoint_freq: int = _key("iterations between checkpoints", minimum=1)
    extra_checkpoint_freq: int = _key("iterations between kept checkpoints", minimum=1)
    restore: bool = _key("the original's switch for resuming, which is automatic", default=False)

    # Beyond the original.
    seed: int = _key("with `run`, determines everything random", default=0, minimum=0, below=2**128)
    width: int = _key("channels of the narrowest layer; the paper's is 64", default=64, minimum=1)
    precision: str = _key(
        "dtype policy of the networks; estimates and losses keep the variables' precision",
        default="float32",
        choices=("float32", "float64", "mixed_float16", "mixed_bfloat16"),
    )
    jit_compile: bool = _key("compile the steps by XLA (one device only)", default=False)
    expected_images: int = _key("size of the data set, for a subset", default=None, minimum=1)
    expected_classes: int = _key("ImageNet's classes, for a subset", default=None, minimum=1)
    is_samples: int = _key("samples for the Inception Score", default=50_000, minimum=10)
    fid_samples: int = _key("of these, samples for the FID", default=10_000, minimum=2)
    fid_real: int = _key("real images for the FID", default=5_000, minimum=2)
    initial_metrics: bool = _key("measure before the first iteration too (id -1)", default=False)


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def default_values():
    """`{key: value}` of the keys that have a default."""
    return {f.name: f.default for f in FIELDS.values() if f.default is not dataclasses.MISSING}


def keys_of(variant):
    """The names of the keys that a variant's configuration may hold."""
    return [
        name
        for name, field in FIELDS.items()
        if field.metadata["only"] is None or field.metadata["only"](variant)
    ]


def make_settings(variant, values):
    """Checks a job's `{key: value}` and returns its `Settings`.

    Raises:
        UserError: an unknown or missing key, or a value of the wrong type or out of range.
    """
    known = keys_of(variant)
    for name in values:
        if name not in known:
            raise UserError(_unknown(variant, name, known))
    checked = {name: check_value(name, value) for name, value in values.items()}
    missing = [name for name in known if _is_required(FIELDS[name], variant) and name not in values]
    if missing:
        raise UserError(f"{variant.name}: the configuration lacks {', '.join(missing)}.")
    return Settings(**checked)


def _is_required(field, variant):
    if field.metadata["required"] is not None:
        return field.metadata["required"](variant)
    if field.metadata["only"] is not None:
        return True  # the default only stands for "not a key of this variant"
    return field.default is dataclasses.MISSING


def _unknown(variant, name, known):
    if name in FIELDS:
        return f"{variant.name} has no key {name!r}: it belongs to other variants. Remove it."
    return f"unknown configuration key {name!r}. {variant.name} has: {', '.join(known)}."


def check_value(name, value):
    """The value of key `name` in its declared type; an integer passes for a float.

    Raises:
        UserError: wrong type or out of range.
    """
    field = FIELDS[name]
    if value is None and field.default is None and field.metadata["only"] is None:
        return None
    value = _coerce(name, field.type, value)
    limits = {"below": _INT_END} if field.type is int else {}
    _check_range(name, value, {**limits, **field.metadata["checks"]})
    return value


def _coerce(name, wanted, value):
    accepted = (int, float) if wanted is float else wanted
    if not isinstance(value, accepted) or isinstance(value, bool) != (wanted is bool):
        raise UserError(f"{name}={shown(value)}: a value of type {wanted.__name__} is needed.")
    try:
        value = wanted(value)
    except OverflowError:  # an integer beyond the floats
        value = math.inf
    if wanted is float and not math.isfinite(value):
        raise UserError(f"{name}={shown(value)}: the value must be finite.")
    return value


def _check_range(name, value, checks):
    rules = (
        ("minimum", lambda bound: value >= bound, "at least"),
        ("above", lambda bound: value > bound, "above"),
        ("below", lambda bound: value < bound, "below"),
        ("choices", lambda choices: value in choices, "one of"),
    )
    for rule, holds, words in rules:
        if rule in checks and not holds(checks[rule]):
            raise UserError(f"{name}={shown(value)}: the value must be {words} {checks[rule]}.")


def parse_value(name, text):
    """The value that `text`, from the command line, stands for: typed as key `name` is declared.

    Raises:
        UserError: an unknown key or a text that is not of its type.
    """
    if name not in FIELDS:
        raise UserError(f"unknown configuration key {name!r}. Known: {', '.join(FIELDS)}.")
    return check_value(name, parse_text(name, text, FIELDS[name].type))


def parse_text(name, text, wanted):
    """`text` as a bool, int, float, str or (separated by commas) list, `wanted` being the type.

    Raises:
        UserError: the text is not of that type.
    """
    parsers = {bool: _parse_bool, list: lambda text: text.split(",") if text else []}
    try:
        return parsers.get(wanted, wanted)(text)
    except ValueError:
        raise UserError(f"{name}={text!r}: a value of type {wanted.__name__} is needed.") from None


def _parse_bool(text):
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        raise ValueError
    return words[text.lower()]
