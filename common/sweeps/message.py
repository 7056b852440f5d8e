"""What a job's process is told: one JSON object on its standard input."""

from typing import Any, Literal, TypedDict


class TaskMessage(TypedDict, total=False):
    """What `main.py` has its jobs' processes told.

    Attributes:
        options: those of `RunOptions`, JSON-able.
        search: folders in which users' own modules are looked for, after all others.
    """

    options: dict[str, Any]
    search: list[str]


class TrainMessage(TaskMessage):
    """Train a job.

    Attributes:
        parent: process id of the sender; its end ends the job.
        devices: how many there are.
        settings: the job's `Settings`, by key.
        folder: path of the run's folder.
        log_file: name of the run's log in it.
    """

    action: Literal["train"]
    parent: int
    devices: int
    settings: dict[str, Any]
    folder: str
    log_file: str


class CheckMessage(TaskMessage):
    """Find what would keep jobs from starting.

    Attributes:
        parent: process id of the sender; its end ends the check.
        devices: how many there are.
        jobs: for each job, its `Settings` by key and the numbers of devices that it may be given.
    """

    action: Literal["check"]
    parent: int
    devices: int
    jobs: list[tuple[dict[str, Any], list[int]]]
