"""Fakes of Isaac Sim's Python modules, to test the simulator where Isaac Sim can't run.

A test with them proves that the simulator
- calls only names of the chosen version, with arguments that the version accepts: every class,
  function and signature is generated from `isaac_api.json`, recorded from Isaac Sim's sources;
- calls them in an order that the sources allow;
- handles the quirks and faults that are modelled here;
- authors a correct stage, which is a real USD stage: a wrong grasp joint visibly moves the object.

It proves nothing about PhysX or RTX, which are replaced by a first-order lag and painted squares
(`tests.fake_isaac.physics`). Nor does it prove that an installation equals the recorded sources, or
that the modelled quirks are complete.

A name without a behaviour in `tests.fake_isaac.models` checks its arguments and then raises
NotImplementedError. Kit's own modules are written by hand (`tests.fake_isaac.models.by_hand`):
their sources are closed, and the arguments are those of the calls in Isaac Sim's sources.
"""

import ast
import functools
import inspect
import json
import os
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from pxr import Usd

from tests.fake_isaac.models import ASSET_ROOT, MODELS, Functions, RenderProduct, by_hand
from tests.fake_isaac.models import ProcessEnded as ProcessEnded
from tests.fake_isaac.physics import Physics, Toggle

RECORDS = json.loads(Path(__file__).with_name("isaac_api.json").read_text())["records"]
VERSIONS = ("4.5.0", "5.0.0", "5.1.0", "6.0.1")

_BEFORE_START = ("isaacsim", "isaacsim.simulation_app")
_UPDATES_TO_LOAD = 5
_WARM_UP_STEPS = 2  # which Isaac makes whenever physics starts


@dataclass
class FakeIsaac:
    """A context in which the fakes of Isaac Sim's modules can be imported.

    Attributes:
        version: One of `VERSIONS`.
        assets_root: Value of `get_assets_root_path`.
        frame_lag: Number of frames by which an image lags behind; with 0 the next shows a change.
        warmup_renders: Number of renders without an image after the first render product was made.
        toggle: What enabling a joint does.
        assets_reachable: False to behave as without a network.
        missing_extensions: Extensions that are not installed.
        disabled_extensions: Extensions whose modules can't be imported before `enable_extension`.
        black_frames: All images are black.
        never_a_frame: Cameras never have an image.
        gains_ignored: The robot has gains of 80 and 4, regardless of `set_gains`.
        reset_forgets_gains: A reset restores the gains of the first initialisation, as Isaac's
            documentation says; by its sources it restores those of the last `set_gains`.
        close_hangs: Closing the application never returns, which here raises an error.
        calls: Every call: its qualified name and the arguments passed.
        warnings: Warnings that Isaac logs for calls that it ignores.
        viewport: The application's viewport, which draws a picture of its own at each update while
            its `updates_enabled` is true.
        leaked_arguments: The part of the command line that the application passed to Kit.
    """

    version: str
    assets_root: Path
    _: KW_ONLY
    frame_lag: int = 0
    warmup_renders: int = 3
    toggle: Toggle = "holds"
    assets_reachable: bool = True
    missing_extensions: tuple[str, ...] = ()
    disabled_extensions: tuple[str, ...] = ()
    black_frames: bool = False
    never_a_frame: bool = False
    gains_ignored: bool = False
    reset_forgets_gains: bool = False
    close_hangs: bool = False

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ValueError(f"version must be one of {VERSIONS}, got {self.version!r}")
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.warnings: list[str] = []
        self.viewport = SimpleNamespace(updates_enabled=True)
        self.leaked_arguments: list[str] = []
        self.settings: dict[str, Any] = {ASSET_ROOT: str(self.assets_root)}
        self.app: Any = None
        self.world: Any = None
        self.products: list[RenderProduct] = []
        self.physics_hz, self.rendering_dt = 60, 1.0 / 60.0
        self.time, self.steps = 0.0, 0
        self.functions = Functions(self)
        self.modules = self._generate()

    def __enter__(self) -> "FakeIsaac":
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = folder = Path(self._temporary.name)
        (folder / "VERSION").write_text(f"{self.version}-rc.36+release.19112.f59b3005.gl\n")
        paths = {"ISAAC_PATH": folder, "CARB_APP_PATH": folder / "kit", "EXP_PATH": folder / "apps"}
        self._environment = {name: os.environ.get(name) for name in paths}
        os.environ.update({name: str(path) for name, path in paths.items()})
        self._on_interrupt = signal.getsignal(signal.SIGINT)
        self._install(lambda module: module in _BEFORE_START)
        return self

    def __exit__(self, *_: object) -> None:
        if self.app is not None and self.playing:
            self.physics.stop()
        for name in [n for n in sys.modules if n.split(".")[0] in ("isaacsim", "omni", "carb")]:
            del sys.modules[name]
        for name, value in self._environment.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        signal.signal(signal.SIGINT, self._on_interrupt)
        self._temporary.cleanup()

    @property
    def playing(self) -> bool:
        return self.physics.playing

    def start(self, settings: dict[str, Any]) -> None:
        """Start the application: make the modules importable, and open a stage."""
        self.settings |= settings
        absent = (*self.missing_extensions, *self.disabled_extensions)
        self._install(lambda module: not _is_part(module, absent))
        for module, contents in by_hand(self).items():
            if not _is_part(module, absent):
                self._add_module(module, contents)
        self.functions.create_new_stage()

    def enable(self, extension: str) -> bool:
        """Make an extension's modules importable, and return True, if it is installed."""
        for module, contents in by_hand(self).items():
            if _is_part(module, (extension,)) and not _is_part(module, self.missing_extensions):
                self._add_module(module, contents)
        self._install(
            lambda m: _is_part(m, (extension,)) and not _is_part(m, self.missing_extensions)
        )
        return extension not in self.missing_extensions

    def open(self, stage: Usd.Stage) -> bool:
        """Make this the current stage, which invalidates the World of the previous one."""
        if self.world is not None and self.playing:
            self.physics.stop()
        self.stage, self.world, self.products = stage, None, []
        self.physics = Physics(stage, self.toggle)
        self.loading = _UPDATES_TO_LOAD
        return True

    def update(self, simulate: bool = True) -> None:
        """Run one frame of the application: physics for one rendering period, then rendering."""
        self.loading = max(0, self.loading - 1)
        if simulate and self.playing:
            for _ in range(max(int(self.rendering_dt * self.physics_hz), 1)):
                self.advance()
        for product in self.products:
            product.expose()

    def advance(self) -> None:
        """Make one physics step."""
        self.physics.step(1.0 / self.physics_hz)
        self.time += 1.0 / self.physics_hz
        self.steps += 1

    def play(self) -> None:
        """Start physics from the contents of the stage."""
        if not self.playing:
            if "cuda" in self.world.device:
                raise NotImplementedError("the fake computes on the CPU")
            self.physics.start()
            if self.gains_ignored:
                self.physics.kp[:], self.physics.kd[:] = 80.0, 4.0
            for _ in range(_WARM_UP_STEPS):
                self.advance()
        self.update(simulate=False)

    def stop(self) -> None:
        """Stop physics, and restore the stage."""
        if self.playing:
            self.physics.stop()
            self.time, self.steps = 0.0, 0
        self.update(simulate=False)

    def new(self, name: str, **attributes: Any) -> Any:
        """Return an instance of a generated class, made without its constructor."""
        made = next(names[name] for names in self.modules.values() if name in names)
        instance = object.__new__(made)
        instance.model = MODELS[name](self, instance)
        instance.model.__dict__.update(attributes)
        return instance

    def _install(self, wanted: Callable[[str], bool]) -> None:
        for name in filter(wanted, self.modules):
            self._add_module(name, self.modules[name])

    def _add_module(self, name: str, contents: dict[str, Any]) -> None:
        parent, _, last = name.rpartition(".")
        if parent and parent not in sys.modules:
            self._add_module(parent, {})
        module = sys.modules.setdefault(name, ModuleType(name))
        module.__path__ = []  # a package, so that a missing part raises ModuleNotFoundError
        module.__dict__.update(contents)
        if parent:
            setattr(sys.modules[parent], last, module)

    def _generate(self) -> dict[str, dict[str, Any]]:
        """What each module of this version holds."""
        modules: dict[str, dict[str, Any]] = defaultdict(dict)
        bodies: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
        for module, qualname, kind, signatures in RECORDS:
            parameters = next((p for versions, p in signatures if self.version in versions), None)
            if parameters is None:
                continue
            call = self._call(qualname, kind, _signature(tuple(map(tuple, parameters))))
            owner, _, member = qualname.partition(".")
            if kind == "function":
                modules[module][owner] = call
            else:
                wrap = {"property": property, "classmethod": classmethod}.get(kind, lambda c: c)
                bodies[module, owner][member or "__init__"] = wrap(call)
        # A singleton: constructing it again returns the existing one.
        world = bodies["isaacsim.core.api", "World"]
        world["__new__"] = lambda cls, *_, **__: self.world or object.__new__(cls)
        for (module, owner), body in bodies.items():
            modules[module][owner] = type(owner, (), {**body, "__module__": module})
        modules["isaacsim"]["SimulationApp"] = modules["isaacsim.simulation_app"]["SimulationApp"]
        return modules

    def _call(self, qualname: str, kind: str, signature: inspect.Signature) -> Callable[..., Any]:
        """Return the function behind a name: it checks and logs the arguments, then behaves."""
        behave = self._behaviour(qualname, kind)

        def call(*args: Any, **kwargs: Any) -> Any:
            instance, args = (None, args) if kind == "function" else (args[0], args[1:])
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{qualname}() of Isaac Sim {self.version}: {error}") from None
            if kind != "property":
                self.calls.append((qualname, dict(bound.arguments)))
            if behave is None:
                raise NotImplementedError(f"the fake has no behaviour for {qualname}")
            bound.apply_defaults()
            return behave(instance, **bound.arguments)

        return call

    def _behaviour(self, qualname: str, kind: str) -> Callable[..., Any] | None:
        """Return the behaviour of a name, a function of the instance and the arguments by name."""
        owner, _, member = qualname.partition(".")
        model = Functions if kind == "function" else MODELS.get(owner)
        if not hasattr(model, member or owner if kind != "class" else "construct"):
            return None
        if kind == "function":
            return lambda _, **given: getattr(self.functions, owner)(**given)
        if kind == "class":
            return lambda instance, **given: self._construct(instance, owner, given)
        if kind == "classmethod":
            return lambda _, **given: getattr(model, member)(self, **given)
        if kind == "property":
            return lambda instance: getattr(instance.model, member)
        return lambda instance, **given: getattr(instance.model, member)(**given)

    def _construct(self, instance: Any, owner: str, arguments: dict[str, Any]) -> None:
        if instance is not self.world:
            instance.model = MODELS[owner](self, instance)
            instance.model.construct(**arguments)


@functools.cache
def _signature(parameters: tuple[tuple[Any, ...], ...]) -> inspect.Signature:
    def parameter(name: str, kind: str, default: str | None, required: bool) -> inspect.Parameter:
        is_bare = required or default is None
        value = inspect.Parameter.empty if is_bare else _value(str(default))
        return inspect.Parameter(name, inspect._ParameterKind[kind], default=value)

    return inspect.Signature([parameter(*each) for each in parameters])


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except ValueError:  # an expression, of which no behaviour needs the value
        return text


def _is_part(module: str, extensions: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{name}.") for name in extensions)
