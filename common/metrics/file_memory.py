"""Remembers the SHA-256 of files that numbers were computed with, and refuses other ones later."""

import hashlib
import json
import logging
import re
from pathlib import Path

from common.errors import UserError
from common.files import atomic_write

logger = logging.getLogger(__name__)

MEMORY_NAME = "inception_sha256.json"


def check_expected(expected: str | None) -> None:
    """Refuses what is not a SHA-256 in hexadecimal.

    Raises:
        UserError: It is neither None nor such.
    """
    if expected is not None and not re.fullmatch("[0-9a-fA-F]{64}", expected):
        raise UserError(
            f"--inception_sha256={expected}: a SHA-256 has 64 hexadecimal digits, as sha256sum "
            "prints them"
        )


def check_file(
    path: Path, digests: dict[str, str], expected: str | None, memory_folder: Path
) -> None:
    """Checks a file by what is expected of it, or else by what it was when it was first used.

    Args:
        path: The file.
        digests: Names to SHA-256: first its own, then those of what was read from it.
        expected: One of these; None for the remembered one.
        memory_folder: Where `remember_file` remembers.

    Raises:
        UserError: The file is another one.
    """
    digest = next(iter(digests.values()))
    remembered = _read(memory_folder / MEMORY_NAME).get(_key(path), digest)
    if expected is not None and expected.lower() not in digests.values():
        found = ", ".join(f"{name} has {value}" for name, value in digests.items())
        raise UserError(f"its SHA-256 is not the expected {expected.lower()}: {found}")
    if expected is None and remembered != digest:
        raise UserError(
            f"it has changed since its first use: its SHA-256 was {remembered} and is {digest}. "
            f"Get the former file again, or, if the change is right, say once "
            f"--inception_sha256={digest}"
        )


def remember_file(path: Path, digest: str, memory_folder: Path) -> None:
    """Remembers a file's SHA-256, once it has turned out to be usable.

    Raises:
        UserError: The memory cannot be written.
    """
    memory_path = memory_folder / MEMORY_NAME
    memory = _read(memory_path)
    if memory.get(_key(path)) != digest:
        logger.info("%s: SHA-256 %s, remembered in %s", path, digest, memory_path)
        _write(memory_path, {**memory, _key(path): digest})


def _key(path: Path) -> str:
    return str(path.resolve())


def sha256(data: bytes) -> str:
    """Returns the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _read(path: Path) -> dict[str, str]:
    try:
        memory = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {str(key): str(digest) for key, digest in memory.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}, which remembers the SHA-256 of files, cannot be read ({error}); delete it "
            "to have them remembered anew"
        ) from error


def _write(path: Path, memory: dict[str, str]) -> None:
    try:
        with atomic_write(path) as file:
            json.dump(memory, file, indent=2)
            file.write("\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
