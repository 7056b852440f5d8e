"""Files are complete under their names, or as they were."""

import os
import stat

import pytest

from common.files import atomic_write


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def test_text_is_utf8_and_bytes_are_bytes(path):
    with atomic_write(path) as file:
        file.write("é")
    assert path.read_bytes() == b"\xc3\xa9"
    with atomic_write(path, "wb") as file:
        file.write(b"\xff\n")
    assert path.read_bytes() == b"\xff\n"
    assert os.listdir(path.parent) == ["file"]


def test_the_new_content_appears_only_at_the_end(path):
    path.write_text("old and longer")
    with atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old and longer"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_block_that_raises_leaves_everything_as_it_was(path, error, before):
    if before is not None:
        path.write_text(before)

    def fail():
        with atomic_write(path) as file:
            file.write("new")
            raise error

    with pytest.raises(error):
        fail()
    assert os.listdir(path.parent) == (["file"] if before else [])
    assert not before or path.read_text() == before


def test_no_other_file_is_left_when_the_name_cannot_be_taken(path):
    path.mkdir()
    with pytest.raises(OSError, match="directory"), atomic_write(path) as file:
        file.write("new")
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_permissions_are_those_of_an_ordinary_file(path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_write(path) as file:
            file.write("x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode
