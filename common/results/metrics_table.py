"""`metrics.csv`: one row per evaluated iteration (specification, section 6), and `metrics.json`."""

import csv
import io
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import atomic_write

# Some hundred bytes a row: more than any run writes. Of the records, some kilobytes a row.
MAX_TABLE_BYTES = 2**24
MAX_RECORDS_BYTES = 2**28


@dataclass(frozen=True)
class MetricsRow:
    """The metrics of an iteration.

    Attributes:
        global_id: the iteration, -1 for before the first.
        values: `{column: value}`, in the order of the columns.
    """

    global_id: int
    values: dict[str, float]


def read_metrics(path: str | Path) -> list[MetricsRow]:
    """Reads a table of metrics, whatever its columns.

    Args:
        path: of `metrics.csv`.

    Returns:
        Its rows, in their order; none if the file does not exist.

    Raises:
        UserError: it is not such a table.
    """
    path = Path(path)
    try:
        header, rows = _read_cells(path)
    except FileNotFoundError:
        return []
    return [_parsed(header, cells) for cells in rows]


def values_of(rows: Sequence[MetricsRow], metric: str) -> list[float]:
    """The values of a column in all rows.

    Args:
        rows: of one table.
        metric: its name, which a network's prefix may precede in the table: `fid` finds
            `digits_fid`, but `fid` itself if it is there.

    Returns:
        The values, in the order of the rows; none if the table has no such column.
    """
    columns = list(rows[0].values) if rows else []
    named = [column for column in columns if column == metric]
    prefixed = [column for column in columns if column.endswith(f"_{metric}")]
    found = next(iter([*named, *prefixed]), None)
    return [] if found is None else [row.values[found] for row in rows]


def _read_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table, checked to be one.

    Raises:
        FileNotFoundError: there is no file.
        UserError: it is not such a table.
    """
    try:
        text = _read_bounded(path, MAX_TABLE_BYTES)
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        if header[:1] != ["global_id"] or len(set(header)) < len(header):
            raise ValueError(f"columns {header}")
        for cells in rows:
            _parsed(header, cells)
        return header, rows
    except FileNotFoundError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a table of metrics: {error!r}") from None


def _parsed(header: Sequence[str], cells: Sequence[str]) -> MetricsRow:
    row = dict(zip(header, cells, strict=True))
    global_id = int(row.pop("global_id"))
    return MetricsRow(global_id, {name: float(cell) for name, cell in row.items()})


def _read_bounded(path: Path, limit: int) -> str:
    """The text of a regular file of at most `limit` bytes."""
    # Not blocking: the opening of a named pipe would wait for a writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit:,} bytes")
    return data.decode("utf-8")


class MetricsTable:
    """The file people read: `global_id` and the metrics' columns, floats with 12 decimals.

    Beside it is a file of the same name ending in `.json`: `{"<global_id>": record}`, how each row
    came about. Rows and records are added, replaced and removed together.

    Args:
        path: of the file; it need not exist.
        columns: names of the metrics, in order.

    Raises:
        UserError: the file exists with other columns, or is not such a table; or the other is not
            JSON of that kind.
    """

    def __init__(self, path: str | Path, columns: Sequence[str]) -> None:
        self.path = Path(path)
        self.columns = ["global_id", *columns]
        self.records_path = self.path.with_suffix(".json")
        self._rows = self._read()
        self._records = self._read_records()

    def _read(self) -> dict[int, list[str]]:
        """Cells by iteration, as they stand in the file."""
        try:
            header, rows = _read_cells(self.path)
        except FileNotFoundError:
            return {}
        if header != self.columns:
            raise UserError(
                f"{self.path} has the columns {', '.join(header)}, not {', '.join(self.columns)}: "
                "use the metrics and the network it was made with, or move it away."
            )
        return {int(cells[0]): cells for cells in rows}

    def _read_records(self) -> dict[int, dict[str, Any]]:
        try:
            records = json.loads(_read_bounded(self.records_path, MAX_RECORDS_BYTES))
            return {int(global_id): dict(record) for global_id, record in records.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{self.records_path} cannot be read ({error!r}): move it away; it only says how "
                f"the rows of {self.path.name} came about."
            ) from None

    @property
    def ids(self) -> list[int]:
        """The iterations that have a row, in the order of the rows."""
        return list(self._rows)

    def row(self, global_id: int) -> dict[str, float]:
        """The metrics of an iteration that has a row, `{column: float}`."""
        return _parsed(self.columns, self._rows[global_id]).values

    def drop_after(self, global_id: int) -> None:
        """Removes the rows of later iterations, which a resumed run will make again."""
        self._rows = {i: cells for i, cells in self._rows.items() if i <= global_id}
        if self.path.exists():
            self._write()

    def add(
        self, global_id: int, metrics: Mapping[str, float], record: dict[str, Any] | None = None
    ) -> None:
        """Adds a row, or replaces the one of the same iteration.

        Args:
            global_id: the iteration, -1 for before the first.
            metrics: `{column: float}`.
            record: JSON-able dictionary of how they came about.
        """
        self._records[global_id] = record or {}
        cells = [str(global_id), *(f"{metrics[name]:.12f}" for name in self.columns[1:])]
        self._rows = dict(sorted({**self._rows, global_id: cells}.items()))
        self._write()

    def _write(self) -> None:
        # First the records: a row without one would stay so, the other way round it is made again.
        ids = sorted(set(self.ids) & set(self._records))
        with atomic_write(self.records_path) as file:
            json.dump({str(i): self._records[i] for i in ids}, file, indent=2)
            file.write("\n")
        with atomic_write(self.path) as file:
            writer = csv.writer(file, lineterminator="\r\n")
            writer.writerow(self.columns)
            writer.writerows(self._rows.values())
