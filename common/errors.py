"""The one error type that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something a user can mend: a missing file, a wrong option, an unusable archive.

    The message names the file, option or value and says what to do about it. The command line
    prints it alone, without a traceback, and exits with status 2. Anything else that escapes is a
    defect of this program and keeps its traceback.
    """

    _LONGEST = 2000  # characters; a hostile file may put any number of them into a message

    def __str__(self) -> str:
        """The message on one line, all of it readable, its middle left out if it is very long."""
        text = " ".join(super().__str__().split())
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
        if len(text) > self._LONGEST:
            half = self._LONGEST // 2
            text = f"{text[:half]} ... {text[-half:]}"
        return text


def shown(value: object) -> str:
    """A value as a message shows it: its `repr`, if it has one.

    Python refuses that of integers of thousands of digits and of too deep a nesting.
    """
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return f"<{type(value).__name__}, too large to show>"
