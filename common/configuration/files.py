"""Configurations as files: `config.py` of a variant's folder, and others beside it or elsewhere."""

import importlib.util
import re
from pathlib import Path
from typing import Any

from common.errors import UserError, shown


def find_config(name: str, folder: Path) -> Path:
    """The file that `--config` names.

    Args:
        name: NAME for `config_NAME.py` in the variant's folder, or the path of a file.
        folder: the variant's folder.

    Raises:
        UserError: there is no such file.
    """
    if name.endswith(".py"):
        path = Path(name).expanduser().absolute()
    elif re.fullmatch(r"\w+", name):
        path = folder.absolute() / f"config_{name}.py"
    else:
        raise UserError(
            f"--config={shown(name)}: NAME of a file config_NAME.py in {folder}, or the path of a "
            ".py file, is needed."
        )
    if len(path.name.encode()) > 255 or not path.is_file():
        known = ", ".join(sorted(p.stem.removeprefix("config_") for p in other_configs(folder)))
        raise UserError(
            f"--config={name}: there is no {path}. In {folder} there are: {known or 'none'}."
        )
    return path


def other_configs(folder: Path) -> list[Path]:
    """The files `config_*.py` of a variant's folder, sorted."""
    return sorted(folder.glob("config_*.py"))


def load_config(path: Path) -> Any:
    """What a configuration's file calls `config`.

    Raises:
        UserError: the file cannot be run, or has no `config`.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the file does
        raise UserError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    try:
        return module.config
    except AttributeError:
        raise UserError(f"{path} has no dictionary `config`.") from None
