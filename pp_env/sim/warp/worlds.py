"""Many worlds of one scene on one device: their starts, and their physics a control period on."""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportOptionalMemberAccess=false
# pyright: reportInvalidTypeForm=false, reportAssignmentType=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
# (Warp's kernels, arrays and structs have types of their own)

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import warp as wp

from pp_env import panda
from pp_env.config import SETTLE_TIME, PickPlaceConfig
from pp_env.randomization import Variation
from pp_env.sim.api import InitialState, Pose
from pp_env.sim.mujoco.simulator import MujocoSimulator, PoolBody
from pp_env.sim.warp import kernels
from pp_env.sim.warp.servos import take_force_within_steps

_LOG = logging.getLogger(__name__)

# A parked object is out of view and out of reach: which shapes collide is the same in all worlds.
_PARKED = np.array([-50.0, 0.0, 50.0])
_PARKED_APART = 3.0  # m

_CONTACTS = 24  # per world on average, of a hand that grasps and an object on the table
_CONSTRAINTS = 160  # per world at most: four numbers per contact, the weld, the limits
# Of the solver, which ends before where it has converged; all worlds wait for the slowest.
_ITERATIONS, _LINE_SEARCH, _TOLERANCE = 4, 6, 1e-6
_CONVEX_ITERATIONS = 12  # of the search for the contact of two convex shapes
_LEFT_OUT = (  # overflows that change what happens; the others are iterations that were not enough
    mjw.OverflowType.ALL & ~mjw.OverflowType.ITERATIONS & ~mjw.OverflowType.LS_ITERATIONS
)

# What `SceneVariation` and a pool of objects may change in a model, world by world.
_PHYSICS_FIELDS = (
    "geom_friction", "body_mass", "body_inertia", "body_subtreemass", "body_invweight0",
    "dof_invweight0", "body_gravcomp",
)  # fmt: skip
_LOOK_FIELDS = (
    "geom_rgba", "cam_pos", "cam_quat", "light_pos", "light_dir", "light_ambient", "light_diffuse",
    "light_specular",
)  # fmt: skip


def choose_device(device: str | None) -> str:
    """Return the name of the device to compute on.

    Args:
        device: Its name in Warp; None is the GPU that `WARP_GPU` names, by number, or else the
            first.

    Raises:
        RuntimeError: There is no NVIDIA GPU.
    """
    wp.init()
    named = os.environ.get("WARP_GPU")
    if device is None and named:
        device = f"cuda:{named}" if named.isdigit() else named
    if device is None and not wp.is_cuda_available():
        raise RuntimeError(
            "simulator 'warp' needs an NVIDIA GPU and its driver, and found none; "
            "simulator 'mujoco' runs the same scene on the processor, many environments at once, "
            "too (WARP_GPU=cpu is for tests, and slow)"
        )
    return str(wp.get_device(device or "cuda"))


def to_host(array: wp.array) -> np.ndarray:
    """Return a copy of an array on the device, also where the device is the host."""
    return np.array(array.numpy()) if array.device.is_cpu else array.numpy()


@dataclasses.dataclass(frozen=True)
class StartTable:
    """Starts of episodes, one row each, as numpy arrays.

    Attributes:
        qpos: (n, nq) before the objects have settled.
        command: (n, 8) the servos' first targets: joints, rad, and fingers, m.
        goal: (n, 3) m, world frame.
        target: (n,) indices in the configuration's `object_pool`.
        noise: (n, 2) standard deviations of the noise on joint positions, rad, and velocities,
            rad/s.
        delay: (n,) control periods.
        fields: By name, rows (n, k) of the model's fields that are not the same in all starts.
    """

    qpos: np.ndarray
    command: np.ndarray
    goal: np.ndarray
    target: np.ndarray
    noise: np.ndarray
    delay: np.ndarray
    fields: dict[str, np.ndarray]

    def replaced(self, which: np.ndarray, new: "StartTable") -> "StartTable":
        """Return the table with other rows at some numbers."""

        def replace(name: str, old: np.ndarray) -> np.ndarray:
            changed = old.copy()
            changed[which] = new._arrays[name]
            return changed

        return self._of({name: replace(name, old) for name, old in self._arrays.items()})

    def repeated(self, count: int) -> "StartTable":
        """Return a table of `count` rows, all of which are the first."""
        return self._of({name: np.repeat(a[:1], count, axis=0) for name, a in self._arrays.items()})

    @property
    def _arrays(self) -> dict[str, np.ndarray]:
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return own.pop("fields") | own

    def _of(self, arrays: dict[str, np.ndarray]) -> "StartTable":
        own = {f.name: arrays[f.name] for f in dataclasses.fields(self) if f.name in arrays}
        return StartTable(**own, fields={name: arrays[name] for name in self.fields})


class WarpWorlds:
    """The worlds of one scene on one device.

    Args:
        config: Scene, timing, task and grasp.
        num_worlds: Number of worlds.
        device: Name of the device; None is the first NVIDIA GPU.
        renders: Whether what only changes the look is to vary, too.
        num_starts: Number of starts that `load` takes.

    Attributes:
        starts: The starts, on the device.
        command: (n, 8) float32 on the device: targets of joints, rad, and fingers, m.
        chosen: (n,) bool on the device: the worlds that `begin` and `observe` are about.
        start: (n,) int32 on the device: which start each world has begun.
        seen: What was seen of each world at the last `observe`.

    Raises:
        RuntimeError: There is no NVIDIA GPU.
    """

    def __init__(
        self,
        config: PickPlaceConfig,
        num_worlds: int,
        device: str | None = None,
        renders: bool = False,
        num_starts: int = 1,
    ) -> None:
        self.num_starts = num_starts
        self.config, self.num_worlds, self.device = config, num_worlds, choose_device(device)
        self._source = MujocoSimulator(config, flat=renders)
        self.host_model, self._host_data = self._source.physics
        _prepare(self.host_model)
        take_force_within_steps(self.host_model)
        fields = _PHYSICS_FIELDS + (_LOOK_FIELDS if renders else ())
        self._fields = [name for name in fields if _may_vary(name, config)]
        batch = {name: num_worlds for name in (*self._fields, "eq_data")}
        with wp.ScopedDevice(self.device):
            self.model = mjw.put_model(self.host_model, batch_sizes=batch)
            self.model.opt.warn_overflow = 0  # it would print, see `require_no_overflow`
            self.data = mjw.make_data(
                self.host_model, num_worlds, nconmax=_CONTACTS, njmax=_CONSTRAINTS
            )
            self.command = wp.zeros((num_worlds, 8), dtype=wp.float32)
            self.chosen = wp.ones(num_worlds, dtype=wp.bool)
            self.start = wp.zeros(num_worlds, dtype=wp.int32)
            self.rules = kernels.make_rules(config)
            self.scene = self._make_scene()
            self.state = self._make_state()
            self.seen = _make_seen(num_worlds)
            self.starts = _make_starts(self.host_model, num_starts)
            self._model_rows = {name: _rows(getattr(self.model, name)) for name in self._fields}
            self._start_rows = {
                name: wp.zeros((num_starts, rows.shape[1]), dtype=wp.float32)
                for name, rows in self._model_rows.items()
            }
            self._welds = _rows(self.model.eq_data)
        self._settle_step: Callable[[], None] | None = None

    def tabulate(self, initials: Sequence[InitialState]) -> StartTable:
        """Return the table of starts, which `load` takes; the host's MuJoCo makes each row."""
        source, model, data = self._source, self.host_model, self._host_data
        fields: dict[str, list[np.ndarray]] = {name: [] for name in self._fields}
        qpos = []
        for initial in initials:
            source.place(initial)
            self._park(data, initial)
            qpos.append(data.qpos.copy())
            for name, values in fields.items():
                values.append(_field(model, name))
        variations = [initial.variation or Variation() for initial in initials]
        arms = [np.append(initial.joint_pos, initial.gripper_pos) for initial in initials]
        noise = [(v.joint_pos_noise, v.joint_vel_noise) for v in variations]
        return StartTable(
            qpos=np.array(qpos, dtype=np.float32),
            command=np.array(arms, dtype=np.float32),
            goal=np.array([initial.goal_pos for initial in initials], dtype=np.float32),
            target=np.array([initial.target for initial in initials], dtype=np.int32),
            noise=np.array(noise, dtype=np.float32),
            delay=np.array([v.action_delay for v in variations], dtype=np.int32),
            fields={
                name: np.array(values, dtype=np.float32).reshape(len(values), -1)
                for name, values in fields.items()
            },
        )

    def load(self, table: StartTable) -> None:
        """Take `num_starts` starts, and let their objects settle; the worlds stay as they are."""
        starts, count = self.starts, self.num_worlds
        for name in ("qpos", "command", "goal", "target", "noise", "delay"):
            getattr(starts, name).assign(getattr(table, name))
        for name, rows in self._start_rows.items():
            rows.assign(table.fields[name])
        starts.qvel.zero_()
        starts.warmstart.zero_()
        present = self._present()
        before = [wp.clone(array) for array in present]
        for first in range(0, self.num_starts, count):
            rows = np.arange(first, first + count, dtype=np.int32) % self.num_starts
            self.start.assign(rows)
            self.chosen.fill_(True)
            self.begin()
            self.settle()
            kept = slice(first, min(first + count, self.num_starts))
            used = slice(0, kept.stop - kept.start)
            for out, values in (
                (starts.qpos, self.data.qpos),
                (starts.qvel, self.data.qvel),
                (starts.warmstart, self.data.qacc_warmstart),
                (starts.xpos, self.data.xpos),
                (starts.xquat, self.data.xquat),
            ):
                wp.copy(out[kept], values[used])
        for array, values in zip(present, before, strict=True):
            wp.copy(array, values)

    def settle(self) -> None:
        """Let the objects come to rest, with the servos' targets as they are."""
        steps = round(SETTLE_TIME * self.config.timing.physics_hz)
        if self._settle_step is None:
            self._settle_step = self.capture(self.step_physics)
            steps -= 1  # which is the one that compiled
        for _ in range(steps):
            self._settle_step()
        with wp.ScopedDevice(self.device):
            mjw.kinematics(self.model, self.data)

    def begin(self) -> None:
        """Put the chosen worlds at their start, without looking at them."""
        data, chosen = self.data, self.chosen
        wp.launch(
            kernels.begin_episodes,
            self.num_worlds,
            [chosen, self.start, self.starts, self.state, data.qacc_warmstart, data.ctrl,
             data.eq_active],
            device=self.device,
        )  # fmt: skip
        for name, out in self._model_rows.items():
            rows = self._start_rows[name]
            wp.launch(
                kernels.copy_rows, out.shape, [chosen, self.start, rows, out], device=self.device
            )

    def observe(self) -> None:
        """Look at the chosen worlds."""
        wp.launch(
            kernels.observe,
            self.num_worlds,
            [self.chosen, self.rules, self.scene, self.state, self.seen],
            device=self.device,
        )

    def command_servos(self) -> None:
        """Apply the grasp rule and `command`: what comes before the physics."""
        data, welds = self.data, self._welds
        wp.launch(
            kernels.command_servos,
            self.num_worlds,
            [self.rules, self.scene, self.state, self.command, data.ctrl, data.eq_active,
             welds, welds.shape[1] // self.host_model.neq],
            device=self.device,
        )  # fmt: skip

    def step_physics(self) -> None:
        """Advance all worlds one step of the physics."""
        with wp.ScopedDevice(self.device):
            mjw.step(self.model, self.data)

    def advance(self) -> None:
        """Advance all worlds one control period with `command` as the servos' targets."""
        self.command_servos()
        for _ in range(self.config.timing.substeps):
            self.step_physics()
        with wp.ScopedDevice(self.device):
            mjw.kinematics(self.model, self.data)

    def place_object(self, world: int, pose: Pose) -> None:
        """Put a world's target object, which must not be held, at rest at a pose."""
        body = self._bodies[int(self.state.target.numpy()[world])]
        for values, where, numbers in (
            (self.data.qpos, body.qpos, np.concatenate(pose)),
            (self.data.qvel, body.dofs, np.zeros(6)),
        ):
            rows = values.numpy()
            rows[world, where] = numbers
            values.assign(rows)
        with wp.ScopedDevice(self.device):
            mjw.kinematics(self.model, self.data)

    def show(self, table: StartTable) -> None:
        """Give all worlds the look of one start, without regard to what moves them.

        Args:
            table: The start, one row.
        """
        count = self.num_worlds
        self.data.mocap_pos.assign(np.repeat(table.goal[:, None], count, axis=0))
        for name, rows in self._model_rows.items():
            rows.assign(np.repeat(table.fields[name], count, axis=0))

    def pose(self, poses: np.ndarray) -> None:
        """Put the first worlds into states; the others into the last of them.

        Args:
            poses: (m, nq) MuJoCo's `qpos`, of at most as many states as there are worlds.
        """
        missing = self.num_worlds - len(poses)
        self.data.qpos.assign(np.pad(poses, ((0, missing), (0, 0)), "edge").astype(np.float32))

    def capture(self, launches: Callable[[], None]) -> Callable[[], None]:
        """Return a function that repeats launches: on a GPU a graph, elsewhere the function itself.

        They are run twice on the way: once to compile their kernels, and once to be recorded.
        """
        began = time.monotonic()
        launches()
        self.wait()
        if (seconds := time.monotonic() - began) > _SLOW:
            _LOG.info("compiled kernels in %.0f s; they are kept for the next time", seconds)
        if not wp.get_device(self.device).is_cuda:
            return launches
        with wp.ScopedCapture(self.device) as captured:
            launches()
        return lambda: wp.capture_launch(captured.graph)

    def wait(self) -> None:
        """Wait until the device has done all that was launched."""
        wp.synchronize_device(self.device)

    def require_no_overflow(self) -> None:
        """Check that all contacts found room.

        Raises:
            RuntimeError: Some did not, and physics left them out.
        """
        if kinds := self.overflows():
            raise RuntimeError(
                "contacts were left out of the physics, for which there is room for "
                f"{_CONTACTS} per world and {_CONSTRAINTS} constraints in one; MuJoCo Warp calls "
                f"it {', '.join(kinds)}"
            )

    def overflows(self) -> list[str]:
        """Return what there was no room for, in any world, as MuJoCo Warp calls it."""
        found = int(np.bitwise_or.reduce(self.data.overflow.numpy())) & int(_LEFT_OUT)
        return [str(kind.name) for kind in mjw.OverflowType if kind & found]

    def close(self) -> None:
        """Free the source of the starts; the device's memory goes with the object."""
        self._source.close()

    def _present(self) -> list[wp.array]:
        """Return the arrays that hold the worlds as they are, apart from what follows of them."""
        data, state = self.data, self.state
        return [
            self.start, data.qpos, data.qvel, data.qacc_warmstart, data.ctrl, data.xpos, data.xquat,
            data.eq_active, self._welds, state.goal, state.target, state.is_grasped,
            state.object_quat, *self._model_rows.values(),
        ]  # fmt: skip

    def _park(self, data: Any, initial: InitialState) -> None:
        """Move the objects that are not there to where no world has anything."""
        present = {placed.pool_index for placed in initial.placed}
        for index, body in enumerate(self._bodies):
            if index not in present:
                where = slice(body.qpos.start, body.qpos.start + 3)
                data.qpos[where] = _PARKED - [_PARKED_APART * index, 0.0, 0.0]

    @property
    def _bodies(self) -> list[PoolBody]:
        return self._source.bodies

    def _make_scene(self) -> kernels.Scene:
        model, pool, scene = self.host_model, self.config.object_pool, kernels.Scene()
        scene.hand = model.body(panda.HAND.name).id
        scene.arm_qpos = model.joint(panda.ARM_JOINTS[0]).qposadr[0]
        scene.finger_qpos = model.joint(panda.FINGER_JOINTS[0]).qposadr[0]
        scene.arm_dof = model.joint(panda.ARM_JOINTS[0]).dofadr[0]
        scene.finger_dof = model.joint(panda.FINGER_JOINTS[0]).dofadr[0]
        scene.body = wp.array([body.id for body in self._bodies], dtype=wp.int32)
        scene.dof = wp.array([body.velocity.start for body in self._bodies], dtype=wp.int32)
        scene.weld = wp.array([body.weld for body in self._bodies], dtype=wp.int32)
        scene.size = wp.array([obj.size for obj in pool], dtype=wp.vec3)
        scene.is_cylinder = wp.array([obj.shape == "cylinder" for obj in pool], dtype=wp.bool)
        scene.grasp_height = wp.array([obj.grasp_height for obj in pool], dtype=wp.float32)
        scene.rest_z = wp.array([self.config.rest_z_of(obj) for obj in pool], dtype=wp.float32)
        return scene

    def _make_state(self) -> kernels.Worlds:
        data, state, count = self.data, kernels.Worlds(), self.num_worlds
        state.qpos, state.qvel, state.xpos, state.xquat = (
            data.qpos, data.qvel, data.xpos, data.xquat,
        )  # fmt: skip
        state.goal = data.mocap_pos
        state.target = wp.zeros(count, dtype=wp.int32)
        state.is_grasped = wp.zeros(count, dtype=wp.bool)
        state.object_quat = wp.zeros(count, dtype=wp.vec4)
        return state


_SLOW = 5.0  # s, that kernels which are compiled take and others do not


def _prepare(model: mujoco.MjModel) -> None:
    """Set what is otherwise on a GPU.

    No world sleeps, which would have to be decided for each. Friction cones are pyramids, with
    which a step takes a third less; the expert's success is the same (docs/gpu.md). The lamp also
    gives the headlight's ambient light, which is compiled into the renderer, and so can't vary from
    world to world.
    """
    model.light_ambient[:] = model.vis.headlight.ambient
    model.opt.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_SLEEP)
    model.opt.iterations, model.opt.ls_iterations = _ITERATIONS, _LINE_SEARCH
    model.opt.tolerance = _TOLERANCE
    model.opt.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    # Boxes have a contact of their own, without a search. Arms need one point; cylinders more.
    model.opt.ccd_iterations = _CONVEX_ITERATIONS
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD)
    collides = (model.geom_contype | model.geom_conaffinity) > 0
    if not (model.geom_type[collides] == mujoco.mjtGeom.mjGEOM_CYLINDER).any():
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MULTICCD)
    # Steps that would change nothing, one of which factorizes the inertia matrix once more.
    if not model.dof_damping.any():
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_EULERDAMP)
    if not model.dof_frictionloss.any():
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_FRICTIONLOSS)


def _may_vary(name: str, config: PickPlaceConfig) -> bool:
    """Return whether a field of the model may differ from start to start."""
    if name == "body_gravcomp":
        return len(config.object_pool) > 1
    return name == "geom_rgba" or bool(config.randomization.active)


def _field(model: mujoco.MjModel, name: str) -> np.ndarray:
    """Return a copy of a field. The headlight's ambient light is the lamp's, which may vary."""
    if name == "light_ambient":
        return np.tile(np.array(model.vis.headlight.ambient), (model.nlight, 1))
    return getattr(model, name).copy()


def _rows(values: wp.array) -> wp.array:
    """Return a view of an array (n, ...) of vectors as rows (n, k) of float32."""
    size = values.size * wp.types.type_size_in_bytes(values.dtype) // 4
    shape = values.shape[0], size // values.shape[0]
    return wp.array(ptr=values.ptr, dtype=wp.float32, shape=shape, device=values.device)


def _make_starts(model: mujoco.MjModel, count: int) -> kernels.Starts:
    starts = kernels.Starts()
    starts.qpos = wp.zeros((count, model.nq), dtype=wp.float32)
    starts.qvel = wp.zeros((count, model.nv), dtype=wp.float32)
    starts.warmstart = wp.zeros((count, model.nv), dtype=wp.float32)
    starts.xpos = wp.zeros((count, model.nbody), dtype=wp.vec3)
    starts.xquat = wp.zeros((count, model.nbody), dtype=wp.quat)
    starts.goal = wp.zeros(count, dtype=wp.vec3)
    starts.target = wp.zeros(count, dtype=wp.int32)
    starts.command = wp.zeros((count, 8), dtype=wp.float32)
    starts.noise = wp.zeros(count, dtype=wp.vec2)
    starts.delay = wp.zeros(count, dtype=wp.int32)
    return starts


def _make_seen(count: int) -> kernels.Seen:
    seen = kernels.Seen()
    seen.values = wp.zeros((count, kernels.NUM_VALUES), dtype=wp.float32)
    seen.unmet = wp.zeros(count, dtype=wp.int32)
    seen.distance = wp.zeros(count, dtype=wp.float32)
    seen.dense = wp.zeros(count, dtype=wp.float32)
    return seen
