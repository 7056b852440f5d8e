"""Downloads a file so that an interruption costs only what was not yet transferred."""

import contextlib
import fcntl
import http
import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from common.errors import UserError

logger = logging.getLogger(__name__)

ATTEMPTS = 5
TIMEOUT = 60  # seconds without a byte
PAUSE = 0.5  # seconds before the second attempt, doubled for each further one
_CHUNK = 2**18


class IncompleteDownloadError(Exception):
    """A transfer ended before the file did."""


def download(url: str, path: Path, max_bytes: int) -> None:
    """Downloads a file, going on where an earlier attempt ended, also that of another process.

    What has come stands in `.<name>.part` beside the file until it is complete. A server that
    cannot go on, or whose file has changed since (`If-Range`), starts over. Of several processes
    one downloads and the others wait.

    Args:
        url: Of the file.
        path: Where it is to be; its folder exists.
        max_bytes: Most that it may have.

    Raises:
        UserError: The file cannot be downloaded; what has come stays for the next time.
    """
    part = path.with_name(f".{path.name}.part")
    with _lock(path.with_name(f".{path.name}.lock")):
        if path.exists():  # another process was waited for
            return
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _transfer(url, part, max_bytes)
                part.replace(path)
                _validator_path(part).unlink(missing_ok=True)
                return
            except urllib.error.HTTPError as error:
                if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    raise UserError(f"{url}: HTTP status {error.code} ({error.reason})") from error
                part.unlink(missing_ok=True)  # there is nothing behind it: start over
            except (OSError, http.client.HTTPException, IncompleteDownloadError) as error:
                if attempt == ATTEMPTS:
                    raise UserError(f"{url}: {error}") from error
                logger.warning("%s: %s; attempt %d of %d", url, error, attempt + 1, ATTEMPTS)
                time.sleep(PAUSE * 2 ** (attempt - 1))
    raise UserError(f"{url}: the server gives no part of the file")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _transfer(url: str, part: Path, max_bytes: int) -> None:
    """Adds to the part what is missing of the file; returns when it is complete."""
    validator = _validator_path(part)
    there = part.stat().st_size if part.exists() and validator.exists() else 0
    headers = {}
    if there:
        headers = {"Range": f"bytes={there}-", "If-Range": validator.read_text("latin-1")}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if not (there and _goes_on_at(response, there)):
            there = 0
        _remember_validator(validator, response)
        rest = response.headers.get("Content-Length")
        total = there + int(rest) if rest and rest.isdigit() else None
        if max(there, total or 0) > max_bytes:
            raise UserError(f"{url}: the file has more than {max_bytes:,} bytes")
        with part.open("r+b" if there else "wb") as file:
            file.seek(there)
            received = there + _copy(response, file, there, total, max_bytes)
    if total is not None and received < total:
        raise IncompleteDownloadError(f"the connection ended after {received:,} of {total:,} bytes")


def _goes_on_at(response: http.client.HTTPResponse, position: int) -> bool:
    range_sent = response.headers.get("Content-Range", "")
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and range_sent.startswith(
        f"bytes {position}-"
    )


def _copy(
    response: http.client.HTTPResponse, file: BinaryIO, there: int, total: int | None, most: int
) -> int:
    """Copies what the server sends, with a progress bar; returns the number of bytes."""
    received = 0
    bar = {"total": total, "initial": there, "unit": "B", "unit_scale": True, "mininterval": 1.0}
    with tqdm(desc="downloading", **bar) as progress:
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            received += len(chunk)
            progress.update(len(chunk))
            if there + received > most:
                raise UserError(f"the file has more than {most:,} bytes")
    return received


def _remember_validator(path: Path, response: http.client.HTTPResponse) -> None:
    """Keeps by what the server knows this version of the file again; without, none goes on."""
    tag = response.headers.get("ETag", "")
    validator = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    if validator:
        path.write_text(validator, "latin-1")
    else:
        path.unlink(missing_ok=True)


def _validator_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.validator")
