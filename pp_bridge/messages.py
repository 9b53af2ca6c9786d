"""What the web's process and the simulator's process say to each other."""

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

import collect

RefusalReason = Literal["invalid", "conflict", "storage", "unavailable"]

_DEFAULT = collect.make_parser().get_default


class StartRequest(BaseModel):
    """A collection to start; what is left out is as in collect.py."""

    model_config = ConfigDict(extra="forbid", strict=True)

    num_episodes: int = Field(ge=1, le=1_000_000, description="Episodes in the dataset")
    output_dir: str = Field(
        min_length=1,
        max_length=1000,
        description="A folder directly below the service's root: its name or its whole path",
    )
    skill: Literal["pick_place"] = Field("pick_place", description="What is demonstrated")
    seed: int = Field(_DEFAULT("seed"), ge=0, lt=2**63, description="Of the collection")
    steps_per_segment: int = Field(
        _DEFAULT("steps_per_segment"), ge=1, le=10_000, description="Per waypoint; nine segments"
    )
    noise_rad: float = Field(
        _DEFAULT("noise_rad"), ge=0, le=1, description="On the waypoints' joints, rad"
    )
    keep: Literal["success", "all"] = Field(_DEFAULT("keep"), description="Which episodes")
    resume: bool = Field(False, description="Go on with an interrupted collection")


class BridgeCommand(NamedTuple):
    """A request that changes something.

    Attributes:
        name: What to do.
        request: The collection to start.
    """

    name: Literal["start", "stop"]
    request: StartRequest | None = None


class Reply(NamedTuple):
    """What came of it.

    Attributes:
        reason: Why it was refused; None if it was carried out.
        detail: The same in words.
        status: Afterwards.
    """

    reason: RefusalReason | None
    detail: str
    status: dict[str, Any]


class RefusalError(Exception):
    """A command can't be carried out.

    Args:
        reason: Why.
        detail: The same in words, with what would work.
    """

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: RefusalReason = reason
