"""Simulators behind the environment, by name; each is imported only when it is made."""

import os
import sys
from importlib import import_module
from typing import Any, NamedTuple

from pp_env.config import RENDER_PRESETS, PickPlaceConfig, TimingConfig
from pp_env.names import did_you_mean
from pp_env.sim.api import Simulator


class Backend(NamedTuple):
    """Where a simulator is found, and what callers must know before they start it.

    Attributes:
        path: "module:Class".
        physics_hz: Physics steps per second that its contacts need.
        options: Keyword arguments that it takes beside `config` and `headless`.
        repeatable: Whether the same start and actions give the same states, bit for bit.
        gpu_variable: Environment variable that chooses one of `pp_env.gpus.usable_gpus`, from 0 on.
        process_memory: Bytes that a process needs whatever it shows, if they are many: such a
            process is to have a GPU of its own.
        replaceable: Whether a process may have one with another scene after the first.
        has_livestream: Whether it shows itself to remote viewers, on `streaming_port`.
        not_randomized: Fields of `RandomizationConfig` that it cannot vary.
        install: What to try where a package is missing; "" is to install that.
        vector_env: "module:Class" of many environments at once, if it can step them.
        steps_together: Whether a process runs many attempts of a collection at once.
        has_window: Whether it can show itself on a screen.
        has_filament: Whether it renders the presets of MuJoCo's Filament renderer.
    """

    path: str
    physics_hz: int
    options: tuple[str, ...] = ()
    repeatable: bool = True
    gpu_variable: str = ""
    process_memory: float | None = None
    replaceable: bool = True
    has_livestream: bool = False
    not_randomized: tuple[str, ...] = ()
    install: str = ""
    vector_env: str = ""
    steps_together: bool = False
    has_window: bool = True
    has_filament: bool = False


SIMULATORS = {
    "mujoco": Backend(
        "pp_env.sim.mujoco.simulator:MujocoSimulator",
        physics_hz=240,
        gpu_variable="MUJOCO_EGL_DEVICE_ID",
        vector_env="pp_env.vector_env:PickPlaceVectorEnv",
        has_filament=True,
    ),
    "isaacsim": Backend(
        "pp_env.sim.isaac.simulator:IsaacSimulator",
        physics_hz=120,
        options=("assets_root", "streaming_port"),
        repeatable=False,
        gpu_variable="ISAAC_GPU",
        process_memory=8e9,  # of Isaac Lab's base, says its issue 5350
        replaceable=False,
        has_livestream=True,
        not_randomized=("table_textures", "object_textures", "friction", "mass"),
    ),
    "warp": Backend(
        "pp_env.sim.warp.simulator:WarpSimulator",
        physics_hz=120,
        options=("device",),
        repeatable=False,
        gpu_variable="WARP_GPU",
        not_randomized=("table_textures", "object_textures"),
        steps_together=True,
        has_window=False,
        install="'pip install \"franka-pick-place[gpu]\"' on a machine with an NVIDIA GPU, or the "
        "simulator 'mujoco'",
        vector_env="pp_env.sim.warp.vector_env:WarpVectorEnv",
    ),
}


def default_timing(name: str, control_hz: int = TimingConfig.control_hz) -> TimingConfig:
    """The timing that the simulator of that name is meant for.

    Raises:
        ValueError: There is no such simulator, or `control_hz` does not divide its physics rate.
    """
    return TimingConfig(control_hz, _backend(name).physics_hz)


def require_preset(name: str, preset: str) -> None:
    """Check that the simulator of that name renders a preset.

    Raises:
        ValueError: There is no such simulator, or it does not.
    """
    if RENDER_PRESETS[preset].renderer == "filament" and not _backend(name).has_filament:
        able = [other for other, row in SIMULATORS.items() if row.has_filament]
        raise ValueError(
            f"preset {preset!r} is rendered by simulator {', '.join(able)} alone, got {name}; try "
            f"preset 'pretty', or simulator {able[0]}"
        )


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
    factory = load(name, _backend(name).path)
    return factory(config, headless=headless, **options)


def load(name: str, path: str) -> Any:
    """Return what "module:attribute" names, which the simulator of that name needs.

    Raises:
        ImportError: What it needs is not installed.
    """
    module, attribute = path.split(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        remedy = _backend(name).install or f"'pip install {error.name}'"
        raise ImportError(
            f"the simulator {name!r} needs the package {error.name!r}; try {remedy}"
        ) from error


def has_screen() -> bool:
    """Return whether a window could be opened."""
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform != "linux" or bool(named)


def shutdown_app(status: int) -> int:
    """Return the exit status, after handing it to a simulator that must end the process itself.

    Isaac Sim's application is one. A program calls this last; it returns unless the application
    was started.
    """
    if (app := _running_app()) is not None:
        app.shutdown_app(status)
    return status


def keep_alive() -> None:
    """Let a simulator's application handle its events while the program does not step it.

    Call it from the main thread, several times a second. Without an application it does nothing.
    """
    if (app := _running_app()) is not None:
        app.keep_alive()


def _running_app() -> Any:
    """Return the module of Isaac Sim's application if it was imported, else None."""
    return sys.modules.get("pp_env.sim.isaac.app")


def _backend(name: str) -> Backend:
    if name not in SIMULATORS:
        raise ValueError(
            f"simulator must be one of {sorted(SIMULATORS)}, got {name!r}"
            f"{did_you_mean([name], SIMULATORS)}"
        )
    return SIMULATORS[name]
