"""The simulator on NVIDIA Isaac Sim: PhysX on the CPU, images by RTX.

Not run on hardware yet. docs/isaac-sim.md lists what has been checked without it. The rest is
measured when the simulator starts (which attachment holds, how many frames an image lags behind)
or by `python -m pp_collect.isaac_check`.
"""

import traceback
from typing import Any, Literal

import numpy as np

from pp_env import panda, rotation
from pp_env.config import HOME_JOINT_POS, SETTLE_TIME, PickPlaceConfig
from pp_env.randomization import RandomizationConfig, Variation
from pp_env.sim import SIMULATORS
from pp_env.sim.api import Command, InitialState, Pose, SimState
from pp_env.sim.grasp import is_grasped, tcp_position
from pp_env.sim.isaac import app as isaac_app
from pp_env.sim.isaac.app import IsaacSimError
from pp_env.sim.isaac.cameras import Cameras

Attachment = Literal["toggle", "carry"]
ATTACHMENTS: tuple[Attachment, ...] = ("toggle", "carry")  # in order of preference

_PROBE_TIME = 0.1  # s, in which a free object falls 5 cm
_PROBE_OFFSET = np.array([0.15, 0.0, 0.15])  # m from the TCP at HOME, touching nothing
_PROBE_SIDE = 0.2  # m from the table's middle: in view, and not below the hand
_MAX_DRIFT = 0.002  # m that a held object may move
_MIN_FALL = 0.01  # m that a released object must fall
_STEPS_TO_LOAD = 2000
_INTERRUPTED = (
    "the robot can't be read or moved any more: the timeline was paused or stopped, or a prim was "
    "removed while it ran, by someone else; reset first (collect.py goes on with --resume)"
)
_RENDERS_AFTER_TELEPORT = 4  # in addition to the lag: the renderer's history fades over several


class IsaacSimulator:
    """A `Simulator` on Isaac Sim 4.5, 5.x or 6.0.

    Starts the application unless a running one is passed. The scene is authored once, below
    `/World/PickPlace`. An episode begins by teleporting, because a hard reset invalidates cameras
    and gains and leaks memory.

    Args:
        config: Scene, timing, grasp mode and rendering.
        headless: False opens Isaac Sim's window.
        assets_root: Folder or address that holds `Isaac/` and `NVIDIA/`; by default
            `ISAAC_ASSETS_ROOT`, else Isaac Sim's own setting.
        streaming_port: TCP port of Isaac Sim's livestream; None for no livestream.
        attachment: How a grasped object is held; by default the first of `ATTACHMENTS` that works.
        app: A running `SimulationApp` to use.
        world: Its `World`, with physics on the CPU; it is reset once.

    Raises:
        ImportError: This Python is not Isaac Sim's.
        IsaacSimError: Something is missing or does not work; the message names the fix.
    """

    def __init__(
        self,
        config: PickPlaceConfig,
        headless: bool = True,
        assets_root: str | None = None,
        streaming_port: int | None = None,
        attachment: Attachment | None = None,
        app: Any = None,
        world: Any = None,
    ) -> None:
        if attachment not in (None, *ATTACHMENTS):
            raise ValueError(f"attachment must be one of {ATTACHMENTS}, got {attachment!r}")
        if app is not None and streaming_port is not None:
            raise ValueError("a running application sets up its own livestream: no streaming_port")
        _require_available(config.randomization)
        assets_root = isaac_app.resolve_assets_root(assets_root)
        self._config = config
        self._app = app or isaac_app.start(
            headless, config.render.size, assets_root, streaming_port
        )
        self._has_viewer = not headless or streaming_port is not None
        self._owns_world = world is None
        self._world: Any = world or self._make_world()
        self._require_world()
        # pxr comes from Kit, so it can't be imported before the application runs.
        from pp_env.sim.isaac import usd_stage

        self._stage = usd_stage
        self._robot_url = isaac_app.robot_url(assets_root)
        self._build(assets_root)
        if self._owns_world:
            usd_stage.set_deterministic(self._world.stage)
        self._wrap_prims()
        self._variation: Variation | None = None
        self._held: _HeldObject | None = None
        self._attachment: Attachment = attachment or ATTACHMENTS[0]
        self.restart()
        self._cameras = Cameras(self._app, self._world, config, usd_stage.camera_path)
        self._extra_renders = _RENDERS_AFTER_TELEPORT
        self._images: dict[str, np.ndarray] | None = None
        self._renders_per_frame = self._measure_lag()
        if attachment is None:
            self._attachment = self._choose_attachment()

    @property
    def description(self) -> dict[str, Any]:
        """Name, version and measured properties, as a dataset records them."""
        return {
            "name": "Isaac Sim",
            "version": isaac_app.version()[2],
            "robot": self._robot_url,
            "attachment": self._attachment,
            "renders_per_frame": self._renders_per_frame,
            "gains": self._gains,
        }

    def reset(self, initial: InitialState) -> SimState:
        """Set the initial state and let the object settle."""
        if not self._is_ready():
            self.restart()  # someone else stopped the timeline or removed a prim
        self._release()
        usd, stage = self._stage, self._world.stage
        usd.set_marker(stage, initial.goal_pos)
        if initial.variation != self._variation:
            usd.set_variation(stage, self._config, initial.variation or Variation())
            self._variation = initial.variation
        self._teleport_robot(initial.joint_pos, initial.gripper_pos)
        self._place_objects(initial)
        for _ in range(round(SETTLE_TIME * self._config.timing.physics_hz)):
            self._world.step(render=False)
        self._images, self._extra_renders = None, _RENDERS_AFTER_TELEPORT
        self._state = self._observe(grasped=False)
        return self._state

    def step(self, command: Command) -> SimState:
        """Advance one control period with `command` as the servos' targets.

        Raises:
            IsaacSimError: The timeline was paused or stopped, or a prim was removed.
        """
        if not self._is_ready():  # stepping would silently do nothing
            raise IsaacSimError(_INTERRUPTED)
        grasped = self._update_grasp(command)
        # The joint holds the object, so the fingers keep their position and don't fight it.
        fingers = np.full(2, command.gripper) if self._held is None else self._held.fingers
        self._apply(np.concatenate([command.arm, fingers]))
        for _ in range(self._config.timing.substeps):
            self._world.step(render=False)
            self._carry()
        self._images = None
        fingers_before = self._state.gripper_pos
        state = self._observe(grasped)
        # Over the whole period: one noisy instant must not decide that the fingers have stopped.
        moved = (state.gripper_pos - fingers_before) / self._config.timing.control_period
        self._state = state._replace(gripper_vel=moved)
        if self._has_viewer:
            self._render()
        return self._state

    def move_object(self, pose: Pose) -> SimState:
        """Put the target object, which must not be held, at rest at a pose."""
        _teleport(self._object, pose)
        self._images, self._extra_renders = None, _RENDERS_AFTER_TELEPORT
        self._state = self._observe(grasped=False)
        return self._state

    def render(self, camera: str, kind: str = "rgb") -> np.ndarray:
        """Return an image of the current state, (H, W, 3) uint8 RGB.

        Raises:
            IsaacSimError: A camera gave no image.
            ValueError: There is no such camera, or `kind` is not "rgb".
        """
        if kind != "rgb":
            raise ValueError(f"on Isaac Sim image_types must be ['rgb'], got {kind!r}")
        self._config.camera(camera)
        return self._render()[camera].copy()

    def read_gains(self) -> tuple[np.ndarray, np.ndarray]:
        """Read the servos' stiffness and damping from the engine, (9,) each, in its order."""
        stiffness, damping = self._robot.get_articulation_controller().get_gains()
        return np.array(stiffness, dtype=float).ravel(), np.array(damping, dtype=float).ravel()

    def working_attachments(self) -> list[str]:
        """Return the attachments that hold an object here. The episode must be reset afterwards."""
        configured = self._attachment
        working: list[str] = [attachment for attachment in ATTACHMENTS if self._works(attachment)]
        self._attachment = configured
        return working

    def restart(self) -> None:
        """Reset hard: read physics from the stage, and initialise handles and gains again."""
        self._held = None
        for index in range(len(self._objects)):
            self._stage.detach(self._world.stage, index)
        self._world.reset()
        for prim in (self._robot, self._hand, *self._objects):
            prim.initialize()
        found: list[str] = list(self._robot.dof_names or ())
        wanted = [*panda.ARM_JOINTS, *panda.FINGER_JOINTS]
        if sorted(found) != sorted(wanted):
            raise IsaacSimError(f"the robot should have the joints {wanted}, found {found}")
        self._dofs = np.array([found.index(name) for name in wanted])
        self._set_gains()

    def close(self) -> None:
        """Stop the simulation; the application keeps running until `pp_env.sim.shutdown_app`."""
        if self._world is None:
            return
        world, self._world = self._world, None
        self._cameras.close()  # or a shared application would go on drawing them
        world.stop()
        if self._owns_world:
            world.clear_instance()

    def _make_world(self) -> Any:
        timing = self._config.timing
        api = isaac_app.load(self._app, "isaacsim.core.api")
        if api.World.instance() is not None:
            raise IsaacSimError(
                "this process has a World already: close the environment that made it, or pass it "
                "as `world`"
            )
        isaac_app.load(self._app, "isaacsim.core.utils.stage").create_new_stage()
        return api.World(
            physics_dt=1.0 / timing.physics_hz,
            rendering_dt=timing.control_period,
            stage_units_in_meters=1.0,
            backend="numpy",
            device="cpu",
        )

    def _require_world(self) -> None:
        wanted, found = 1.0 / self._config.timing.physics_hz, self._world.get_physics_dt()
        if abs(found - wanted) > 1e-6:
            raise IsaacSimError(
                f"the World must step physics by 1/{self._config.timing.physics_hz} s, found "
                f"{found:.6f} s; make it with World(physics_dt={wanted!r}, "
                f"rendering_dt={self._config.timing.control_period!r})"
            )
        if "cuda" in str(self._world.device):
            raise IsaacSimError(
                f"physics must run on the CPU, found {self._world.device!r}: on the GPU, poses in "
                "USD go stale; make the World with device='cpu'"
            )

    def _build(self, assets_root: str | None) -> None:
        assets = [obj.asset for obj in self._config.object_pool]
        urls = [a and isaac_app.asset_url(assets_root, f"/{a}") for a in assets]
        self._stage.build(self._world.stage, self._config, self._robot_url, urls)
        is_loading = isaac_app.load(self._app, "isaacsim.core.utils.stage").is_stage_loading
        for _ in range(_STEPS_TO_LOAD):
            if not is_loading():
                break
            self._app.update()

    def _wrap_prims(self) -> None:
        """Wrap the scene's prims, before physics starts, because that rewrites transforms."""
        prims = isaac_app.load(self._app, "isaacsim.core.prims")
        usd = self._stage
        self._robot = prims.SingleArticulation(prim_path=usd.ROBOT, name="franka")
        self._hand = prims.SingleRigidPrim(prim_path=usd.HAND, name="franka_hand")
        self._objects = [
            prims.SingleRigidPrim(prim_path=usd.numbered(usd.OBJECT, i), name=f"object_{i}")
            for i in range(len(self._config.object_pool))
        ]
        self._target = 0

    def _is_ready(self) -> bool:
        """Return True if physics runs and the robot can be read.

        Isaac drops its view of the robot when any prim is removed. Asking for it then raises.
        """
        try:
            return bool(self._world.is_playing() and self._robot.handles_initialized)
        except AttributeError:
            return False

    def _set_gains(self) -> None:
        servo, controller = self._config.servo, self._robot.get_articulation_controller()
        stiffness = _in_order(self._dofs, servo.arm_stiffness, servo.finger_stiffness)
        damping = _in_order(self._dofs, servo.arm_damping, servo.finger_damping)
        effort = _in_order(self._dofs, panda.JOINT_TORQUE_LIMIT, servo.finger_force)
        before = self.read_gains()
        controller.set_gains(kps=stiffness, kds=damping)
        controller.set_max_efforts(effort)
        self._robot.disable_gravity()  # as in the real controller: the servos carry no weight
        self._gains = {
            "joints": list(self._robot.dof_names),
            "stiffness": stiffness.tolist(),
            "damping": damping.tolist(),
            "stiffness_of_asset": before[0].tolist(),
            "damping_of_asset": before[1].tolist(),
        }

    def _apply(self, targets: np.ndarray) -> None:
        types = isaac_app.load(self._app, "isaacsim.core.utils.types")
        self._robot.apply_action(
            types.ArticulationAction(joint_positions=targets, joint_indices=self._dofs)
        )

    def _teleport_robot(self, joint_pos: np.ndarray, gripper_pos: float) -> None:
        positions = np.concatenate([joint_pos, np.full(2, gripper_pos)])
        self._robot.set_joint_positions(positions, joint_indices=self._dofs)
        self._robot.set_joint_velocities(np.zeros(9), joint_indices=self._dofs)
        self._apply(positions)

    @property
    def _object(self) -> Any:
        """The target object's prim."""
        return self._objects[self._target]

    def _place_objects(self, initial: InitialState) -> None:
        """Place the objects of the episode on the table, and park the rest of the pool."""
        self._target = initial.target
        usd, stage, present = self._stage, self._world.stage, {p.pool_index for p in initial.placed}
        for index, prim in enumerate(self._objects):
            usd.set_visible(stage, index in present, index)
            if index not in present:
                _teleport(
                    prim, Pose(usd.parked_position(index, self._config), rotation.about_z(0.0))
                )
        for index, pose, rgb in initial.placed:
            usd.set_object_rgb(stage, rgb, index)
            _teleport(self._objects[index], pose)

    def _observe(self, grasped: bool) -> SimState:
        try:
            positions = self._robot.get_joint_positions()
            velocities = self._robot.get_joint_velocities()
        except AttributeError as error:
            raise IsaacSimError(f"{_INTERRUPTED} ({error})") from error
        if positions is None or velocities is None:
            raise IsaacSimError(_INTERRUPTED)
        if not np.isfinite(positions).all():
            raise IsaacSimError(f"the robot's joints are at {positions}: physics has diverged")
        positions = np.asarray(positions, dtype=np.float64)[self._dofs]
        velocities = np.asarray(velocities, dtype=np.float64)[self._dofs]
        return SimState(
            joint_pos=positions[:7],
            joint_vel=velocities[:7],
            gripper_pos=positions[7:],
            gripper_vel=velocities[7:],
            eef=_pose(self._hand),
            object=_pose(self._object),
            object_vel=np.array(self._object.get_linear_velocity(), dtype=np.float64),
            is_grasped=grasped,
        )

    def _update_grasp(self, command: Command) -> bool:
        config, state = self._config, self._state
        obj = config.object_pool[self._target]
        grasped = is_grasped(state, command, config.grasp, obj)
        if config.grasp.mode == "fixed_joint" and grasped != state.is_grasped:
            self._hold(state) if grasped else self._release()
        return grasped

    def _hold(self, state: SimState) -> None:
        """Attach the object at its current pose, so that nothing moves."""
        self._held = _HeldObject(state)
        if self._attachment == "toggle":
            self._stage.attach(self._world.stage, state.eef, state.object, self._target)

    def _release(self) -> None:
        if self._held is None:
            return
        self._held = None
        if self._attachment == "toggle":
            self._stage.detach(self._world.stage, self._target)
        # It has the hand's velocity; setting the velocity also wakes it up if it sleeps.
        self._object.set_linear_velocity(np.zeros(3))
        self._object.set_angular_velocity(np.zeros(3))

    def _carry(self) -> None:
        if self._held is not None and self._attachment == "carry":
            _teleport(self._object, self._held.pose(_pose(self._hand)))

    def _render(self) -> dict[str, np.ndarray]:
        if self._images is None:
            self._cameras.render(self._renders_per_frame + self._extra_renders)
            self._extra_renders = 0
            self._images = self._cameras.read()
        return self._images

    def _measure_lag(self) -> int:
        """Return the number of renders until the images show that object and marker have moved.

        Raises:
            IsaacSimError: No image shows it.
        """
        x, y, top = *self._config.table.center[:2], self._config.table.top_z
        height = self._config.rest_z_of(self._config.object_pool[self._target])
        for side in (-_PROBE_SIDE, _PROBE_SIDE):
            self._teleport_robot(np.array(HOME_JOINT_POS), panda.FINGER_OPEN)
            place = np.array([x, y + side, height])
            _teleport(self._object, Pose(place, rotation.about_z(0.0)))
            self._stage.set_marker(self._world.stage, np.array([x, y + side, top]))
            self._world.step(render=False)
            if side < 0:
                self._cameras.warm_up()
        return self._cameras.measure_lag(self._config.cameras[0].name)

    def _choose_attachment(self) -> Attachment:
        """Return the first attachment that holds an object and releases it."""
        for attachment in ATTACHMENTS:
            if self._works(attachment):
                return attachment
        raise IsaacSimError(
            f"none of {ATTACHMENTS} holds the object to the hand; run "
            "'python.sh -m pp_collect.isaac_check' and report its table"
        )

    def _works(self, attachment: Attachment) -> bool:
        """Return True if the attachment holds an object and releases it; it stays selected.

        After an error physics starts anew, so that the next attachment finds it as this one did.
        """
        self._attachment = attachment
        try:
            return self._holds()
        except Exception:  # of any kind: nobody has run this, and another attachment may work
            traceback.print_exc()
            self.restart()
            return False

    def _holds(self) -> bool:
        """Return True if an object beside the hand is held, and falls when it is released."""
        self._teleport_robot(np.array(HOME_JOINT_POS), panda.FINGER_OPEN)
        self._world.step(render=False)
        before = self._observe(grasped=False)
        _teleport(self._object, Pose(tcp_position(before) + _PROBE_OFFSET, rotation.about_z(0.3)))
        steps = round(_PROBE_TIME * self._config.timing.physics_hz)
        before = self._observe(grasped=False)
        self._hold(before)
        held = self._state_after(steps)
        self._release()
        free = self._state_after(steps)
        moved = np.linalg.norm(held.object.position - before.object.position)
        fell = held.object.position[2] - free.object.position[2]
        return bool(moved < _MAX_DRIFT and fell > _MIN_FALL)

    def _state_after(self, steps: int) -> SimState:
        for _ in range(steps):
            self._world.step(render=False)
            self._carry()
        return self._observe(grasped=False)


class _HeldObject:
    """The pose of an object in the hand and the finger positions, when it was grasped."""

    def __init__(self, state: SimState) -> None:
        hand, obj = state.eef, state.object
        self.fingers = state.gripper_pos.copy()
        self._offset = rotation.unrotate(hand.quat_wxyz, obj.position - hand.position)
        self._turn = rotation.multiply(rotation.inverse(hand.quat_wxyz), obj.quat_wxyz)

    def pose(self, hand: Pose) -> Pose:
        """Return the object's pose for a pose of the hand."""
        return Pose(
            hand.position + rotation.rotate(hand.quat_wxyz, self._offset),
            rotation.multiply(hand.quat_wxyz, self._turn),
        )


def _require_available(randomization: RandomizationConfig) -> None:
    """Raise if a range is on that can't be changed while PhysX runs, as known without hardware."""
    unable = SIMULATORS["isaacsim"].not_randomized
    if missing := [name for name in randomization.active if name in unable]:
        raise IsaacSimError(
            f"randomization of {missing} is not available on Isaac Sim; use the preset 'light' "
            "(collect.py --randomize light), or leave these ranges out"
        )


def _teleport(prim: Any, pose: Pose) -> None:
    prim.set_world_pose(position=pose.position, orientation=pose.quat_wxyz)
    prim.set_linear_velocity(np.zeros(3))
    prim.set_angular_velocity(np.zeros(3))


def _pose(prim: Any) -> Pose:
    position, quat_wxyz = prim.get_world_pose()
    return Pose(np.array(position, dtype=np.float64), np.array(quat_wxyz, dtype=np.float64))


def _in_order(dofs: np.ndarray, arm: Any, finger: float) -> np.ndarray:
    """Return nine numbers, one per joint, in the robot's own joint order."""
    values = np.empty(9)
    values[dofs] = [*arm, finger, finger]
    return values
