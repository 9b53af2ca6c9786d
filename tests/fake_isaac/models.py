"""The behaviour of the classes and functions of `tests.fake_isaac.FakeIsaac`.

A model has members of the Isaac Sim class that it imitates, with the recorded argument names;
`construct` is the constructor. Members that a model lacks have no behaviour. An argument that only
some versions have has a default here.
"""

import json
import math
import signal
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics

from tests.fake_isaac import physics as world

ASSET_ROOT = "/persistent/isaac/asset_root/default"
_RATE = "/app/runLoops/main/rateLimitFrequency"


class ProcessEnded(BaseException):  # noqa: N818
    """Raised by `SimulationApp.close` in place of ending the process with the status."""


class Model:
    """The behaviour of one object; `public` is the object that the user of Isaac Sim holds."""

    def __init__(self, sim: Any, public: Any) -> None:
        self.sim, self.public = sim, public


class SimulationApp(Model):
    def construct(self, launch_config: dict[str, Any] | None, experience: str) -> None:
        if self.sim.app is not None:
            raise RuntimeError("a process has one SimulationApp, which can't be started again")
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))  # fails outside the main thread
        if {"-h", "--help"} & set(sys.argv[1:]):
            sys.exit()
        self.sim.leaked_arguments = sys.argv[1:]
        defaults = {"fast_shutdown": True, "extra_args": [], "experience": experience}
        self.config, self.exiting = defaults | (launch_config or {}), False
        self.sim.app = self.public
        parts = (text.removeprefix("--").partition("=") for text in self.config["extra_args"])
        self.sim.start({path: _parsed(value) for path, _, value in parts})
        if self.sim.version >= "5":  # 4.5 has no such key
            is_off = self.config.get("disable_viewport_updates", False) and self.config["headless"]
            self.sim.viewport.updates_enabled = not is_off

    def update(self) -> None:
        self.sim.update()

    def set_setting(self, setting: str, value: Any) -> None:
        if not isinstance(value, str | bool | int | float):
            raise TypeError(f"Value of type {type(value)} is not supported.")
        self.sim.settings[setting] = value

    def is_running(self) -> bool:
        return not self.exiting

    def is_exiting(self) -> bool:
        return self.exiting

    def close(self, exit_code: int = 0, **_: bool) -> None:
        if self.sim.close_hangs:
            raise AssertionError("the process hangs here, holding the interpreter's lock")
        if not self.exiting:
            self.exiting = True
            if self.config["fast_shutdown"]:
                raise ProcessEnded(exit_code)


class World(Model):
    scene: Any = None
    backend, device = "numpy", "cpu"  # on the GPU the fake has no physics

    def construct(
        self, physics_dt: float | None, rendering_dt: float | None,
        stage_units_in_meters: float | None, physics_prim_path: str, sim_params: dict | None,
        set_defaults: bool, backend: str, device: str | None,
    ) -> None:  # fmt: skip
        if sim_params is not None or not set_defaults:
            raise NotImplementedError("the fake's World has Isaac's default settings")
        if backend != "numpy":
            raise NotImplementedError("the fake computes with numpy")
        self.device = device or "cpu"
        UsdGeom.SetStageUpAxis(self.stage, UsdGeom.Tokens.z)
        UsdGeom.SetStageMetersPerUnit(self.stage, stage_units_in_meters or 1.0)
        found = [p.GetPath() for p in self.stage.Traverse() if p.IsA(UsdPhysics.Scene)]
        scene = UsdPhysics.Scene.Define(self.stage, found[0] if found else physics_prim_path)
        self.context = self.sim.new("PhysicsContext", scene=scene)
        self.context.model.set_gravity(-9.81)
        self.scene = self.sim.new("Scene", objects={})
        self.sim.world = self.public
        self.render()
        self.set_simulation_dt(physics_dt or 1.0 / 60.0, rendering_dt or 1.0 / 60.0)

    @staticmethod
    def instance(sim: Any) -> Any:
        return sim.world

    @staticmethod
    def clear_instance(sim: Any) -> None:
        sim.world = None

    @property
    def stage(self) -> Usd.Stage:
        return self.sim.stage

    @property
    def current_time(self) -> float:
        return self.sim.time

    @property
    def current_time_step_index(self) -> int:
        return self.sim.steps

    def set_simulation_dt(self, physics_dt: float | None, rendering_dt: float | None) -> None:
        self.sim.physics_hz = int(1.0 / physics_dt) if physics_dt else self.sim.physics_hz
        self.sim.rendering_dt = rendering_dt or self.sim.rendering_dt
        if self.sim.version < "5":  # later versions tell only the loop runner
            self.sim.settings[_RATE] = 1.0 / self.sim.rendering_dt

    def get_physics_dt(self) -> float:
        return 1.0 / self.sim.physics_hz

    def get_rendering_dt(self) -> float:
        return self.sim.rendering_dt

    def get_physics_context(self) -> Any:
        return self.context

    def play(self) -> None:
        self.sim.play()

    def stop(self) -> None:
        self.sim.stop()

    def is_playing(self) -> bool:
        return self.sim.playing

    def is_stopped(self) -> bool:
        return not self.sim.playing

    def reset(self, soft: bool) -> None:
        if not soft:
            self.stop()
            self.play()
        things = list(self.scene.model.objects.values())
        for kind in (SingleXFormPrim, SingleArticulation, SingleRigidPrim):
            for thing in [thing for thing in things if type(thing.model) is kind]:
                thing.initialize()
        for thing in things:
            thing.post_reset()

    def step(self, render: bool, step_sim: bool, update_fabric: bool = False) -> None:
        if step_sim and render:
            self.sim.update()
        elif step_sim and self.sim.playing:
            self.sim.advance()

    def render(self) -> None:
        self.sim.update(simulate=False)


class Scene(Model):
    objects: dict[str, Any]

    def add(self, obj: Any) -> Any:
        if obj.name in self.objects:
            raise Exception(f"Cannot add the object {obj.name} since its name is not unique")
        if not isinstance(obj.model, _Wrapper):
            raise Exception("object type is not supported yet")
        self.objects[obj.name] = obj
        return obj

    def get_object(self, name: str) -> Any:
        return self.objects.get(name)

    def object_exists(self, name: str) -> bool:
        return name in self.objects


class PhysicsContext(Model):
    """The physics settings; tuning them has no effect but is logged as calls."""

    scene: UsdPhysics.Scene

    @property
    def prim_path(self) -> str:
        return str(self.scene.GetPath())

    def set_gravity(self, value: float) -> None:
        self.scene.CreateGravityDirectionAttr(Gf.Vec3f(0.0, 0.0, math.copysign(1.0, value)))
        self.scene.CreateGravityMagnitudeAttr(abs(value))

    def get_physics_dt(self) -> float:
        return 1.0 / self.sim.physics_hz

    def enable_gpu_dynamics(self, flag: bool) -> None:
        if flag:
            raise NotImplementedError("the fake computes on the CPU")

    def _tune(self, **_: Any) -> None:
        """Do nothing."""

    enable_ccd = enable_stablization = set_solver_type = set_broadphase_type = _tune
    set_bounce_threshold = set_friction_offset_threshold = set_friction_correlation_distance = _tune


class _Wrapper(Model):
    prim: Usd.Prim = None
    name: str = ""

    def wrap(self, prim: Usd.Prim, path: str, name: str, replaces_ops: bool = True) -> None:
        if not prim:
            raise Exception(
                f"Prim path expression {[path]} is invalid, a prim matching the expression needs "
                "to created before wrapping it as view"
            )
        parents = [self.sim.stage.GetPrimAtPath(p) for p in prim.GetPath().GetPrefixes()[:-1]]
        is_in_robot = any(p.HasAPI(UsdPhysics.ArticulationRootAPI) for p in parents)
        self.is_link = is_in_robot and prim.HasAPI(UsdPhysics.RigidBodyAPI)
        self.prim, self.name = prim, name
        if replaces_ops and not self.is_link:  # as for every wrapped prim
            world.replace_ops(prim)

    @property
    def prim_path(self) -> str:
        return str(self.prim.GetPath())


class SingleXFormPrim(_Wrapper):
    """A wrapped prim, whose pose is the one on the stage."""

    def construct(
        self, prim_path: str, name: str, position: Any, orientation: Any,
        reset_xform_properties: bool = True, **others: Any,
    ) -> None:  # fmt: skip
        _refuse(others)
        self.wrap(self.sim.stage.GetPrimAtPath(prim_path), prim_path, name, reset_xform_properties)
        if position is not None or orientation is not None:
            SingleXFormPrim.set_world_pose(self, position, orientation)
        self.default_pose = SingleXFormPrim.get_world_pose(self)

    def is_valid(self) -> bool:
        return self.prim.IsValid()

    def initialize(self, physics_sim_view: Any) -> None:
        """Do nothing."""

    def get_world_pose(self) -> tuple[np.ndarray, np.ndarray]:
        return world.pose(world.world_matrix(self.prim))

    def set_world_pose(self, position: Any, orientation: Any) -> None:
        new = _changed(world.world_matrix(self.prim), position, orientation)
        world.write_world(self.prim, new)

    def post_reset(self) -> None:
        if not self.is_link:
            self.set_world_pose(*self.default_pose)


class _PhysicsPrim(SingleXFormPrim):
    """A prim with handles to physics, which become invalid when that run of physics ends."""

    epoch: int | None = None

    def construct(self, **arguments: Any) -> None:
        super().construct(**arguments)
        if self.sim.playing:
            self.take_handles()

    def initialize(self, physics_sim_view: Any) -> None:
        if not self.sim.playing:
            raise AttributeError("'NoneType' object has no attribute 'create_rigid_body_view'")
        self.take_handles()

    def take_handles(self) -> None:
        self.epoch = self.sim.physics.epoch

    @property
    def has_handles(self) -> bool:
        return self.sim.playing and self.epoch == self.sim.physics.epoch


class SingleRigidPrim(_PhysicsPrim):
    @property
    def body(self) -> world.Body:
        if self.is_link or not self.has_handles:
            raise NotImplementedError("the fake moves free bodies only, while playing")
        return self.sim.physics.bodies[self.prim.GetPath()]

    def get_world_pose(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.has_handles:
            return super().get_world_pose()
        return world.pose(self.sim.physics.matrix_of(self.prim.GetPath()))

    def set_world_pose(self, position: Any, orientation: Any) -> None:
        if self.has_handles:
            self.body.matrix = _changed(self.body.matrix, position, orientation)
        else:
            super().set_world_pose(position, orientation)

    def get_linear_velocity(self) -> np.ndarray:
        return self.body.linear.astype(np.float32)

    def set_linear_velocity(self, velocity: np.ndarray) -> None:
        self.body.linear = np.array(velocity, np.float32).astype(float)

    def get_angular_velocity(self) -> np.ndarray:
        return self.body.angular.astype(np.float32)

    def set_angular_velocity(self, velocity: np.ndarray) -> None:
        self.body.angular = np.array(velocity, np.float32).astype(float)

    def get_mass(self) -> np.float32:
        return np.float32(UsdPhysics.MassAPI(self.prim).GetMassAttr().Get() or 0.0)

    def post_reset(self) -> None:
        super().post_reset()
        if not self.is_link:
            self.body.linear, self.body.angular = np.zeros(3), np.zeros(3)


class SingleArticulation(_PhysicsPrim):
    """The robot; before it has handles, most calls only log a warning."""

    is_initialized = False

    def construct(self, **arguments: Any) -> None:
        self.controller = self.sim.new("ArticulationController")
        self.default_joints = self.sim.new("JointsState")
        self.default_joints.model.construct(positions=None, velocities=None, efforts=None)
        super().construct(**arguments)

    def wrap(self, prim: Usd.Prim, path: str, name: str, replaces_ops: bool = True) -> None:
        parts = Usd.PrimRange(prim) if prim else ()
        roots = [p for p in parts if p.HasAPI(UsdPhysics.ArticulationRootAPI)]
        super().wrap(roots[0] if roots else prim, path, name, replaces_ops)

    def initialize(self, physics_sim_view: Any) -> None:
        self.controller.model.robot = self
        super().initialize(physics_sim_view)

    def take_handles(self) -> None:
        super().take_handles()
        if self.is_initialized:
            return
        self.is_initialized, state = True, self.default_joints
        self.default_gains = self.physics.kp.copy(), self.physics.kd.copy()
        if state.positions is None:  # the first targets, not the first positions
            state.positions = self.physics.targets.astype(np.float32)
        if state.velocities is None:
            state.velocities = 0.0 * state.positions

    @property
    def physics(self) -> world.Physics:
        return self.sim.physics

    @property
    def is_ready(self) -> bool:
        if self.is_initialized and self.has_handles and self.has_view():
            return True
        self.sim.warnings.append(f"{self.name} needs to be initialized")
        return False

    @property
    def handles_initialized(self) -> bool:
        return self.has_handles and self.has_view() and self.controller.model.robot is not None

    def has_view(self) -> bool:
        """Fail, as in Isaac, if a prim was deleted since the last hard reset."""
        if not self.physics.has_view:
            raise AttributeError("'Articulation' object has no attribute '_physics_view'")
        return True

    @property
    def dof_names(self) -> list[str] | None:
        return list(self.physics.dof_names) if self.is_initialized else None

    @property
    def num_dof(self) -> int | None:
        return len(self.physics.dof_names) if self.is_initialized else None

    def get_dof_index(self, dof_name: str) -> int | None:
        return self.physics.dof_names.index(dof_name) if self.is_initialized else None

    def read(self, values: str, indices: Any = None) -> np.ndarray | None:
        if not self.is_ready:
            return None
        found = getattr(self.physics, values).astype(np.float32)
        return found if indices is None else found[np.asarray(indices)]

    def write(self, names: str, values: Any, indices: Any = None) -> None:
        if self.is_ready:
            where = slice(None) if indices is None else np.asarray(indices)
            for name in names.split():
                getattr(self.physics, name)[where] = np.asarray(values).astype(np.float32)

    def get_joint_positions(self, joint_indices: Any) -> np.ndarray | None:
        return self.read("q", joint_indices)

    def get_joint_velocities(self, joint_indices: Any) -> np.ndarray | None:
        return self.read("qd", joint_indices)

    def set_joint_positions(self, positions: Any, joint_indices: Any = None) -> None:
        self.write("q targets", positions, joint_indices)

    def set_joint_velocities(self, velocities: Any, joint_indices: Any = None) -> None:
        self.write("qd", velocities, joint_indices)

    def set_joints_default_state(self, **state: Any) -> None:
        given = {key: value for key, value in state.items() if value is not None}
        vars(self.default_joints).update(given)

    def get_joints_default_state(self) -> Any:
        return self.default_joints

    def get_articulation_controller(self) -> Any:
        return self.controller

    def apply_action(self, control_actions: Any) -> None:
        self.controller.model.apply_action(control_actions)

    def disable_gravity(self) -> None:
        self.physics.gravity_on_robot = self.physics.gravity_on_robot and not self.is_ready

    def enable_gravity(self) -> None:
        self.physics.gravity_on_robot = self.physics.gravity_on_robot or self.is_ready

    def set_solver_position_iteration_count(self, count: int) -> None:
        self._author("solverPositionIterationCount", Sdf.ValueTypeNames.Int, count)

    def set_solver_velocity_iteration_count(self, count: int) -> None:
        self._author("solverVelocityIterationCount", Sdf.ValueTypeNames.Int, count)

    def set_enabled_self_collisions(self, flag: bool) -> None:
        self._author("enabledSelfCollisions", Sdf.ValueTypeNames.Bool, flag)

    def _author(self, name: str, kind: Sdf.ValueTypeName, value: int) -> None:
        """Fail, as in Isaac, if the robot's file does not apply PhysX's schema."""
        schemas = self.prim.GetMetadata("apiSchemas")
        if schemas and "PhysxArticulationAPI" in schemas.GetAddedOrExplicitItems():
            self.prim.CreateAttribute(f"physxArticulation:{name}", kind)
        self.prim.GetAttribute(f"physxArticulation:{name}").Set(value)

    def post_reset(self) -> None:
        """Restore joints and gains, but neither the maximum efforts nor `disable_gravity`."""
        self.set_joint_positions(self.default_joints.positions)
        self.set_joint_velocities(self.default_joints.velocities)
        self.physics.kp, self.physics.kd = (gain.copy() for gain in self.default_gains)


class ArticulationController(Model):
    robot: SingleArticulation | None = None  # until the articulation's `initialize`

    def apply_action(self, control_actions: Any) -> None:
        if self.robot is None or not self.robot.is_ready:
            raise AttributeError("'NoneType' object has no attribute 'joint_positions'")
        action, where = control_actions, control_actions.joint_indices
        if action.joint_velocities is not None or action.joint_efforts is not None:
            raise NotImplementedError("the fake has position targets only")
        new = np.asarray(action.joint_positions).astype(np.float32)  # None becomes NaN
        self.robot.write(
            "targets", np.where(np.isnan(new), self.robot.read("targets", where), new), where
        )

    def set_gains(self, kps: Any, kds: Any, save_to_usd: bool) -> None:
        if save_to_usd:
            raise NotImplementedError("the fake does not write gains to the stage")
        for name, values in (("kp", kps), ("kd", kds)):
            if values is not None and not self.sim.gains_ignored:
                self.robot.write(name, values)
        if self.robot.is_ready and not self.sim.reset_forgets_gains:
            self.robot.default_gains = self.sim.physics.kp.copy(), self.sim.physics.kd.copy()

    def get_gains(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.robot.is_ready:
            raise TypeError("cannot unpack non-iterable NoneType object")
        return self.robot.read("kp"), self.robot.read("kd")

    def set_max_efforts(self, values: Any, joint_indices: Any) -> None:
        self.robot.write("effort", values, joint_indices)

    def get_max_efforts(self) -> np.ndarray | None:
        return self.robot.read("effort")


class Values(Model):
    """A plain bundle of values."""

    def construct(self, **values: Any) -> None:
        vars(self.public).update(values)


class RenderProduct:
    """A picture that the renderer draws of a camera at each frame, until it is destroyed."""

    def __init__(self, sim: Any, camera: Any, resolution: tuple[int, int]) -> None:
        self.sim, self.size = sim, tuple(resolution)
        self.prim = sim.stage.GetPrimAtPath(str(camera))
        if not self.prim or self.prim.GetTypeName() != "Camera":
            raise ValueError(f"{camera} is no camera")
        self.path = f"/Render/OmniverseKit/HydraTextures/Replicator_{len(sim.products)}"
        self.views: deque[world.View] = deque(maxlen=sim.frame_lag + 1)
        self.renders = 0
        self.seen: tuple[int, int] | None = None  # physics as of the last frame
        sim.products.append(self)

    def expose(self) -> None:
        """Record what is in view; `image` renders it."""
        physics = self.sim.physics
        seen = (physics.epoch, physics.changes) if physics.playing else None
        if seen is None or seen != self.seen:
            self.views.append(world.look(self.prim, self.size, physics.visible))
        else:  # nothing has moved
            self.views.append(self.views[-1])
        self.seen = seen
        self.renders += 1

    def image(self) -> np.ndarray:
        """Return (H, W, 4) uint8; before the first frame an empty array."""
        sim = self.sim
        if sim.never_a_frame or self.renders <= max(sim.warmup_renders, sim.frame_lag):
            return np.zeros(0, np.uint8)
        image = world.render(self.views[0])
        return 0 * image if sim.black_frames else image

    def destroy(self) -> None:
        self.sim.products.remove(self)


class Annotator:
    """The colours of a render product."""

    product: RenderProduct | None = None

    def __init__(self, sim: Any, name: str) -> None:
        if name != "rgb":
            raise NotImplementedError(f"the fake has no annotator {name!r}")
        self.sim = sim

    def attach(self, render_products: Sequence[str]) -> None:
        (path,) = render_products
        self.product = next(product for product in self.sim.products if product.path == path)

    def detach(self) -> None:
        self.product = None

    def get_data(self) -> np.ndarray:
        if self.product is None:
            raise RuntimeError("the annotator is not attached")
        return self.product.image()


def by_hand(sim: Any) -> dict[str, dict[str, Any]]:
    """Return what Kit's own modules hold, as far as it is imitated."""
    settings = SimpleNamespace(get=sim.settings.get, set=sim.settings.__setitem__)

    def render_product(camera: Any, resolution: tuple[int, int]) -> RenderProduct:
        sim.calls.append(("rep.create.render_product", {"camera": str(camera)}))
        return RenderProduct(sim, camera, resolution)

    def get_annotator(name: str) -> Annotator:
        return Annotator(sim, name)

    return {
        "carb.settings": {"get_settings": lambda: settings},
        "omni.replicator.core": {
            "create": SimpleNamespace(render_product=render_product),
            "AnnotatorRegistry": SimpleNamespace(get_annotator=get_annotator),
        },
        "omni.kit.viewport.utility": {"get_active_viewport": lambda: sim.viewport},
    }


class Functions:
    """The functions of all modules."""

    def __init__(self, sim: Any) -> None:
        self.sim = sim

    def get_current_stage(self, fabric: bool = False) -> Usd.Stage:
        if fabric:
            raise NotImplementedError("the fake has no Fabric")
        return self.sim.stage

    def create_new_stage(self) -> bool:
        stage = Usd.Stage.CreateInMemory("World.usd")
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        return self.sim.open(stage)

    def open_stage(self, usd_path: str) -> bool:
        if not Usd.Stage.IsSupportedFile(usd_path):
            raise ValueError("Only USD files can be loaded with this method")
        return Path(usd_path).is_file() and self.sim.open(Usd.Stage.Open(usd_path))

    def is_stage_loading(self) -> bool:
        return self.sim.loading > 0

    def update_stage(self) -> None:
        self.sim.update()

    def add_reference_to_stage(self, usd_path: str, prim_path: str, prim_type: str) -> Usd.Prim:
        stage = self.sim.stage
        prim = stage.GetPrimAtPath(prim_path) or stage.DefinePrim(prim_path, prim_type)
        prim.GetReferences().AddReference(usd_path)  # succeeds even if there is no such file
        return prim

    def get_prim_at_path(self, prim_path: str, fabric: bool = False) -> Usd.Prim:
        return self.get_current_stage(fabric).GetPrimAtPath(prim_path)

    def is_prim_path_valid(self, prim_path: str, fabric: bool) -> bool:
        return self.get_prim_at_path(prim_path, fabric).IsValid()

    def delete_prim(self, prim_path: str) -> None:
        self.sim.stage.RemovePrim(prim_path)

    def enable_extension(self, extension_name: str) -> bool:
        return self.sim.enable(extension_name)

    def get_extension_path_from_name(self, extension_name: str) -> str:
        return str(self.sim.folder / "exts" / extension_name)

    def get_assets_root_path(self, skip_check: bool = False) -> str:
        root = self.sim.settings[ASSET_ROOT]
        is_there = all((Path(root) / folder).is_dir() for folder in ("Isaac", "NVIDIA"))
        if root == str(self.sim.assets_root):
            is_there = self.sim.assets_reachable
        if is_there or skip_check:
            return root
        raise RuntimeError(f"Could not find assets root folder: {root}")

    def is_file(self, path: str) -> bool:
        if not Path(path).exists():
            raise Exception(f"Failed to determine if {path} is a file: Result.ERROR_NOT_FOUND")
        return Path(path).is_file()

    def set_carb_setting(self, carb_settings: Any, setting: str, value: Any) -> None:
        self.sim.app.model.set_setting(setting, value)

    def get_carb_setting(self, carb_settings: Any, setting: str) -> Any:
        return self.sim.settings.get(setting)


MODELS: dict[str, type[Model]] = {
    model.__name__: model
    for model in (
        SimulationApp, World, Scene, PhysicsContext, SingleXFormPrim, SingleRigidPrim,
        SingleArticulation, ArticulationController,
    )
} | {"ArticulationAction": Values, "JointsState": Values}  # fmt: skip


def _refuse(arguments: dict[str, Any]) -> None:
    given = [name for name, value in arguments.items() if value is not None and value is not False]
    if given:
        raise NotImplementedError(f"the fake does nothing with {given}")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _changed(old: Gf.Matrix4d, position: Any, orientation: Any) -> Gf.Matrix4d:
    """Return the pose with a new position, orientation or both, in single precision."""
    news = zip(world.pose(old), (position, orientation), strict=True)
    return world.matrix(*(was if new is None else np.asarray(new, np.float32) for was, new in news))
