"""The options of `pp-bridge`; what a collection may be asked for is in the requests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Interval
from typing_extensions import Doc

from pp_bridge.settings import TOKEN_VARIABLE
from pp_bridge.shared_state import MAX_VIEWERS
from pp_collect.options import CollectOptions, SimulatorOptions, VideoOptions
from pp_recorder.command_line import Typed


@dataclass(frozen=True, kw_only=True)
class BridgeOptions(SimulatorOptions, VideoOptions):
    """The scene, which holds as long as the service, and where the service is found."""

    host: Annotated[str, Doc(f"address; any other needs a token in {TOKEN_VARIABLE}")] = "127.0.0.1"
    port: Annotated[int, Interval(ge=0, le=65535), Doc("TCP port of the page and of HTTP")] = 8080
    root: Annotated[Path, Doc("folder that holds all datasets"), Typed("DIR")] = Path("datasets")
    streaming_port: Annotated[
        int, Doc(f"first of {MAX_VIEWERS} UDP ports of the live view, one per viewer")
    ] = CollectOptions.streaming_port
    resume: Annotated[bool, Doc("go on with what the last end interrupted")] = False
