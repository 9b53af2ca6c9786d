"""Simulators behind the environment, by name; each is imported only when it is made."""

import sys
from importlib import import_module
from typing import Any, NamedTuple

from pp_env.config import PickPlaceConfig, TimingConfig
from pp_env.sim.api import Simulator


class Backend(NamedTuple):
    """Where a simulator is found, and how fast its physics must step.

    Attributes:
        path: "module:Class".
        physics_hz: Physics steps per second that its contacts need.
    """

    path: str
    physics_hz: int


SIMULATORS = {
    "mujoco": Backend("pp_env.sim.mujoco.simulator:MujocoSimulator", physics_hz=240),
    "isaacsim": Backend("pp_env.sim.isaac.simulator:IsaacSimulator", physics_hz=120),
}


def default_timing(name: str, control_hz: int = TimingConfig.control_hz) -> TimingConfig:
    """The timing that the simulator of that name is meant for.

    Raises:
        ValueError: There is no such simulator, or `control_hz` does not divide its physics rate.
    """
    return TimingConfig(control_hz, _backend(name).physics_hz)


def make_simulator(
    name: str, config: PickPlaceConfig, headless: bool = True, **options: Any
) -> Simulator:
    """The simulator of that name, showing the scene of `config`.

    Args:
        name: One of `SIMULATORS`.
        config: The scene.
        headless: Without a window.
        options: Of that simulator alone.

    Raises:
        ValueError: There is no such simulator, or it has no such option.
        ImportError: What it needs is not installed.
    """
    module, cls = _backend(name).path.split(":")
    try:
        factory = getattr(import_module(module), cls)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the simulator {name!r} needs the package {error.name!r}; "
            f"try 'pip install {error.name}'"
        ) from error
    return factory(config, headless=headless, **options)


def leave(status: int) -> int:
    """The exit status, handed to what must end the process itself: Isaac Sim's application.

    A program calls it last. It returns unless the application was started.
    """
    isaac_app = sys.modules.get("pp_env.sim.isaac.app")
    if isaac_app is not None:
        isaac_app.leave(status)
    return status


def keep_alive() -> None:
    """Lets a simulator's application handle its events; for a program that is not stepping.

    It must be called from the main thread, some times a second. Without an application, nothing
    happens.
    """
    isaac_app = sys.modules.get("pp_env.sim.isaac.app")
    if isaac_app is not None:
        isaac_app.keep_alive()


def _backend(name: str) -> Backend:
    if name not in SIMULATORS:
        raise ValueError(f"simulator must be one of {sorted(SIMULATORS)}, got {name!r}")
    return SIMULATORS[name]
