"""Settings of the web's process, and checks that they are safe and can work."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pp_bridge.shared_state import MAX_VIEWERS

TOKEN_VARIABLE = "PP_BRIDGE_TOKEN"

_MIN_TOKEN_LENGTH = 16  # characters
_LIBRARIES = (  # the extra [bridge], by the names they are imported by
    "aiortc",
    "fastapi",
    "prometheus_client",
    "pydantic",
    "pythonjsonlogger",
    "uvicorn",
)


@dataclass(frozen=True)
class WebSettings:
    """Settings of the web's process.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 is any.
        first_media_port: The first of `MAX_VIEWERS` UDP ports.
        token: Secret that every request must carry; None accepts all requests.
        root: The folder that holds all datasets; None serves the cameras and nothing else.
        scene: Defaults of the requests that are the service's own, as JSON has them.
    """

    host: str
    port: int
    first_media_port: int
    token: str | None
    root: Path | None
    scene: Mapping[str, Any] = field(default_factory=dict)


def read_token() -> str | None:
    """Return the token from the environment, or None where it is absent or empty."""
    return os.environ.get(TOKEN_VARIABLE) or None


def is_loopback(host: str) -> bool:
    """Return whether a host name or address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def validate_token(token: str | None, host: str) -> None:
    """Check that a service on `host` has the token it needs.

    Raises:
        ValueError: The token is missing, or short enough to be guessed.
    """
    if token is None and not is_loopback(host):
        raise ValueError(
            f"on {host} everybody could use the service: put a token into the environment "
            f"variable {TOKEN_VARIABLE}, or keep to --host 127.0.0.1"
        )
    if token is not None and (len(token) < _MIN_TOKEN_LENGTH or not token.isascii()):
        raise ValueError(
            f"the token must have at least {_MIN_TOKEN_LENGTH} ASCII characters, got {len(token)}; "
            "try 'openssl rand -hex 32'"
        )


def validate_ports(first: int) -> None:
    """Check the UDP ports of the live view.

    Raises:
        ValueError: The ports are out of range.
    """
    if not 1024 <= first <= 65536 - MAX_VIEWERS:
        raise ValueError(
            f"the streaming port must be from 1024 to {65536 - MAX_VIEWERS}, because "
            f"{MAX_VIEWERS} ports from there on are used, got {first}"
        )


def require_library() -> None:
    """Check that the extra [bridge] is installed.

    Raises:
        ImportError: A library of the extra is missing.
    """
    missing = [name for name in _LIBRARIES if not find_spec(name)]
    if missing:
        needs = ", ".join(missing)
        raise ImportError(f"this needs {needs}; try 'pip install \"franka-pick-place[bridge]\"'")
