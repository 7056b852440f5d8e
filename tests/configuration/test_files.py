"""Configurations as files beside `config.py`, and elsewhere."""

import pytest

from common.configuration.files import find_config, load_config, other_configs
from common.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.py").write_text("config = {'this': 'one'}")
    (tmp_path / "config_small.py").write_text("config = {'small': 'one'}")
    (tmp_path / "config_other.py").write_text("config = {'other': 'one'}")
    return tmp_path


def test_a_name_is_that_of_a_file_in_the_folder(folder):
    path = find_config("small", folder)
    assert path == folder / "config_small.py"
    assert load_config(path) == {"small": "one"}
    assert other_configs(folder) == [folder / "config_other.py", path]


def test_a_path_is_taken_as_it_is(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere.py").write_text("config = 7")
    for name in ("elsewhere.py", str(tmp_path / "elsewhere.py")):
        assert load_config(find_config(name, folder / "nowhere")) == 7


@pytest.mark.parametrize("name", ["big", "nowhere/config.py", "../up", "a b", ""])
def test_a_file_that_is_not_there_is_refused(folder, name):
    with pytest.raises(UserError, match="--config="):
        find_config(name, folder)


def test_the_names_that_there_are_are_told(folder):
    with pytest.raises(UserError, match=r"config_big\.py\. .*other, small"):
        find_config("big", folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config = 1 / 0", "ZeroDivisionError"),
        ("config = (", "SyntaxError"),
        ("import nowhere_at_all", "ModuleNotFoundError"),
        ("confg = {}", "has no dictionary `config`"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(folder, text, message):
    (folder / "config_small.py").write_text(text)
    with pytest.raises(UserError, match=rf"config_small\.py .*{message}"):
        load_config(folder / "config_small.py")
