"""Parsing of absl's flags, mistakes being the user's to mend."""

from collections.abc import Sequence

from absl import flags

from common.errors import UserError


def parse(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Parses a command line.

    Args:
        values: the flags as defined, which takes their values.
        argv: arguments with the program's name first.

    Returns:
        The arguments that belong to no flag.

    Raises:
        UserError: an unknown flag, or a value that is not of its type.
    """
    try:
        return values(argv)[1:]
    except flags.Error as error:
        raise UserError(f"{error} (see --help)") from None
    except RecursionError:  # by absl's search for names that are similar to an unknown one
        raise UserError("an option's name is hundreds of characters long (see --help)") from None
