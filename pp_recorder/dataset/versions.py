"""What may change the bits of an episode beside its configuration: versions and the machine."""

import platform
from contextlib import suppress
from importlib import metadata
from typing import Any

_PACKAGES = ("franka-pick-place", "numpy", "gymnasium", "mujoco", "pyarrow", "av")


def describe_environment() -> dict[str, Any]:
    """Return the versions in use, those of packages that are not installed left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {"versions": versions, "machine": platform.platform()}
