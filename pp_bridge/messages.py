"""Messages between the web's process and the simulator's process."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, create_model

from pp_collect.options import (
    DatasetOptions,
    DemonstrationOptions,
    SceneOptions,
    SessionOptions,
)
from pp_env.config import NAMED_CAMERAS
from pp_env.objects import YCB_OBJECTS
from pp_recorder.command_line import documentation

RefusalReason = Literal["invalid", "conflict", "storage", "unavailable"]

_MAX_TEXT = 1000  # characters
_MAX_NAME = 30  # characters of an option's name, so that no text costs much to search
_TITLES = {"output_dir": "Dataset", "num_episodes": "Episodes", "fps": "FPS", "use_ycb": "Use YCB"}
_GROUPS = {SceneOptions: "Scene", DemonstrationOptions: "Demonstrations"}  # of the page's form
_SUGGESTIONS = {"object": [obj.name for obj in YCB_OBJECTS if obj.fits_gripper]}
# What a request must not choose: code and files of the service's machine, the simulator, and how
# much memory images take.
_OF_THE_SERVICE = (
    *("policy", "max_steps", "start_policy", "ycb_meshes", "ycb_assets"),
    *("simulator", "resolution"),
)


def _names(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls) if f.name not in _OF_THE_SERVICE]


SCENE = _names(SceneOptions)  # a request without one of these has the service's


def title(name: str) -> str:
    """Return the words by which the page calls a field."""
    words = re.sub("_rad$", ", rad", name).replace("_", " ")
    return _TITLES.get(name, words[0].upper() + words[1:])


def name_fields(text: str) -> str:
    """Return a message that names a request's fields instead of options of a command line."""

    def field_of(match: re.Match[str]) -> str:
        name = match[1].replace("-", "_")
        name = "output_dir" if name == "output" else name
        return f"'{name}'" if name in StartRequest.model_fields else match[0]

    option = rf"--([a-z][a-z-]{{,{_MAX_NAME}}})"
    text = re.sub(rf"\w{{1,{_MAX_NAME}}} \({option}\)", field_of, text)  # as the configuration says
    return re.sub(option, field_of, text)


def _from_options() -> dict[str, Any]:
    """Return the fields of a request that are options of a collection, by name."""
    return {
        "output_dir": (
            str,
            Field(
                min_length=1,
                max_length=_MAX_TEXT,
                title=title("output_dir"),
                description="a folder directly below the service's root: its name or its path",
                examples=[Path(DatasetOptions.output).name],
            ),
        ),
        "num_episodes": _field("num_episodes", DatasetOptions),
        "resume": _field("resume", DatasetOptions),
        **{name: _field(name, SceneOptions) for name in SCENE},
        **{name: _field(name, DemonstrationOptions) for name in _names(DemonstrationOptions)},
    }


def _field(name: str, cls: type) -> Any:
    """Return the type of an option as JSON has it, and what the page needs for its control."""
    default: Any = next(f.default for f in dataclasses.fields(SessionOptions) if f.name == name)
    hint = _json_type(name, get_type_hints(cls, include_extras=True)[name])
    required = name == "num_episodes"  # a default would be a guess
    return hint, Field(
        ... if required else list(default) if name == "cameras" else default,
        title=title(name),
        description=documentation(cls, name),
        max_length=_MAX_TEXT if _is_text(hint) else None,
        examples=[default] if required else _SUGGESTIONS.get(name),
        json_schema_extra={"group": _GROUPS[cls]} if cls in _GROUPS else None,
    )


def _json_type(name: str, hint: Any) -> Any:
    """Return the type of an option, with its choices if they are in an annotation."""
    if name == "cameras":
        known = Literal[tuple(camera.name for camera in NAMED_CAMERAS)]
        return Annotated[list[known], Field(min_length=1, max_length=len(NAMED_CAMERAS))]
    choices = [c for a in get_args(hint) if (c := getattr(a, "choices", None))]
    return Literal[tuple(choices[0])] if choices else hint


def _is_text(hint: Any) -> bool:
    """Return whether an annotated type is that of any text, or of none."""
    if get_origin(hint) is not Annotated:
        return False
    kind = get_args(hint)[0]
    return str in (kind, *get_args(kind))


_Options: Any = create_model(
    "_Options", __config__=ConfigDict(extra="forbid", strict=True), **_from_options()
)


class StartRequest(_Options):
    """A collection to start; of the scene, defaults are the service's, others are collect.py's."""

    skill: Literal["pick_place"] = Field("pick_place", description="What is demonstrated")

    def options(self) -> dict[str, Any]:
        """Return the values that are options of a collection, by name."""
        values = self.model_dump(exclude={"output_dir", "skill"})
        return {**values, "cameras": tuple(values["cameras"])}

    def in_scene(self, scene: dict[str, Any]) -> "StartRequest":
        """Return the whole request, with the service's scene where this one says nothing."""
        return StartRequest(**{**scene, **self.model_dump(exclude_unset=True)})


def scene_defaults(options: SceneOptions) -> dict[str, Any]:
    """Return the scene that a request has unless it says otherwise, as JSON has it."""
    return {**{name: getattr(options, name) for name in SCENE}, "cameras": list(options.cameras)}


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
