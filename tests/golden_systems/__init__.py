"""The systems whose recorded numbers are replayed, each with its measure and its limit."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.golden_systems import bsn, gan_comparison


@dataclass(frozen=True)
class System:
    """One system.

    Attributes:
        recognises: `f(a file's contents) -> bool`.
        replay: `f(a file's contents) -> {place: deviation}`, in the system's own measure.
        limit: the largest deviation that is allowed.
    """

    recognises: Callable[[dict], bool]
    replay: Callable[[dict], dict[str, float]]
    limit: float


SYSTEMS = {
    "bsn": System(
        lambda golden: golden.get("case", {}).get("variant") in bsn.VARIANTS,
        bsn.replay,
        bsn.LIMIT,
    ),
    "gan_comparison": System(
        lambda golden: (
            any(case.get("name") in gan_comparison.NAMES for case in golden["cases"])
            if "cases" in golden
            else False
        ),
        gan_comparison.replay,
        gan_comparison.LIMIT,
    ),
}


def system_of(golden):
    """The name of a golden file's system.

    Raises:
        ValueError: it is of none.
    """
    for name, system in SYSTEMS.items():
        if system.recognises(golden):
            return name
    case = golden.get("case", {})
    found = case.get("variant") or case.get("name")
    raise ValueError(f"a golden run of {found!r}; replayed are {', '.join(SYSTEMS)}")
