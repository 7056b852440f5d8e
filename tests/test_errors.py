"""Messages for the user: always one readable line."""

import pickle

import pytest

from common.errors import UserError, shown


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("a file: no such file", "a file: no such file"),
        ("two\n- lines\r\n", "two - lines"),
        ("a name\x1b[2J\x00\udcff", r"a name\x1b[2J\x00\udcff"),
        ("Köln, 日本", "Köln, 日本"),
        ("begin " + "x" * 10**6 + " end", "begin " + "x" * 994 + " ... " + "x" * 996 + " end"),
    ],
)
def test_a_message_is_one_readable_line(message, text):
    error = UserError(message)
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == text


def test_a_value_is_shown_whatever_it_is():
    deep = []
    for _ in range(5000):
        deep = [deep]
    assert shown("a") == "'a'"
    assert shown(10**5000) == "<int, too large to show>"
    assert shown(deep) == "<list, too large to show>"
