"""Programs that each drive a simulator of their own, while one launch steps all of them."""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportOptionalMemberAccess=false
# (Warp's kernels, arrays and structs have types of their own)

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from greenlet import getcurrent, greenlet

from pp_env.config import PickPlaceConfig
from pp_env.sim.api import Command, InitialState, Pose, SimState
from pp_env.sim.warp.simulator import describe, read_states
from pp_env.sim.warp.worlds import StartTable, WarpWorlds, to_host

_LOG = logging.getLogger(__name__)


class _Request(NamedTuple):
    """What a program waits for: the name of a call, and its argument."""

    name: str
    argument: Any


class Lockstep:
    """Worlds for programs that are written for one simulator.

    A program that calls its simulator waits until all others wait, too; then the device does for
    all of them what they wait for. Programs see no other world, and take turns in one thread.

    Args:
        config: Scene, timing, task and grasp.
        num_worlds: Number of programs at once.
        device: Name of Warp's device; None is the first NVIDIA GPU.

    Attributes:
        simulators: One per world, whose `poses` the caller may read and clear.

    Raises:
        RuntimeError: There is no NVIDIA GPU.
    """

    def __init__(self, config: PickPlaceConfig, num_worlds: int, device: str | None = None) -> None:
        self._worlds = WarpWorlds(config, num_worlds, device, num_starts=num_worlds)
        self.description = describe(self._worlds.device)
        self.simulators = [LockstepSimulator(self.description) for _ in range(num_worlds)]
        self._table: StartTable | None = None
        self._step: Callable[[], None] | None = None

    def run(self, programs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run programs, the k-th of which drives the k-th simulator; return what they return.

        Raises:
            Exception: What a program raises ends all of them.
        """
        results: list[Any] = [None] * len(programs)
        waiting: dict[int, _Request] = {}
        tasks = [greenlet(program) for program in programs]

        def resume(world: int, *value: Any) -> None:
            answer = tasks[world].switch(*value)
            if tasks[world].dead:
                results[world] = answer
                waiting.pop(world, None)
            else:
                waiting[world] = answer

        for world in range(len(programs)):
            resume(world)
        while waiting:
            if placed := {w: r for w, r in waiting.items() if r.name != "step"}:
                states = self._place(placed)
            else:
                states = self._advance(waiting)
            for world, state in states.items():
                resume(world, state)
        try:
            self._worlds.require_no_overflow()
        except RuntimeError as error:  # the programs say whether what came of it is good
            _LOG.warning(str(error))
        return results

    def close(self) -> None:
        """Free what the host holds."""
        self._worlds.close()

    def _place(self, requests: dict[int, _Request]) -> dict[int, SimState]:
        """Reset worlds and move objects; the worlds that wait for a step stay as they are."""
        worlds = self._worlds
        resets = {w: r.argument for w, r in requests.items() if r.name == "reset"}
        if resets:
            self._load(resets)
            chosen = np.zeros(worlds.num_worlds, dtype=np.bool_)
            chosen[list(resets)] = True
            worlds.start.assign(np.arange(worlds.num_worlds, dtype=np.int32))
            worlds.chosen.assign(chosen)
            worlds.begin()
        for world, request in requests.items():
            if request.name == "move":
                worlds.place_object(world, request.argument)
        worlds.chosen.fill_(True)
        worlds.observe()
        return self._read(list(requests))

    def _load(self, resets: dict[int, InitialState]) -> None:
        """Have the start of world k in row k of the table; before its first, it has another's."""
        worlds, rows = self._worlds, self._worlds.tabulate(list(resets.values()))
        if self._table is None:
            self._table = rows.repeated(worlds.num_worlds)
        self._table = self._table.replaced(np.array(list(resets)), rows)
        worlds.load(self._table)
        if self._step is None:
            self._step = worlds.capture(self._launch_step)

    def _advance(self, requests: dict[int, _Request]) -> dict[int, SimState]:
        """Advance every world one control period."""
        assert self._step is not None, "step needs a reset"
        commands = np.zeros((self._worlds.num_worlds, 8), dtype=np.float32)
        for world, request in requests.items():
            command: Command = request.argument
            commands[world, :7], commands[world, 7] = command.arm, command.gripper
        self._worlds.command.assign(commands)
        self._step()
        return self._read(list(requests))

    def _launch_step(self) -> None:
        self._worlds.advance()
        self._worlds.observe()

    def _read(self, which: list[int]) -> dict[int, SimState]:
        states = read_states(self._worlds.seen.values.numpy(), which)
        poses = to_host(self._worlds.data.qpos)
        for world in which:
            self.simulators[world].poses.append(poses[world])
        return dict(zip(which, states, strict=True))


class LockstepSimulator:
    """A `Simulator` of one of many worlds, for a program that `Lockstep.run` runs.

    Attributes:
        description: As a dataset records it.
        initial: Where the episode began.
        poses: MuJoCo's `qpos` of every state since the reset, for rendering later.
    """

    def __init__(self, description: dict[str, Any]) -> None:
        self.description = description
        self.initial: InitialState | None = None
        self.poses: list[np.ndarray] = []

    def reset(self, initial: InitialState) -> SimState:
        """Set the initial state and let the objects settle."""
        self.initial, self.poses = initial, []
        return _wait("reset", initial)

    def step(self, command: Command) -> SimState:
        """Advance one control period with `command` as the servos' targets."""
        return _wait("step", command)

    def move_object(self, pose: Pose) -> SimState:
        """Put the target object, which must not be held, at rest at a pose."""
        self.poses.pop()
        return _wait("move", pose)

    def render(self, camera: str, kind: str = "rgb") -> np.ndarray:
        """Raise an error: the images of all worlds are rendered after their episodes."""
        raise RuntimeError("worlds that are stepped together are rendered after their episodes")

    def close(self) -> None:
        """Do nothing: the worlds are `Lockstep`'s."""


def _wait(name: str, argument: Any) -> SimState:
    return getcurrent().parent.switch(_Request(name, argument))
