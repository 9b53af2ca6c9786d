"""Messages between the web's process and the simulator's process."""

import dataclasses
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from pydantic import ConfigDict, Field, create_model

from pp_collect.options import DemonstrationOptions, SessionOptions
from pp_recorder.command_line import documentation

RefusalReason = Literal["invalid", "conflict", "storage", "unavailable"]

_MAX_TEXT = 1000  # characters


def _from_options() -> dict[str, Any]:
    """Return the fields of a request that are options of a collection."""
    asked = [f.name for f in dataclasses.fields(DemonstrationOptions)] + ["num_episodes", "resume"]
    asked.remove("start_policy")  # it is code, which a request must not choose
    hints = get_type_hints(SessionOptions, include_extras=True)
    defaults = {f.name: f.default for f in dataclasses.fields(SessionOptions)}
    defaults["num_episodes"] = ...  # required: a default would be a guess
    return {
        name: (
            hints[name],
            Field(
                defaults[name],
                description=documentation(SessionOptions, name),
                max_length=_MAX_TEXT if _is_text(hints[name]) else None,
            ),
        )
        for name in asked
    }


def _is_text(hint: Any) -> bool:
    """Return whether an annotated type is that of any text, or of none."""
    kind = get_args(hint)[0]
    return str in (kind, *get_args(kind))


_Options: Any = create_model(
    "_Options", __config__=ConfigDict(extra="forbid", strict=True), **_from_options()
)


class StartRequest(_Options):
    """A collection to start; defaults are those of collect.py."""

    output_dir: str = Field(
        min_length=1,
        max_length=_MAX_TEXT,
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
