"""`python -m common.evaluate`: the metrics of any set of images, or of all checkpoints of a run.

    python -m common.evaluate SET [REFERENCE] [options]
    python -m common.evaluate --run=RESULTS_FOLDER [options]

A set is a folder or an archive of images, a .npy or .npz file of them, a data set by name, a run's
results folder (its newest checkpoint) or one of its checkpoints, or an exported generator (.keras,
or the folder of a SavedModel); a reference may also be stored statistics (.npz with mu, sigma).
The values go to stderr as a table and to stdout as JSON.
"""

import dataclasses
import json
import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from common import flag_values
from common.choices import search_in
from common.errors import UserError
from common.exit_status import EXIT_OK, EXIT_USER_ERROR
from common.metrics import (
    DEFAULT_METRICS,
    FEATURE_NETWORKS,
    METRICS,
    PROTOCOLS,
    open_network,
    parse_metrics,
)
from common.metrics.protocols import DEFAULT_PROTOCOL
from common.metrics.rows import DEFAULT_NETWORK

if TYPE_CHECKING:
    from common.metrics.evaluation import Reference

USAGE = __doc__


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: arguments with the program's name first; by default the process's.

    Returns:
        The exit status: 0, or 2 if there is something the user must mend.
    """
    try:
        values = flags.FlagValues()
        _define_flags(values)
        sets = flag_values.parse(values, sys.argv if argv is None else argv)
        if values.help:
            print(f"{USAGE}\n{values.get_help()}")
            return EXIT_OK
        _check_arguments(values, sets)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        logging.basicConfig(format="%(message)s", level=logging.INFO)
        result = _evaluate_run(values) if values.run else _evaluate_sets(values, sets)
        print(json.dumps(_strict(result), indent=2))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    return EXIT_OK


def _define_flags(values: flags.FlagValues) -> None:
    """All options; their help texts are the reference."""
    strings = {
        "run": (None, "results folder of a run: adds the rows that its metrics.csv lacks"),
        "metrics": (
            None,
            f"of {', '.join(METRICS)}, or import paths of your own, separated by commas, or none; "
            "by default those of the run, or is and, against a reference, fid",
        ),
        "protocol": (DEFAULT_PROTOCOL, f"how the number is made: {', '.join(PROTOCOLS)}"),
        "save_statistics": (None, "writes mean and covariance of SET to this .npz file"),
        "feature_network": (
            None,
            f"{', '.join(FEATURE_NETWORKS)}; by default {DEFAULT_NETWORK}, or that of the run",
        ),
        "inception_path": (None, "the Inception network; by default from the cache or downloaded"),
        "inception_sha256": (None, "its expected SHA-256; by default that of its first use"),
        "cache_dir": (None, "for networks and statistics; by default Keras' own"),
        "data_dir": (
            None,
            "folder of the data sets; by default data, here or beside the run's results",
        ),
        "data_route": ("auto", "where their images come from: auto, archive, npy or tfds"),
    }
    integers = {
        "samples": (None, "images that a generator makes; by default 50,000, or as its run says"),
        "seed": (None, "of what is drawn; by default 0, or that of the run whose checkpoint it is"),
        "batch_size": (64, "images that go through the network at a time"),
        "expected_images": (None, "size of a data set by name that is deliberately not whole"),
        "expected_classes": (None, "likewise the number of classes, for imagenet"),
    }
    for name, (default, text) in strings.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    for name, (number, text) in integers.items():
        least = 0 if name == "seed" else 1
        flags.DEFINE_integer(name, number, text, lower_bound=least, flag_values=values)
    flags.DEFINE_multi_string(
        "trust",
        [],
        "FOLDER/MODULE.py (or MODULE, where Python finds it): import this module of your own, "
        "which a run's record names; may be repeated",
        flag_values=values,
    )
    flags.DEFINE_bool("help", False, "show this help", short_name="h", flag_values=values)


def _check_arguments(values: flags.FlagValues, sets: Sequence[str]) -> None:
    """Finds what makes no sense before anything heavy is imported."""
    if values.run and sets:
        raise UserError(f"--run and the set {sets[0]!r} exclude each other (see --help)")
    if values.run:
        given = ("samples", "seed", "save_statistics", "expected_images", "expected_classes")
        for name in given:
            if values[name].present:
                raise UserError(f"--{name} is not for --run, whose settings decide (see --help)")
        if values.protocol != DEFAULT_PROTOCOL:
            raise UserError(
                f"--protocol is not for --run, whose table is of the protocol {DEFAULT_PROTOCOL}"
            )
    elif not 1 <= len(sets) <= 2:
        raise UserError(f"{len(sets)} sets are given; name one or two, or --run (see --help)")
    if values.save_statistics and not values.save_statistics.endswith(".npz"):
        raise UserError(f"--save_statistics={values.save_statistics}: the name must end in .npz")
    if values.metrics:
        parse_metrics(values.metrics)
    if values.feature_network:
        FEATURE_NETWORKS[values.feature_network]
    PROTOCOLS[values.protocol]


def _evaluate_run(values: flags.FlagValues) -> dict[str, Any]:
    from common.training.run import RunOptions  # noqa: PLC0415
    from common.training.trained_run import (  # noqa: PLC0415
        TrainedRun,
        fill_metrics,
        recorded_metrics,
    )

    run = TrainedRun(values.run, _trusted(values.trust))
    names: Sequence[str] = parse_metrics(values.metrics) if values.metrics else ()
    network = values.feature_network
    if not (values.metrics and network):
        recorded, recorded_network = recorded_metrics(run)
        names = names if values.metrics else recorded or DEFAULT_METRICS
        network = network or recorded_network
    if not names:
        raise UserError("--metrics=none: there is nothing to add to the run's table")
    options = RunOptions(
        data_dir=Path(values.data_dir or Path(values.run).absolute().parent.parent / "data"),
        data_route=values.data_route,
        metrics=tuple(names),
        feature_network=network,
        inception_path=values.inception_path,
        inception_sha256=values.inception_sha256,
        cache_dir=values.cache_dir,
    )
    table, added = fill_metrics(run, options)
    rows = {str(i): table.row(i) for i in table.ids}
    _print_table(rows)
    return {"run": values.run, "added": added, "rows": rows}


def _evaluate_sets(values: flags.FlagValues, sets: Sequence[str]) -> dict[str, Any]:
    from common.metrics.evaluation import Evaluator  # noqa: PLC0415
    from common.metrics.frechet import GaussianStatistics  # noqa: PLC0415
    from common.metrics.statistics_files import write_statistics  # noqa: PLC0415

    samples, *references = (_open_set(text, values) for text in sets)
    if isinstance(samples, GaussianStatistics):
        raise UserError(f"{sets[0]} holds statistics; only the second set, the reference, may")
    reference = references[0] if references else None
    network = open_network(
        values.feature_network or DEFAULT_NETWORK,
        inception_path=values.inception_path,
        inception_sha256=values.inception_sha256,
        cache_dir=values.cache_dir,
    )
    protocol = PROTOCOLS[values.protocol]
    evaluator = Evaluator(
        network,
        protocol,
        _metrics_of_sets(values, reference),
        reference,
        seed=getattr(samples, "seed", 0) if values.seed is None else values.seed,
        with_replacement=getattr(reference, "real_with_replacement", False),
        batch_size=values.batch_size,
    )
    result: dict[str, Any] = {"set": sets[0], "reference": sets[1] if references else None}
    if evaluator.columns:
        evaluation = evaluator.evaluate(samples)
        _print_table({sets[0]: evaluation.values})
        made = {"protocol": {"name": values.protocol, **dataclasses.asdict(protocol)}}
        record = {**evaluation.record, **made, "samples": samples.record}
        result |= {"values": evaluation.values, "record": record}
    if values.save_statistics:
        write_statistics(Path(values.save_statistics), evaluator.statistics(samples))
        result["statistics"] = values.save_statistics
    return result


def _metrics_of_sets(values: flags.FlagValues, reference: "Reference") -> Sequence[str]:
    from common.metrics.evaluation import available_metrics  # noqa: PLC0415

    if values.metrics:
        return parse_metrics(values.metrics)
    if values.save_statistics and reference is None:
        return ()
    return [name for name in DEFAULT_METRICS if name in available_metrics(reference)]


def _open_set(text: str, values: flags.FlagValues) -> Any:
    """The images, or statistics, that an argument names."""
    from common.data import DATASETS, open_source  # noqa: PLC0415
    from common.metrics.image_sets import open_files  # noqa: PLC0415
    from common.training.trained_models import holds_models, open_models  # noqa: PLC0415

    path = Path(text).absolute()  # which gives . a name
    is_own = ":" in text and "/" not in text and not path.exists()  # an import path
    if text in DATASETS or is_own:
        counts = (values.expected_images, values.expected_classes)
        return open_source(text, Path(values.data_dir or "data"), values.data_route, *counts)
    if not text or not path.name:
        raise UserError(
            f"the set {text!r} has no name; name a file or folder, such as {path}/images"
        )
    if holds_models(path):
        return open_models(path, _trusted(values.trust)).images(values.samples, values.seed)
    if not path.exists():
        raise UserError(
            f"{text}: no such file, folder or checkpoint, and no data set of that name "
            f"({', '.join(DATASETS)})"
        )
    return open_files(path)


def _trusted(texts: Sequence[str]) -> list[str]:
    """The names of modules that `--trust` gives; the folders of files are searched for modules."""
    for text in texts:
        if text.endswith(".py"):
            if not Path(text).is_file():
                raise UserError(f"--trust={text}: there is no such file")
            search_in([Path(text).absolute().parent])
    return [Path(text).stem if text.endswith(".py") else text for text in texts]


def _print_table(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Prints `{name: {column: value}}` for people."""
    columns = list(next(iter(rows.values()), {}))
    width = max((len(name) for name in rows), default=0)
    lines = [" ".join([" " * width, *(f"{column:>20}" for column in columns)])]
    for name, values in rows.items():
        cells = (f"{value:20.6f}" if math.isfinite(value) else f"{'-':>20}" for value in
                 values.values())  # fmt: skip
        lines.append(" ".join([f"{name:{width}}", *cells]))
    print("\n".join(lines), file=sys.stderr)


def _strict(value: Any) -> Any:
    """The value as strict JSON can hold it: NaN and infinity become None."""
    if isinstance(value, dict):
        return {name: _strict(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
