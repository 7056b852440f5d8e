"""What a variant is: a name and a few choices, from which the one engine does the rest."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class Variant:
    """The choices in which the paper's experiments differ, as a `gan_task.py` states them.

    A choice is a key of the configuration (`common.configuration.settings.Settings`) whose default
    the variant replaces. A configuration may set or sweep it as any other key.

    Args:
        name: the variant's folder, e.g. "no_gamma_cnn".
        **choices: values of keys.
    """

    def __init__(self, name: str, **choices: Any) -> None:
        self.name = name
        self.choices: Mapping[str, Any] = MappingProxyType(choices)

    def __repr__(self) -> str:
        choices = "".join(f", {key}={value!r}" for key, value in self.choices.items())
        return f"Variant({self.name!r}{choices})"
