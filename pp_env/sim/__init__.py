"""Simulators behind the environment, by name; each is imported only when it is made."""

from importlib import import_module

from pp_env.config import PickPlaceConfig
from pp_env.sim.api import Simulator

SIMULATORS = {"mujoco": "pp_env.sim.mujoco_sim:MujocoSimulator"}


def make_simulator(name: str, config: PickPlaceConfig, headless: bool = True) -> Simulator:
    """The simulator of that name, showing the scene of `config`.

    Raises:
        ValueError: There is no such simulator.
        ImportError: What it needs is not installed.
    """
    if name not in SIMULATORS:
        raise ValueError(f"simulator must be one of {sorted(SIMULATORS)}, got {name!r}")
    module, cls = SIMULATORS[name].split(":")
    try:
        factory = getattr(import_module(module), cls)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the simulator {name!r} needs the package {error.name!r}; "
            f"try 'pip install {error.name}'"
        ) from error
    return factory(config, headless=headless)
