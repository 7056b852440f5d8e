"""The one error type that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something a user can mend: a missing file, a wrong option, an unusable archive.

    The message names the file, option or value and says what to do about it. The command line
    prints it alone, without a traceback, and exits with status 2. Anything else that escapes is a
    defect of this program and keeps its traceback.
    """
