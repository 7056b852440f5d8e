"""Choices: each is one declared row that carries its facts, found by name.

A user's own row is named by its import path, `module:attribute`, and needs no change here. The rows
that come with the project name their functions by import path too (`Lazy`), so that looking at a
row imports neither TensorFlow nor Keras: `main.py` checks a whole configuration in an instant.
"""

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from common.errors import UserError, shown

Row = TypeVar("Row")


class Choices(Mapping[str, Row], Generic[Row]):
    """The rows of one kind, by name.

    `choices[name]` is a row: one of those declared, or the one that an import path
    `module:attribute` names. Iterating gives the names of those declared.

    Args:
        kind: what the rows are, as the configuration's key names it, e.g. "loss".
        row_type: class of the rows.
        rows: the declared rows by name.
    """

    def __init__(self, kind: str, row_type: type[Row], rows: Mapping[str, Row]) -> None:
        self.kind = kind
        self._row_type = row_type
        self._rows = dict(rows)

    def __getitem__(self, name: str) -> Row:
        """Returns the row of that name.

        Raises:
            UserError: there is none, or what the import path names is not such a row.
        """
        if isinstance(name, str) and name in self._rows:
            return self._rows[name]
        if not isinstance(name, str) or ":" not in name:
            raise UserError(
                f"{self.kind}={shown(name)}: the value must be one of {', '.join(self._rows)}; "
                "or, for one of your own, its import path, module:attribute."
            )
        row = import_path(name, f"{self.kind}={name}")
        if not isinstance(row, self._row_type):
            raise UserError(
                f"{self.kind}={name}: a {type(row).__name__}, where a "
                f"{self._row_type.__module__}.{self._row_type.__name__} is needed."
            )
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        """Whether a row of that name is declared; import paths are not looked at."""
        return name in self._rows


@dataclass(frozen=True)
class Lazy:
    """A function that is imported when it is first called.

    Attributes:
        path: its import path, `module:attribute`.
    """

    path: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself."""
        return _imported(self.path)


@functools.cache
def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def import_path(path: str, what: str) -> Any:
    """Imports what `module:attribute` names.

    Args:
        path: the import path.
        what: begins the error messages, e.g. "loss=my_losses:NS".

    Raises:
        UserError: the module cannot be imported, or has no such attribute.
    """
    name, _, attribute = path.partition(":")
    # Most users' modules import TensorFlow, which prints pages about the CPU unless told not to.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise UserError(
            f"{what}: the module {shown(name)} cannot be imported ({type(error).__name__}: "
            f"{error}). Modules are looked for in the variant's folder, beside the configuration's "
            "file and in PYTHONPATH."
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise UserError(
            f"{what}: the module {name} ({_file_of(module)}) has no {attribute!r}."
        ) from None


def search_in(folders: Iterable[str | Path]) -> None:
    """Lets users' own modules be found in some folders too, after all others."""
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.append(folder)


def own_module(path: str) -> Path:
    """The file of the module in an import path `module:attribute`.

    Raises:
        UserError: the module cannot be imported, or is not a file.
    """
    module, _, attribute = path.partition(":")
    import_path(path, f"{attribute} of your own")
    file = _file_of(sys.modules[module])
    if file is None:
        raise UserError(f"{path}: the module {module} is not a file.")
    return Path(file)


def _file_of(module: ModuleType) -> str | None:
    """The file that a module is from; built-in ones and mere folders have none."""
    return getattr(module, "__file__", None)
