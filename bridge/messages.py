"""What the web's process and the simulator's process say to each other."""

from typing import Any, Literal, NamedTuple

Problem = Literal["invalid", "conflict", "storage", "unavailable"]


class Command(NamedTuple):
    """A request that changes something.

    Attributes:
        name: "start" or "stop".
        arguments: Of `start`: what `bridge.api.StartRequest` has.
    """

    name: Literal["start", "stop"]
    arguments: dict[str, Any]


class Reply(NamedTuple):
    """What came of it.

    Attributes:
        problem: Why it was refused; None if it was carried out.
        detail: The same in words.
        status: Afterwards.
    """

    problem: Problem | None
    detail: str
    status: dict[str, Any]


class RefusalError(Exception):
    """A command can't be carried out.

    Args:
        problem: Why.
        detail: The same in words, with what would work.
    """

    def __init__(self, problem: Problem, detail: str) -> None:
        super().__init__(detail)
        self.problem: Problem = problem
