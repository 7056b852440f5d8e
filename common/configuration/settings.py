"""Every key that a job's configuration may hold: its type, its meaning and what it may be."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from common.choices import Choices
from common.data import DATASETS
from common.errors import UserError, shown
from common.latents import LATENTS
from common.losses import LOSSES, PENALTIES
from common.networks import NETWORKS
from common.networks.normalization import (
    GENERATOR_NORMALIZATIONS,
    NORMALIZATIONS,
)
from common.sampling import SAMPLINGS
from common.variant import Variant

Values = Mapping[str, Any]  # {key: value}

_REQUIRED = object()
_INT_END = 2**63  # where TensorFlow's integers end


@dataclass(frozen=True)
class _Condition:
    """When a key is there, or needed.

    Attributes:
        holds: of a job's `{key: value}`, with defaults.
        words: the condition, for messages.
    """

    holds: Callable[[Values], bool]
    words: str


def _key(
    doc: str,
    *,
    default: Any = _REQUIRED,
    only: _Condition | None = None,
    required: _Condition | None = None,
    **checks: Any,
) -> Any:
    """A field with its checks.

    `only` and `required` say which jobs have the key and which cannot do without it, where that is
    not all of them. The checks are `minimum`, `above`, `below`, `choices`; the latter is a tuple,
    or a table of rows.
    """
    metadata = {"doc": doc, "only": only, "required": required, "checks": checks}
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


_WITHOUT_GAMMA = _Condition(lambda v: v["gamma"] == "none", "gamma=none")
_REDRAWS = _Condition(lambda v: v["redraw_latents"], "redraw_latents=true")
_REUSES = _Condition(lambda v: not v["redraw_latents"], "redraw_latents=false")
_HAS_EPOCHS = _Condition(lambda v: SAMPLINGS[v["sampling"]].in_epochs, "sampling=shuffled")
_AVERAGES = _Condition(lambda v: v["ema_decay"] is not None, "an ema_decay")
_HAS_PENALTY = _Condition(
    lambda v: PENALTIES[penalty_of(v)].function is not None, "a loss or a penalty with a factor"
)
_SPECTRAL = _Condition(
    lambda v: (
        NORMALIZATIONS[v.get("sn_mode", "SN")].is_spectral  # it may be what is missing
        or GENERATOR_NORMALIZATIONS[v["g_sn_mode"]].is_spectral
    ),
    "an sn_mode that estimates spectral norms",
)


def _read_by_the_network(key: str) -> _Condition:
    return _Condition(lambda v: key in NETWORKS[v["network"]].keys, f"networks that read {key}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one job, checked and typed (FIDELITY section 8).

    Keys of the original's `config.py` keep their names; those below "Beyond the original" are
    ours and have defaults that change nothing. Where a variant's `gan_task.py` states another
    default, that one holds in its folder.
    """

    dataset: str = _key("data set", choices=DATASETS)
    iteration: int = _key("number of training iterations", minimum=1)
    run: int = _key("which repetition this is; part of the seed", minimum=0)
    g_lr: float = _key("learning rate of the generator", minimum=0)
    d_lr: float = _key("learning rate of the discriminator", minimum=0)
    g_beta1: float = _key("Adam's beta1 of the generator", minimum=0, below=1)
    d_beta1: float = _key("Adam's beta1 of the discriminator", minimum=0, below=1)
    g_beta2: float = _key("Adam's beta2 of the generator", minimum=0, below=1)
    d_beta2: float = _key("Adam's beta2 of the discriminator", minimum=0, below=1)
    n_dis: int = _key("discriminator steps per iteration", minimum=1)
    mg: int = _key(
        "side of G's first feature map",
        default=None,
        minimum=1,
        only=_read_by_the_network("mg"),
        required=_read_by_the_network("mg"),
    )
    sn_mode: str = _key("normalisation of the discriminator", choices=NORMALIZATIONS)
    scale: float = _key(
        "factor on normalised weights", default=1.0, above=0, required=_WITHOUT_GAMMA
    )
    d_gp_coe: float = _key(
        "penalty's factor", default=None, minimum=0, only=_HAS_PENALTY, required=_HAS_PENALTY
    )
    batch_size: int = _key(
        "images per step", default=None, minimum=1, only=_REUSES, required=_REUSES
    )
    d_batch_size: int = _key(
        "images per D step", default=None, minimum=1, only=_REDRAWS, required=_REDRAWS
    )
    g_batch_size: int = _key(
        "images per G step", default=None, minimum=1, only=_REDRAWS, required=_REDRAWS
    )
    num_gpus: int = _key(
        "devices to train on", default=None, minimum=1, only=_REDRAWS, required=_REDRAWS
    )
    latent_dim: int = _key("length of the latent vector", minimum=1)
    vis_freq: int = _key("iterations between sample grids", minimum=1)
    vis_num_h: int = _key("rows of a sample grid", minimum=1)
    vis_num_w: int = _key("columns of a sample grid", minimum=1)
    summary_freq: int = _key("iterations between TensorBoard summaries", minimum=1)
    metric_freq: int = _key("iterations between metrics", minimum=1)
    save_checkpoint_freq: int = _key("iterations between checkpoints", minimum=1)
    extra_checkpoint_freq: int = _key("iterations between kept checkpoints", minimum=1)
    restore: bool = _key("the original's switch for resuming, which is automatic", default=False)

    # Beyond the original: what a variant is.
    network: str = _key("generator and discriminator", default="cnn", choices=NETWORKS)
    loss: str = _key("adversarial loss", default="hinge", choices=LOSSES)
    penalty: str = _key(
        "penalty in D's loss; by default the one that belongs to the loss",
        default=None,
        choices=PENALTIES,
    )
    gamma: str = _key(
        "trainable scalars on D's weights and biases: one for all layers, or one each",
        default="none",
        choices=("none", "shared", "per_layer"),
    )
    redraw_latents: bool = _key(
        "draw new latents for G's step, in a batch size of its own; otherwise it takes those of "
        "the last D step",
        default=False,
    )
    batch_norm_in_d_steps: bool = _key(
        "advance G's moving averages in D steps too; otherwise in G steps only", default=True
    )
    summary_after_update: bool = _key(
        "measure D's summaries after the last update of an iteration; otherwise before it",
        default=False,
    )
    memory_summaries: bool = _key("log memory use at every iteration", default=False)

    # Beyond the original: other choices.
    g_sn_mode: str = _key(
        "normalisation of the generator's weights", default="none", choices=GENERATOR_NORMALIZATIONS
    )
    sn_iterations: int = _key(
        "power iterations per estimate of a spectral norm", default=1, minimum=1, only=_SPECTRAL
    )
    sn_gradient: str = _key(
        "whether gradients flow through u and v (the paper's), or both are constants (PyTorch's)",
        default="through",
        choices=("through", "constant"),
        only=_SPECTRAL,
    )
    sn_advance: str = _key(
        "whether u advances once after each update of its network, or in every training-mode pass",
        default="update",
        choices=("update", "pass"),
        only=_SPECTRAL,
    )
    sn_epsilon: str = _key(
        "how l2 keeps from dividing by 0: 1e-12 added to the norm, or as its least value",
        default="added",
        choices=("added", "maximum"),
        only=_SPECTRAL,
    )
    ema_decay: float = _key(
        "share of G's moving average that each G update keeps; samples, metrics and exports are "
        "the average's",
        default=None,
        minimum=0,
        below=1,
    )
    ema_start: int = _key(
        "G updates after which the average begins; until then it is a copy",
        default=0,
        minimum=0,
        only=_AVERAGES,
    )
    adam_form: str = _key(
        "where Adam's epsilon stands: beside the root of the second moment as it is (Keras'), or "
        "corrected for its bias (PyTorch's)",
        default="keras",
        choices=("keras", "pytorch"),
    )
    adam_epsilon: float = _key("Adam's epsilon", default=1e-8, minimum=0)
    latents: str = _key("distribution of the latents", default="normal", choices=LATENTS)
    sampling: str = _key(
        "how real images are drawn: independently, or in shuffled epochs",
        default="with_replacement",
        choices=SAMPLINGS,
    )
    last_batch: str = _key(
        "what becomes of an epoch's incomplete batch",
        default="keep",
        choices=("keep", "drop"),
        only=_HAS_EPOCHS,
    )
    flip: bool = _key("mirror each real image with probability 0.5", default=False)
    step: str = _key(
        "how gradients are computed: fused (fast) where that is provably right, else plain",
        default="auto",
        choices=("auto", "fused", "plain"),
    )

    # Beyond the original: sizes, seeds, precision.
    seed: int = _key("with `run`, determines everything random", default=0, minimum=0, below=2**128)
    width: int = _key(
        "channels of the narrowest layer; the paper's is 64",
        default=64,
        minimum=1,
        only=_read_by_the_network("width"),
    )
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


def own_paths(values: Values) -> list[str]:
    """The import paths among the choices of a job's `{key: value}`: those of users' own rows.

    Nothing is imported.
    """
    return [
        value
        for name, value in values.items()
        if name in FIELDS
        and isinstance(rows := FIELDS[name].metadata["checks"].get("choices"), Choices)
        and isinstance(value, str)
        and value not in rows
        and ":" in value
    ]


def type_of(name: str) -> type:
    """The declared type of a key; where its default is None, it may be None, too."""
    declared = FIELDS[name].type
    assert isinstance(declared, type)
    return declared


def default_values() -> dict[str, Any]:
    """`{key: value}` of the keys that have a default."""
    return {f.name: f.default for f in FIELDS.values() if f.default is not dataclasses.MISSING}


def penalty_of(values: Values) -> str:
    """The penalty of a job's `{key: value}`: its own, or the one that belongs to its loss."""
    return values.get("penalty") or LOSSES[values["loss"]].penalty


def keys_of(variant: Variant) -> list[str]:
    """The names of the keys that a job of a variant has by the variant's own choices."""
    return _keys_for({**default_values(), **variant.choices})


def keys_of_job(settings: Settings) -> list[str]:
    """The names of the keys that have an effect on a job."""
    return _keys_for(vars(settings))


def _keys_for(values: Values) -> list[str]:
    return [
        name
        for name, field in FIELDS.items()
        if field.metadata["only"] is None or field.metadata["only"].holds(values)
    ]


def make_settings(variant: Variant, values: Values, droppable: Collection[str] = ()) -> Settings:
    """Checks a job's `{key: value}` and returns its `Settings`.

    Args:
        variant: the `Variant`, whose choices hold for the keys that are not given.
        values: what the configuration says.
        droppable: keys among them that are left out of a job on which they have no effect: those
            that all jobs of a configuration share.

    Raises:
        UserError: an unknown or missing key, or a value of the wrong type or out of range.
    """
    for name in (*variant.choices, *values):
        if name not in FIELDS:
            have = ", ".join(keys_of(variant))
            raise UserError(f"unknown configuration key {name!r}. {variant.name} has: {have}.")
    given = {**variant.choices, **values}
    checked = {name: check_value(name, value) for name, value in given.items()}
    complete = {**default_values(), **checked}
    known = _keys_for(complete)
    for name in values:
        if name not in known and name not in droppable:
            raise UserError(no_effect(variant, name))
    missing = [n for n in known if _is_required(n, complete) and checked.get(n) is None]
    if missing:
        raise UserError(f"{variant.name}: the configuration lacks {', '.join(missing)}.")
    # What the variant chooses for other jobs than this is left out.
    own: dict[str, Any] = {name: value for name, value in checked.items() if name in known}
    return Settings(**{**own, "penalty": penalty_of(complete)})


def no_effect(variant: Variant, name: str) -> str:
    """The message that a key has no effect on any job that has it."""
    words = FIELDS[name].metadata["only"].words
    return f"{variant.name} has no key {name!r} here: it is for {words}."


def _is_required(name: str, values: Values) -> bool:
    field = FIELDS[name]
    if field.metadata["required"] is not None:
        return field.metadata["required"].holds(values)
    return field.default is dataclasses.MISSING


def read_settings(recorded: Values, defaults: Values) -> Settings:
    """The `Settings` that a record holds.

    Args:
        recorded: `{key: value}` as `dataclasses.asdict` gave it, maybe to an earlier version.
        defaults: values of the keys that were not there then.

    Raises:
        UserError: an unknown or missing key, or a value of the wrong type or out of range.
    """
    complete = complete_record(recorded, defaults)
    unknown = [name for name in complete if name not in FIELDS]
    missing = [name for name in FIELDS if name not in complete]
    if unknown or missing:
        raise UserError(f"unknown or missing keys {', '.join([*unknown, *missing])}")
    return Settings(**{name: check_value(name, value) for name, value in complete.items()})


def complete_record(recorded: Values, defaults: Values) -> dict[str, Any]:
    """A record's `{key: value}` with those that its version did not know, or left open.

    What is None in it although its key cannot be has its default value, too: the gammas' variants
    had no `scale` once.
    """
    all_defaults = {**default_values(), **defaults}
    known = {
        name: value
        for name, value in recorded.items()
        if value is not None or name not in FIELDS or FIELDS[name].default is None
    }
    complete = {**all_defaults, **known}
    # Records may be anybody's: nothing that one names is imported.
    if complete.get("penalty") is None and complete.get("loss") in tuple(LOSSES):
        complete["penalty"] = penalty_of(complete)
    return complete


def check_value(name: str, value: Any) -> Any:
    """The value of key `name` in its declared type; an integer passes for a float.

    Raises:
        UserError: wrong type or out of range.
    """
    field = FIELDS[name]
    if value is None and field.default is None:
        return None
    value = _coerce(name, type_of(name), value)
    limits = {"below": _INT_END} if field.type is int else {}
    _check_range(name, value, {**limits, **field.metadata["checks"]})
    return value


def _coerce(name: str, wanted: type, value: Any) -> Any:
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


_RULES: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    ("minimum", lambda value, bound: value >= bound, "at least"),
    ("above", lambda value, bound: value > bound, "above"),
    ("below", lambda value, bound: value < bound, "below"),
    ("choices", lambda value, choices: value in choices, "one of"),
)


def _check_range(name: str, value: Any, checks: Mapping[str, Any]) -> None:
    rows = checks.get("choices")
    if isinstance(rows, Choices):
        rows[value]  # raises if there is no such row
        return
    for rule, holds, words in _RULES:
        if rule in checks and not holds(value, checks[rule]):
            raise UserError(f"{name}={shown(value)}: the value must be {words} {checks[rule]}.")


def parse_value(name: str, text: str) -> Any:
    """The value that `text`, from the command line, stands for: typed as key `name` is declared.

    Raises:
        UserError: an unknown key or a text that is not of its type.
    """
    if name not in FIELDS:
        raise UserError(f"unknown configuration key {name!r}. Known: {', '.join(FIELDS)}.")
    return check_value(name, parse_text(name, text, type_of(name)))


def parse_text(name: str, text: str, wanted: type) -> Any:
    """`text` as a bool, int, float, str or (separated by commas) list, `wanted` being the type.

    Raises:
        UserError: the text is not of that type.
    """
    parsers: dict[type, Callable[[str], Any]] = {
        bool: _parse_bool,
        list: lambda text: text.split(",") if text else [],
    }
    try:
        return parsers.get(wanted, wanted)(text)
    except ValueError:
        raise UserError(f"{name}={text!r}: a value of type {wanted.__name__} is needed.") from None


def _parse_bool(text: str) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        raise ValueError
    return words[text.lower()]
