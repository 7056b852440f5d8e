"""Downloads that are interrupted, from a server on this machine."""

import threading

import numpy as np
import pytest

from common.errors import UserError
from common.metrics import download
from tests.metrics.servers import serve

DATA = np.random.default_rng(0).bytes(700_000)
LIMIT = 10**6


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.tar.gz"


def ranges(server):
    return [request.get("range") for request in server.requests]


def test_a_whole_download(path):
    with serve(DATA) as server:
        download.download(server.url, path, LIMIT)
        download.download(server.url, path, LIMIT)
    assert path.read_bytes() == DATA
    assert ranges(server) == [None]
    assert sorted(p.name for p in path.parent.iterdir()) == [f".{path.name}.lock", path.name]


def test_broken_connections_cost_only_what_is_missing(path):
    with serve(DATA, cuts=[300_000, 0, 200_000]) as server:
        download.download(server.url, path, LIMIT)
    assert path.read_bytes() == DATA
    assert ranges(server) == [None, "bytes=300000-", "bytes=300000-", "bytes=500000-"]
    assert server.requests[1]["if-range"] == '"one"'


def test_another_process_goes_on(path):
    with serve(DATA, cuts=[100_000] + [0] * 4) as server:
        with pytest.raises(UserError, match=r"100,000 of 700,000|ended after"):
            download.download(server.url, path, LIMIT)
        assert not path.exists()
        download.download(server.url, path, LIMIT)
    assert path.read_bytes() == DATA
    assert ranges(server)[-1] == "bytes=100000-"


@pytest.mark.parametrize(
    "how",
    [{"resumes": False}, {"headers": {}}, {"headers": {"Last-Modified": "yesterday"}}],
    ids=str,
)
def test_servers_that_know_less(path, how):
    """Without ranges, or without a sign that the file is the same, it starts over."""
    with serve(DATA, cuts=[300_000], **how) as server:
        download.download(server.url, path, LIMIT)
    assert path.read_bytes() == DATA
    assert len(server.requests) == 2


def test_a_file_that_changed_meanwhile_is_not_mixed(path):
    other = DATA[::-1]
    with serve(DATA, cuts=[300_000] + [0] * 4) as server:
        with pytest.raises(UserError):
            download.download(server.url, path, LIMIT)
        server.data, server.headers = other, {"ETag": '"two"'}
        download.download(server.url, path, LIMIT)
    assert path.read_bytes() == other


def test_a_part_that_is_already_whole(path):
    """As when the process was killed before it renamed it."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(DATA)
    part.with_name(f"{part.name}.validator").write_text('"one"')
    with serve(DATA) as server:
        download.download(server.url, path, LIMIT)
    assert path.read_bytes() == DATA
    assert ranges(server) == ["bytes=700000-", None]


def test_a_server_that_does_not_tell_the_length(path):
    with serve(DATA, tells_length=False) as server:
        download.download(server.url, path, LIMIT)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("tells_length", [True, False])
def test_files_are_bounded(path, tells_length):
    serving = serve(DATA, tells_length=tells_length)
    with serving as server, pytest.raises(UserError, match="more than 600,000 bytes"):
        download.download(server.url, path, 600_000)
    assert not path.exists()


def test_what_the_server_refuses_is_not_tried_again(path):
    with serve(DATA, status=404) as server, pytest.raises(UserError, match="HTTP status 404"):
        download.download(server.url, path, LIMIT)
    assert len(server.requests) == 1


def test_several_at_once_download_once(path):
    with serve(DATA) as server:
        threads = [
            threading.Thread(target=download.download, args=(server.url, path, LIMIT))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert path.read_bytes() == DATA
    assert len(server.requests) == 1
