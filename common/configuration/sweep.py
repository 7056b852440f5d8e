"""From a variant's `config.py` to its jobs (specification, section 8).

The file's shape is the original's: `scheduler_config`, `global_config` and `test_config`, a list of
blocks `{key: [values]}`. Within a block all values are combined; the blocks are joined.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.configuration.settings import (
    Settings,
    keys_of_job,
    make_settings,
    no_effect,
    parse_text,
    parse_value,
)
from common.errors import UserError, shown
from common.variant import Variant

_MAX_COMBINATIONS = 1_000_000  # of a block; the paper's largest has 190
_LONGEST_FILE_NAME = 255  # bytes, on all common file systems


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Where and how the jobs run; the names are those of the original's `scheduler_config`.

    Paths are relative to the variant's folder. `gpu` may hold integers, too; they become texts.
    """

    gpu: list
    result_root_folder: str = "results"
    scheduler_log_file_path: str = "scheduler.log"
    log_file: str = "worker.log"
    temp_folder: str = "temp"
    force_rerun: bool = False
    config_string_value_maxlen: int = 30
    ignored_keys_for_folder_name: list = dataclasses.field(default_factory=list)
    ignored_characters_for_folder_name: list = dataclasses.field(
        default_factory=lambda: [" ", "[", "]"]
    )
    test_config_string_separator: str = ","
    test_config_string_indicator: str = "-"
    test_config_string_inst_separator: str = "+"

    @property
    def slots(self) -> tuple[tuple[str, ...], ...]:
        """For each entry of `gpu`, the ids of the devices that a job has there: tuples of texts."""
        return tuple((entry,) if isinstance(entry, str) else tuple(entry) for entry in self.gpu)


_SCHEDULER_TYPES = {
    field.name: field.type
    for field in dataclasses.fields(SchedulerConfig)
    if isinstance(field.type, type)
}


@dataclass(frozen=True)
class Job:
    """One training that a configuration asks for.

    Attributes:
        settings: its whole configuration.
        folder: the name of its folder below `result_root_folder`.
    """

    settings: Settings
    folder: str


@dataclass(frozen=True)
class Sweep:
    """All jobs of a configuration.

    Attributes:
        scheduler: the `SchedulerConfig`.
        jobs: the jobs of distinct settings, in the order of their first appearance, under the name
            that they have there.
        count: how many there are with repeats.
    """

    scheduler: SchedulerConfig
    jobs: tuple[Job, ...]
    count: int


def expand(
    variant: Variant,
    config: Any,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    file: str = "config.py",
) -> Sweep:
    """The jobs of a configuration.

    Args:
        variant: the `Variant` it is for.
        config: the dictionary of `config.py`.
        overrides: `KEY=VALUE` texts that replace a key's value in every job (`--set`).
        only: `KEY=VALUE` texts; a job is left out if it has none of a key's values (`--only`).
        file: name of the configuration's file, for messages.

    Returns:
        A `Sweep`.

    Raises:
        UserError: unknown keys, wrong values, or two different jobs that would share a folder.
    """
    sections = _sections(config, file)
    scheduler_values, job_values = _parse_overrides(overrides)
    scheduler = _scheduler_config({**sections["scheduler_config"], **scheduler_values})
    conditions = _parse_conditions(only)
    swept = _combinations(sections["test_config"], job_values, file)
    if not swept:
        raise UserError(f"{file}: there is no job, as every block of test_config has a [] in it.")
    shared = {**sections["global_config"], **job_values}
    jobs = []
    effective: set[str] = set()
    for values in swept:
        settings = make_settings(variant, {**shared, **values}, shared.keys() - values.keys())
        effective.update(keys_of_job(settings))
        if all(getattr(settings, name) in wanted for name, wanted in conditions.items()):
            jobs.append(Job(settings, folder_name(values, scheduler)))
    if useless := [name for name in shared if name not in effective]:
        raise UserError(no_effect(variant, useless[0]))
    if not jobs:
        raise UserError(f"no job of the configuration matches --only {' --only '.join(only)}.")
    distinct: dict[Settings, Job] = {}
    for job in jobs:  # 1 and 1.0 give different names to what is the same job
        distinct.setdefault(job.settings, job)
    _refuse_shared_folders(distinct.values())
    return Sweep(scheduler, tuple(distinct.values()), len(jobs))


def folder_name(values: Mapping[str, Any], scheduler: SchedulerConfig) -> str:
    """The original's folder name of the swept `{key: value}`: `d_lr-0.0001,dataset-cifar10,...,`.

    Raises:
        UserError: the name would not be one folder on a common file system.
    """
    name = "".join(
        f"{key}{scheduler.test_config_string_indicator}"
        f"{str(value)[: scheduler.config_string_value_maxlen]}"
        f"{scheduler.test_config_string_separator}"
        for key, value in sorted(values.items())
        if key not in scheduler.ignored_keys_for_folder_name
    )
    for character in scheduler.ignored_characters_for_folder_name:
        name = name.replace(character, "")
    if not _is_file_name(name):
        raise UserError(f"the swept values give {name!r}, which cannot be a folder's name.")
    if len(name.encode()) > _LONGEST_FILE_NAME:
        raise UserError(
            f"the swept values give a folder name of {len(name.encode())} bytes, and "
            f"{_LONGEST_FILE_NAME} are possible: shorten config_string_value_maxlen or name keys "
            f"in ignored_keys_for_folder_name. The name: {name}"
        )
    return name


def _is_file_name(text: str) -> bool:
    """Whether a file or folder can have the name, and a line of output can show it."""
    return text.isprintable() and "/" not in text and text not in ("", ".", "..")


def _is_path(text: str) -> bool:
    """Whether a file system can have the path, with a job's folder and its files below it."""
    parts = [part.encode(errors="replace") for part in Path(text).parts]
    short = all(len(part) <= _LONGEST_FILE_NAME for part in parts) and sum(map(len, parts)) < 2048
    return short and "\0" not in text


def _sections(config: Any, file: str) -> dict[str, Any]:
    known = {"scheduler_config": dict, "global_config": dict, "test_config": list}
    if not isinstance(config, dict):
        raise UserError(f"{file}: `config` must be a dictionary.")
    for name in config:
        if name not in known:
            raise UserError(f"{file}: unknown section {name!r}. Known: {', '.join(known)}.")
    sections = {name: config.get(name, kind()) for name, kind in known.items()}
    for name, kind in known.items():
        if not isinstance(sections[name], kind):
            raise UserError(f"{file}: {name} must be a {kind.__name__}.")
    return sections


def _scheduler_config(values: Mapping[str, Any]) -> SchedulerConfig:
    for name, value in values.items():
        if name not in _SCHEDULER_TYPES:
            known = ", ".join(_SCHEDULER_TYPES)
            raise UserError(f"unknown scheduler_config key {name!r}. Known: {known}.")
        if type(value) is not _SCHEDULER_TYPES[name]:  # not isinstance: True is no number
            wanted = _SCHEDULER_TYPES[name].__name__
            raise UserError(f"scheduler_config {name}={shown(value)}: a {wanted} is needed.")
    if "gpu" not in values:
        raise UserError('scheduler_config lacks "gpu", the list of device ids.')
    scheduler = SchedulerConfig(**{**values, "gpu": [_device_text(e) for e in values["gpu"]]})
    for name, (holds, wanted) in _SCHEDULER_RULES.items():
        value = getattr(scheduler, name)
        if not holds(value):
            raise UserError(f"scheduler_config {name}={shown(value)}: {wanted} is needed.")
    _refuse_shared_devices(scheduler)
    return scheduler


def _device_text(entry: Any) -> Any:
    """An entry of `gpu` with its numbers as texts, 0 and "00" as "0"."""
    if isinstance(entry, (list, tuple)):
        return [_number_text(device) for device in entry]
    return _number_text(entry)


def _number_text(device: Any) -> Any:
    if isinstance(device, str) and re.fullmatch("[0-9]{1,9}", device):
        device = int(device)
    return str(device) if type(device) is int and abs(device) < 10**9 else device


def _refuse_shared_devices(scheduler: SchedulerConfig) -> None:
    """A device trains one job at a time: two would share its memory, and none would say why."""
    devices = [device for slot in scheduler.slots for device in slot]
    for device in devices:
        if devices.count(device) > 1:
            raise UserError(
                f"scheduler_config gpu={scheduler.gpu!r}: device {device} is listed more than "
                "once. List each device once; it takes one job at a time."
            )


def _are_strings(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values)


def _are_devices(values: Any) -> bool:
    """Whether each is a device id (printable, no comma, not negative), or several for one job."""
    return (
        _are_strings(values)
        and len(values) > 0
        and all(re.fullmatch(r"[A-Za-z0-9][\w./:-]*", value) for value in values)
    )


_SCHEDULER_RULES = {
    "gpu": (
        lambda gpus: gpus and all(_are_devices([gpu]) or _are_devices(gpu) for gpu in gpus),
        'a list of ids like 0 or "0", or of lists of them,',
    ),
    "log_file": (
        lambda name: _is_file_name(name) and _is_path(name),
        "a file name without a folder",
    ),
    "result_root_folder": (_is_path, "a path that is not too long"),
    "scheduler_log_file_path": (_is_path, "a path that is not too long"),
    "config_string_value_maxlen": (lambda length: length > 0, "a positive number"),
    "ignored_keys_for_folder_name": (_are_strings, "a list of strings"),
    "ignored_characters_for_folder_name": (_are_strings, "a list of strings"),
}


def _split(text: str, option: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UserError(f"--{option} {text!r}: KEY=VALUE is needed.")
    return name, value


def _parse_overrides(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    scheduler: dict[str, Any] = {}
    job: dict[str, Any] = {}
    for text in overrides:
        name, value = _split(text, "set")
        if name in _SCHEDULER_TYPES:
            scheduler[name] = parse_text(name, value, _SCHEDULER_TYPES[name])
            if name == "gpu":  # "0+1,2" is one job on the devices 0 and 1, and one on 2
                groups = [entry.split("+") for entry in scheduler[name]]
                scheduler[name] = [g if len(g) > 1 else g[0] for g in groups]
        else:
            job[name] = parse_value(name, value)
    return scheduler, job


def _parse_conditions(only: Sequence[str]) -> dict[str, list[Any]]:
    """`{key: [values]}`: a key that is named several times may have any of the values."""
    conditions: dict[str, list[Any]] = {}
    for text in only:
        name, value = _split(text, "only")
        conditions.setdefault(name, []).append(parse_value(name, value))
    return conditions


def _combinations(
    blocks: Sequence[Any], overrides: Mapping[str, Any], file: str
) -> list[dict[str, Any]]:
    """Every combination of every block, as `{key: value}`, overridden keys being fixed."""
    if not blocks:
        return [{}]
    combinations = []
    for index, block in enumerate(blocks):
        if not isinstance(block, dict):
            raise UserError(f"{file}: test_config[{index}] must be a dictionary.")
        for name, values in block.items():
            if not isinstance(values, (list, tuple, range)):
                raise UserError(f"{file}: test_config[{index}][{name!r}] must be a list.")
        fixed = {key: [overrides[key]] if key in overrides else block[key] for key in block}
        if math.prod(map(_length, fixed.values())) > _MAX_COMBINATIONS:
            raise UserError(
                f"{file}: test_config[{index}] has more than {_MAX_COMBINATIONS:,} combinations."
            )
        for values in itertools.product(*fixed.values()):
            combinations.append(dict(zip(fixed, values, strict=True)))
    return combinations


def _length(values: Sequence[Any]) -> float:
    try:
        return len(values)
    except OverflowError:  # of a range
        return math.inf


def _refuse_shared_folders(jobs: Iterable[Job]) -> None:
    owner: dict[str, Job] = {}
    for job in jobs:
        other = owner.setdefault(job.folder, job)
        if other != job:
            ours, theirs = (dataclasses.asdict(j.settings) for j in (job, other))
            keys = [key for key in ours if ours[key] != theirs[key]]
            values = "; ".join(f"{key}: {theirs[key]!r} and {ours[key]!r}" for key in keys)
            raise UserError(
                f"two jobs that differ in {', '.join(keys)} would share the folder {job.folder} "
                f"({values}): raise config_string_value_maxlen or drop keys from "
                "ignored_keys_for_folder_name."
            )


def results_folder(base: str | Path, scheduler: SchedulerConfig) -> Path:
    """The folder that holds the jobs' folders: absolute, `base` being the variant's folder."""
    return (Path(base) / scheduler.result_root_folder).resolve()
