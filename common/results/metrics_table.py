"""`metrics.csv`: one row per evaluated iteration (specification, section 6), and `metrics.json`."""

import csv
import json
from pathlib import Path

from common.errors import UserError
from common.files import atomic_write


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

    def __init__(self, path, columns):
        self.path = Path(path)
        self.columns = ["global_id", *columns]
        self.records_path = self.path.with_suffix(".json")
        self._rows = self._read() if self.path.exists() else []
        self._records = self._read_records() if self.records_path.exists() else {}

    def _read(self):
        try:
            with open(self.path, newline="", encoding="utf-8") as file:
                header, *lines = csv.reader(file, strict=True)
            if header == self.columns:
                return [self._checked_row(line) for line in lines]
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{self.path} is not a table of metrics: {error!r}") from None
        raise UserError(
            f"{self.path} has the columns {', '.join(header)}, not {', '.join(self.columns)}: "
            "use the metrics and the network it was made with, or move it away."
        )

    def _checked_row(self, cells):
        row = dict(zip(self.columns, cells, strict=True))
        int(cells[0])
        for cell in cells[1:]:
            float(cell)
        return row

    def _read_records(self):
        try:
            records = json.loads(self.records_path.read_text(encoding="utf-8"))
            return {int(global_id): dict(record) for global_id, record in records.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{self.records_path} cannot be read ({error!r}): move it away; it only says how "
                f"the rows of {self.path.name} came about."
            ) from None

    @property
    def ids(self):
        """The iterations that have a row, in the order of the rows."""
        return [int(row["global_id"]) for row in self._rows]

    def row(self, global_id):
        """The metrics of an iteration that has a row, `{column: float}`."""
        row = next(row for row in self._rows if int(row["global_id"]) == global_id)
        return {name: float(row[name]) for name in self.columns[1:]}

    def drop_after(self, global_id):
        """Removes the rows of later iterations, which a resumed run will make again."""
        self._rows = [row for row in self._rows if int(row["global_id"]) <= global_id]
        if self.path.exists():
            self._write()

    def add(self, global_id, metrics, record=None):
        """Adds a row, or replaces the one of the same iteration.

        Args:
            global_id: the iteration, -1 for before the first.
            metrics: `{column: float}`.
            record: JSON-able dictionary of how they came about.
        """
        self._records[global_id] = record or {}
        row = {"global_id": str(global_id)}
        row |= {name: f"{metrics[name]:.12f}" for name in self.columns[1:]}
        others = [row for row in self._rows if int(row["global_id"]) != global_id]
        self._rows = sorted([*others, row], key=lambda row: int(row["global_id"]))
        self._write()

    def _write(self):
        # First the records: a row without one would stay so, the other way round it is made again.
        ids = sorted(set(self.ids) & set(self._records))
        with atomic_write(self.records_path) as file:
            json.dump({str(i): self._records[i] for i in ids}, file, indent=2)
            file.write("\n")
        with atomic_write(self.path) as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\r\n")
            writer.writeheader()
            writer.writerows(self._rows)
