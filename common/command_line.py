"""`python main.py`: one command line for all variants.

Heavy imports happen only when a job is about to run, so that mistakes and `--dry_run` are quick.
"""

import os
import sys
from pathlib import Path

from absl import flags

from common import flag_values
from common.configuration.sweep import Sweep, expand, results_folder
from common.errors import UserError
from common.exit_status import EXIT_OK, EXIT_USER_ERROR
from common.results.run_folder import RunFolder


def main(variant, config, folder, argv=None):
    """Runs the command line of a variant.

    Args:
        variant: the `Variant`.
        config: the dictionary of its `config.py`.
        folder: the variant's folder; results, logs and data are looked for in it.
        argv: arguments with the program's name first; by default the process's.

    Returns:
        The exit status: 0 all jobs are done, 2 something the user must mend, 3 a job failed,
        75 stopped on request (the same command goes on).
    """
    try:
        options = _parse(variant, sys.argv if argv is None else argv)
        return _run(variant, config, Path(folder), options) if options else EXIT_OK
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


def _define_flags(values):
    """All options; their help texts are the reference."""
    options = {"flag_values": values}
    flags.DEFINE_multi_string(
        "only",
        [],
        "KEY=VALUE: run only the jobs in which it holds; may be repeated (one key: any of them)",
        **options,
    )
    flags.DEFINE_multi_string(
        "set", [], "KEY=VALUE: replace a configuration key's value; may be repeated", **options
    )
    flags.DEFINE_bool("dry_run", False, "list the jobs and run none", **options)
    flags.DEFINE_bool(
        "demo", False, "train on the embedded digits for a few minutes, without download", **options
    )
    flags.DEFINE_string(
        "metrics", "is,fid", "metrics during training: of is, fid, kid, prdc; or none", **options
    )
    flags.DEFINE_string(
        "feature_network",
        None,
        "network behind the metrics: inception or digits; by default digits for the data set "
        "digits and inception for all others",
        **options,
    )
    flags.DEFINE_string(
        "inception_path",
        None,
        "the frozen Inception graph, as frozen_inception_v1_2015_12_05.tar.gz, .pb or .pth; by "
        "default it is taken from the cache or downloaded there",
        **options,
    )
    flags.DEFINE_string(
        "inception_sha256",
        None,
        "expected SHA-256 of that file; by default that of its first use",
        **options,
    )
    flags.DEFINE_string(
        "cache_dir", None, "for networks and statistics; by default Keras' own", **options
    )
    flags.DEFINE_bool(
        "strict_metrics",
        False,
        "end the training when metrics fail, instead of logging it and leaving their row out",
        **options,
    )
    flags.DEFINE_string(
        "data_dir", None, "folder of the data sets; by default data in the variant's", **options
    )
    flags.DEFINE_string(
        "data_route",
        "auto",
        "where images come from: auto (the file at its place, else tfds), archive, npy or tfds",
        **options,
    )
    flags.DEFINE_bool("help", False, "show this help", short_name="h", **options)


def _parse(variant, argv):
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


def _run(variant, config, folder, options):
    if options.demo:
        from common import demo  # noqa: PLC0415

        config = demo.configuration(variant, config)
    sweep = expand(variant, config, options.set, options.only)
    folders = _job_folders(folder, sweep)
    if options.dry_run:
        return _list_jobs(sweep, folders)
    # What TensorFlow sees of the machine, and says of it, is settled when it is imported.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", _visible_devices(sweep))
    # TensorFlow prints pages about the CPU unless told not to before it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from common import jobs  # noqa: PLC0415

    status = jobs.run_all(variant, sweep, folders, folder, _run_options(folder, options))
    if options.demo and status == EXIT_OK:
        demo.print_table(sweep.jobs, folders)
    return status


def _visible_devices(sweep):
    device = sweep.scheduler.gpu[0]
    return device if isinstance(device, str) else ",".join(device)


def _job_folders(folder, sweep: Sweep):
    results = results_folder(folder, sweep.scheduler)
    return [RunFolder(results / job.folder, sweep.scheduler.log_file) for job in sweep.jobs]


def _list_jobs(sweep, folders):
    done = sum(folder.state == "done" for folder in folders)
    counts = f"{sweep.count} jobs, {len(sweep.jobs)} distinct, {done} done"
    try:
        print(*(job.folder for job in sweep.jobs), counts, sep="\n", flush=True)
    except BrokenPipeError:  # `| head` has read enough; Python's exit would flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_OK


def _run_options(folder, options):
    from common.metrics import METRICS  # noqa: PLC0415
    from common.training.run import RunOptions  # noqa: PLC0415

    names = () if options.metrics == "none" else tuple(options.metrics.split(","))
    for name in names:
        if name not in METRICS:
            raise UserError(f"--metrics: no metric {name!r}. Known: {', '.join(METRICS)}, none.")
    return RunOptions(
        data_dir=Path(options.data_dir or folder / "data"),
        data_route=options.data_route,
        metrics=names,
        feature_network=options.feature_network,
        inception_path=options.inception_path,
        inception_sha256=options.inception_sha256,
        cache_dir=options.cache_dir,
        strict_metrics=options.strict_metrics,
    )
