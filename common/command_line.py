"""`python main.py`: one command line for all variants.

TensorFlow is imported by the jobs' processes alone, so that mistakes, `--dry_run` and `--status`
are quick.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from common import flag_values
from common.choices import search_in
from common.configuration.files import find_config, load_config, other_configs
from common.configuration.sweep import Job, Sweep, expand, results_folder
from common.errors import UserError
from common.exit_status import EXIT_OK, EXIT_USER_ERROR
from common.metrics import DEFAULT_METRICS, FEATURE_NETWORKS, METRICS, parse_metrics
from common.results.run_folder import RunFolder
from common.sweeps.attempt import Task, record_if_readable
from common.sweeps.message import TaskMessage
from common.sweeps.slots import open_slots
from common.sweeps.start import print_status, run_sweep
from common.sweeps.status import to_reader
from common.variant import Variant


def main(
    variant: Variant,
    config: Any,
    folder: str | Path,
    argv: Sequence[str] | None = None,
    command: tuple[str, ...] | None = None,
) -> int:
    """Runs the command line of a variant.

    Args:
        variant: the `Variant`.
        config: the dictionary of its `config.py`, which `--config` replaces.
        folder: the variant's folder; results, logs and data are looked for in it.
        argv: arguments with the program's name first; by default the process's.
        command: what a job's process executes, by default `common.sweeps.worker`.

    Returns:
        The exit status: 0 all jobs are done, 2 something the user must mend, 3 a job failed,
        75 stopped on request, or another process has some of the jobs (the same command goes on).
    """
    try:
        options = _parse(variant, sys.argv if argv is None else argv)
        return _run(variant, config, Path(folder), options, command) if options else EXIT_OK
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


# Each option's default and help text; the help texts are the reference.
_LISTS = {
    "only": "KEY=VALUE: run only the jobs in which it holds; may be repeated (one key: any)",
    "set": "KEY=VALUE: replace a configuration key's value; may be repeated",
}
_SWITCHES = {
    "dry_run": "list the jobs and run none",
    "status": "print where each job stands, and run none; at any time",
    "demo": "train on the embedded digits for a few minutes, without download",
    "strict_metrics": "end the training when metrics fail, instead of logging it and leaving their "
    "row out",
}
_TEXTS = {
    "config": (
        None,
        "NAME: take config_NAME.py of this folder in place of config.py; or the path of a .py file",
    ),
    "cluster": (
        None,
        "run the jobs on the Ray cluster at this address; auto for the one this machine is part "
        "of, local for one of this machine alone",
    ),
    "metrics": (
        ",".join(DEFAULT_METRICS),
        f"metrics during training: of {', '.join(METRICS)}, or import paths of your own; or none",
    ),
    "feature_network": (
        None,
        f"network behind the metrics: {', '.join(FEATURE_NETWORKS)}; by default the data set's "
        "own, digits for the digits and inception for all others",
    ),
    "inception_path": (
        None,
        "the frozen Inception graph, as frozen_inception_v1_2015_12_05.tar.gz, .pb or .pth; by "
        "default it is taken from the cache or downloaded there",
    ),
    "inception_sha256": (
        None,
        "expected SHA-256 of that file; by default that of its first use",
    ),
    "cache_dir": (None, "for networks and statistics; by default Keras' own"),
    "data_dir": (None, "folder of the data sets; by default data in the variant's"),
    "data_route": (
        "auto",
        "where images come from: auto (the file at its place, else tfds), or one of the data set's "
        "routes, such as archive, npy or tfds",
    ),
}


def _define_flags(values: flags.FlagValues) -> None:
    for name, text in _LISTS.items():
        flags.DEFINE_multi_string(name, [], text, flag_values=values)
    for name, text in _SWITCHES.items():
        flags.DEFINE_bool(name, False, text, flag_values=values)
    for name, (default, text) in _TEXTS.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_integer(
        "retries",
        0,
        "how often a job that has failed is tried again",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_bool("help", False, "show this help", short_name="h", flag_values=values)


def _parse(variant: Variant, argv: Sequence[str]) -> flags.FlagValues | None:
    """The parsed options, or None after `--help`."""
    values = flags.FlagValues()
    _define_flags(values)
    rest = flag_values.parse(values, argv)
    if values.help:
        print(f"{variant.name}: python main.py [options]\n{values.get_help()}")
        return None
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}: options start with -- (see --help)")
    return values


def _run(
    variant: Variant,
    config: Any,
    folder: Path,
    options: flags.FlagValues,
    command: tuple[str, ...] | None,
) -> int:
    file = folder / "config.py"
    if options.demo and options.config is not None:
        raise UserError("--demo has a configuration of its own: leave --config out.")
    if options.config is not None:
        file = find_config(options.config, folder)
    search = list(dict.fromkeys(str(path.absolute()) for path in (folder, file.parent)))
    search_in(search)
    if options.config is not None:
        config = load_config(file)
    if options.demo:
        from common import demo  # noqa: PLC0415

        config = demo.configuration(variant, config)
    sweep = expand(variant, config, options.set, options.only, file.name)
    tasks = _tasks(variant, sweep, folder, options, search)
    if options.dry_run:
        return _list_jobs(sweep, tasks)
    if options.status:
        print_status(tasks)
        return EXIT_OK
    _refuse_names_of_others(variant, sweep, folder, file)
    if not sweep.scheduler.force_rerun:
        _refuse_folders_of_others(tasks)
    if "TF_CONFIG" in os.environ:
        return _run_as_one_of_several_hosts(sweep, tasks, folder, options)
    status = run_sweep(
        tasks,
        sweep.scheduler,
        folder,
        retries=options.retries,
        cluster=options.cluster,
        command=command,
    )
    if options.demo and status == EXIT_OK:
        demo.print_table(sweep.jobs, [task.folder for task in tasks])
    return status


def _refuse_names_of_others(variant: Variant, sweep: Sweep, folder: Path, file: Path) -> None:
    """Refuses jobs that would share a folder with other jobs of another configuration's file.

    Raises:
        UserError: names the two, and what they differ in.
    """
    ours = {job.folder: job for job in sweep.jobs}
    results = results_folder(folder, sweep.scheduler)
    for other in (folder / "config.py", *other_configs(folder)):
        if not other.is_file() or (file.is_file() and other.samefile(file)):
            continue
        try:
            theirs = expand(variant, load_config(other), file=other.name)
        except UserError:
            continue  # it cannot be run as it is, and so has no folders
        if results_folder(folder, theirs.scheduler) != results:
            continue
        for job in theirs.jobs:
            if job.folder in ours and job.settings != ours[job.folder].settings:
                raise UserError(
                    f"{other.name} has another job of the name {job.folder} than {file.name}: they "
                    f"differ in {', '.join(_differences(job, ours[job.folder]))}. Sweep one of "
                    "these keys, or give one file another result_root_folder."
                )


def _refuse_folders_of_others(tasks: list[Task]) -> None:
    """Refuses folders that hold runs of another configuration.

    Raises:
        UserError: names the first, and what differs.
    """
    for task in tasks:
        if record_if_readable(task.folder):
            task.folder.check(task.job.settings)


def _differences(job: Job, other: Job) -> list[str]:
    return [
        field
        for field, value in vars(job.settings).items()
        if value != getattr(other.settings, field)
    ]


def _tasks(
    variant: Variant, sweep: Sweep, folder: Path, options: flags.FlagValues, search: list[str]
) -> list[Task]:
    results = results_folder(folder, sweep.scheduler)
    message: TaskMessage = {"search": search, "options": _run_options(folder, options)}
    log_file = sweep.scheduler.log_file
    return [
        Task(job, RunFolder(results / job.folder, log_file, defaults=variant.choices), message)
        for job in sweep.jobs
    ]


def _run_as_one_of_several_hosts(
    sweep: Sweep, tasks: list[Task], folder: Path, options: flags.FlagValues
) -> int:
    if sweep.scheduler.force_rerun or options.cluster:
        raise UserError(
            "force_rerun and --cluster are not for several hosts (TF_CONFIG): move the results "
            "away yourself, or unset it."
        )
    slot = open_slots(sweep.scheduler.slots[:1], os.environ)[0]
    # What TensorFlow sees of the machine, and says of it, is settled when it is imported.
    os.environ["CUDA_VISIBLE_DEVICES"] = slot.visible
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from common.sweeps import hosts  # noqa: PLC0415
    from common.sweeps.worker import open_options  # noqa: PLC0415

    log_path = folder / sweep.scheduler.scheduler_log_file_path
    run_options = open_options(tasks[0].message["options"])
    return hosts.run_all(tasks, slot, log_path, run_options, retries=options.retries)


def _list_jobs(sweep: Sweep, tasks: list[Task]) -> int:
    done = sum(task.folder.state == "done" for task in tasks)
    counts = f"{sweep.count} jobs, {len(sweep.jobs)} distinct, {done} done"
    with to_reader(sys.stdout):
        print(*(job.folder for job in sweep.jobs), counts, sep="\n")
    return EXIT_OK


def _run_options(folder: Path, options: flags.FlagValues) -> dict[str, Any]:
    """What `RunOptions` is made of, JSON-able; paths are absolute, as a cluster's hosts need."""
    return {
        "data_dir": _absolute(options.data_dir or folder / "data"),
        "data_route": options.data_route,
        "metrics": list(parse_metrics(options.metrics)),
        "feature_network": options.feature_network,
        "inception_path": _absolute(options.inception_path),
        "inception_sha256": options.inception_sha256,
        "cache_dir": _absolute(options.cache_dir),
        "strict_metrics": options.strict_metrics,
    }


def _absolute(path: str | Path | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().resolve())
