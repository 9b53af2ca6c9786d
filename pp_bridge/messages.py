"""Messages between the web's process and the simulator's process."""

import dataclasses
from typing import Any, Literal, NamedTuple, get_type_hints

from pydantic import ConfigDict, Field, create_model

from pp_collect.options import DemonstrationOptions, SessionOptions
from pp_recorder.command_line import documentation

RefusalReason = Literal["invalid", "conflict", "storage", "unavailable"]


def _from_options() -> dict[str, Any]:
    """Return the fields of a request that are options of a collection."""
    asked = [f.name for f in dataclasses.fields(DemonstrationOptions)] + ["num_episodes", "resume"]
    asked.remove("start_policy")  # it is code, which a request must not choose
    hints = get_type_hints(SessionOptions, include_extras=True)
    defaults = {f.name: f.default for f in dataclasses.fields(SessionOptions)}
    defaults["num_episodes"] = ...  # required: a default would be a guess
    descriptions = {name: documentation(SessionOptions, name) for name in asked}
    return {
        name: (hints[name], Field(defaults[name], description=descriptions[name])) for name in asked
    }


_Options: Any = create_model(
    "_Options", __config__=ConfigDict(extra="forbid", strict=True), **_from_options()
)


class StartRequest(_Options):
    """A collection to start; defaults are those of collect.py."""

    output_dir: str = Field(
        min_length=1,
        max_length=1000,
        description="A folder directly below the service's root: its name or its whole path",
    )
    skill: Literal["pick_place"] = Field("pick_place", description="What is demonstrated")

    def options(self) -> dict[str, Any]:
        """Return the values that are options of a collection, by name."""
        return self.model_dump(exclude={"output_dir", "skill"})


class BridgeCommand(NamedTuple):
    """A command to the simulator's process.

    Attributes:
        name: The action.
        request: The collection to start; None for "stop".
    """

    name: Literal["start", "stop"]
    request: StartRequest | None = None


class Reply(NamedTuple):
    """The answer to a command.

    Attributes:
        reason: Reason for refusal; None if the command was carried out.
        detail: The reason in words.
        status: The service's status after the command.
    """

    reason: RefusalReason | None
    detail: str
    status: dict[str, Any]


class RefusalError(Exception):
    """A command that can't be carried out.

    Args:
        reason: Reason for refusal.
        detail: The reason in words, with what would work.
    """

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: RefusalReason = reason
