"""Start Isaac Sim's application in this process, find its files, and shut it down.

Nothing of Isaac Sim may be imported before the application runs, so every import is inside a
function. Not run on hardware yet: docs/isaac-sim.md lists what has been checked and how.
"""

import contextlib
import os
import signal
import sys
import threading
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pp_env.gpus import installed_gpus, usable_gpus
from pp_env.processors import usable_processors
from pp_env.sim import SIMULATORS
from pp_env.sim.isaac import machine
from pp_env.sim.isaac.machine import NEWEST, OLDEST, IsaacSimError

HOW_TO_RUN = (
    "run it with Isaac Sim's own Python, './python.sh collect.py --simulator isaacsim ...' "
    "(docs/isaac-sim.md)"
)

# By major version, up to the newest known.
_ROBOT_FILES = {
    4: "/Isaac/Robots/Franka/franka.usd",
    5: "/Isaac/Robots/FrankaRobotics/FrankaPanda/franka.usd",
    6: "/Isaac/Robots/FrankaRobotics/FrankaPanda/franka.usd",
}
_LIVESTREAM_EXTENSIONS = {
    4: "omni.kit.livestream.webrtc",
    5: "omni.services.livestream.nvcf",
    6: "omni.kit.livestream.app",
}

# Isaac's zero-delay settings, so that an image shows the current state.
_ZERO_DELAY = (
    "--/app/hydraEngine/waitIdle=true",
    "--/app/updateOrder/checkForHydraRenderComplete=1000",
    "--/app/renderer/waitIdle=true",
    "--/omni/replicator/asyncRendering=false",
)
_DLAA = 4  # smooths edges without DLSS, which would render at a lower resolution
_SHOW_GRID_AND_UI = 3286  # as in NVIDIA's livestream example
_MOST_THREADS = 32  # Isaac Sim's own limit since 5.0

_started: Any = None  # the application that this process started; a process can have one


def start(
    headless: bool,
    size: tuple[int, int],
    assets_root: str | None,
    streaming_port: int | None,
) -> Any:
    """Start Isaac's `SimulationApp` at the first call, and return it.

    Args:
        headless: Open no window.
        size: Width and height of the images.
        assets_root: Folder or address that holds `Isaac/` and `NVIDIA/`; None for Isaac's default.
        streaming_port: TCP port of the livestream; None for no livestream.

    Raises:
        ImportError: This Python is not Isaac Sim's.
        IsaacSimError: The machine can't run it, the version is not supported, or an extension is
            missing.
    """
    global _started
    if _started is not None:
        return _started
    _require_main_thread()
    require_local_assets(assets_root)
    machine.check()
    try:
        from isaacsim import SimulationApp  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ImportError(f"Isaac Sim is not installed in this Python; {HOW_TO_RUN}") from error
    if SimulationApp is None:  # the package's value after an error while loading
        raise ImportError(f"Isaac Sim could not be loaded, as it says above; {HOW_TO_RUN}")
    major = version()[0]
    config = {
        "headless": headless,
        "hide_ui": headless and streaming_port is None,
        "width": size[0],
        "height": size[1],
        "anti_aliasing": _DLAA,
        "multi_gpu": False,
        **_gpu_settings(),
        "disable_viewport_updates": headless and streaming_port is None,  # 5.0 and newer
        "limit_cpu_threads": _threads(),  # 5.0 and newer
        "extra_args": [
            *_ZERO_DELAY,
            *_threads_settings(major),
            *_assets_setting(assets_root),
            *_stream_settings(major, streaming_port),
        ],
    }
    if streaming_port is not None:
        config["display_options"] = _SHOW_GRID_AND_UI
    # The application passes the command line to Kit, and handles Ctrl-C by exiting with status 0.
    argv, handlers = sys.argv, {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    sys.argv = argv[:1]
    try:
        _started = SimulationApp(config)
        if config["disable_viewport_updates"]:
            _stop_viewport()
    finally:
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if streaming_port is not None:
        enable_extension(_started, _LIVESTREAM_EXTENSIONS[major])
    return _started


def keep_alive() -> None:
    """Let the application, if it was started, render and handle its events without physics."""
    if _started is None:
        return
    _started.set_setting("/app/player/playSimulations", False)  # like World.render()
    try:
        _started.update()
    finally:
        _started.set_setting("/app/player/playSimulations", True)


def shutdown_app(status: int) -> None:
    """Exit the process with `status`, if the application runs; return if it never started.

    The application is not closed. In 4.5 to 6.0 closing it can hang for ever, and it ends the
    process with status 0 even after a failure. Call this last: everything must have been written.
    """
    if _started is None:
        return
    if sys.exc_info()[0] not in (None, SystemExit):
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def version() -> tuple[int, int, str]:
    """Return Isaac Sim's major and minor version, and the full version text.

    Raises:
        IsaacSimError: The version is unknown or not supported.
    """
    file = machine.version_file()
    text = file.read_text().strip() if file.is_file() else ""
    try:
        major, minor = (int(part) for part in text.split("-")[0].split(".")[:2])
    except ValueError:
        raise IsaacSimError(
            f"Isaac Sim's version is unknown: expected a text like 4.5.0 in {file}, found "
            f"{text or 'no such file'!r}; {HOW_TO_RUN}"
        ) from None
    if (major, minor) < OLDEST or major > NEWEST[0]:
        raise IsaacSimError(
            f"Isaac Sim {text} is not supported: 4.5, 5.x and 6.x are; the container is "
            "nvcr.io/nvidia/isaac-sim:4.5.0"
        )
    return major, minor, text


def load(app: Any, module: str) -> ModuleType:
    """Import a module of Isaac Sim, after enabling its extension if necessary.

    Raises:
        IsaacSimError: There is no such extension.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        enable_extension(app, module)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise _missing_extension(module) from error


def enable_extension(app: Any, name: str) -> None:
    """Enable an extension.

    Raises:
        IsaacSimError: There is no such extension.
    """
    extensions = import_module("isaacsim.core.utils.extensions")
    if not extensions.enable_extension(name):
        raise _missing_extension(name)
    app.update()


def resolve_assets_root(option: str | None) -> str | None:
    """Return the asset root from the option or `ISAAC_ASSETS_ROOT`; None for Isaac's default."""
    return option or os.environ.get("ISAAC_ASSETS_ROOT") or None


def asset_url(assets_root: str | None, path: str) -> str:
    """Return the path or address of a file of Isaac's asset pack.

    Raises:
        IsaacSimError: The asset pack can't be reached.
    """
    if assets_root is not None:
        return assets_root.rstrip("/") + path
    native = import_module("isaacsim.storage.native")
    try:
        root = native.get_assets_root_path()
    except RuntimeError as error:
        raise _unreachable_assets(str(error)) from error
    if root is None:  # as documented, though all four versions raise
        raise _unreachable_assets("get_assets_root_path() gave None")
    return root + path


def robot_url(assets_root: str | None) -> str:
    """Return the path or address of the Franka Panda's file, for this version."""
    return asset_url(assets_root, _ROBOT_FILES[version()[0]])


def require_local_assets(assets_root: str | None) -> None:
    """Check an asset root that is a local folder.

    Raises:
        IsaacSimError: The folder does not hold `Isaac/`.
    """
    if assets_root is None or "://" in assets_root:
        return
    if not (Path(assets_root) / "Isaac").is_dir():
        raise IsaacSimError(
            f"the asset root {assets_root!r} must be a folder that holds Isaac/ and NVIDIA/, such "
            "as /data/Assets/Isaac/4.5; it has no Isaac/"
        )


def _require_main_thread() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise IsaacSimError(
            "Isaac Sim must be started and driven by the main thread; make the environment there "
            "and let other threads talk to it through a queue"
        )


def _gpu_settings() -> dict[str, int]:
    """Return which GPU draws and which computes, or nothing to leave that to Isaac Sim.

    The first is numbered as Vulkan does, which knows nothing of CUDA_VISIBLE_DEVICES, the second
    as CUDA does. `SIMULATORS["isaacsim"].gpu_variable` counts as CUDA.

    Raises:
        IsaacSimError: There is no such GPU.
    """
    gpus, variable = usable_gpus(), SIMULATORS["isaacsim"].gpu_variable
    chosen = os.environ.get(variable)
    if chosen is None and (gpus[:1] == (0,) or not installed_gpus()):
        return {}
    numbers = [str(number) for number in range(len(gpus))]
    if (chosen or "0") not in numbers:
        raise IsaacSimError(
            f"{variable}={chosen or 0} must be one of {', '.join(numbers) or 'none'}, a number "
            f"among the GPUs that CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')} "
            f"leaves of the {len(installed_gpus())} here; 'nvidia-smi -L' lists them"
        )
    number = int(chosen or 0)
    return {"active_gpu": gpus[number], "physics_gpu": number}


def _threads() -> int:
    """Return the number of Kit's threads: one per processor that this process may use."""
    return min(usable_processors(), _MOST_THREADS)


def _threads_settings(major: int) -> list[str]:
    """Return settings that keep 4.5 to the processors that this process may use, as 5.0 does."""
    if major >= 5:
        return []
    count = str(_threads())
    os.environ.update({"PXR_WORK_THREAD_LIMIT": count, "OPENBLAS_NUM_THREADS": count})
    return [
        f"--/plugins/carb.tasking.plugin/threadCount={count}",
        f"--/plugins/omni.tbb.globalcontrol/maxThreadCount={count}",
    ]


def _stop_viewport() -> None:
    """Stop the viewport, which nobody sees, from drawing a picture at every update, also in 4.5."""
    with contextlib.suppress(ImportError):  # an application without a viewport
        viewport = import_module("omni.kit.viewport.utility").get_active_viewport()
        if viewport is not None:
            viewport.updates_enabled = False


def _assets_setting(assets_root: str | None) -> list[str]:
    if assets_root is None:
        return []
    return [f"--/persistent/isaac/asset_root/default={assets_root.rstrip('/')}"]


def _stream_settings(major: int, port: int | None) -> list[str]:
    if port is None:
        return []
    if major >= 6:
        return [f"--/exts/{_LIVESTREAM_EXTENSIONS[6]}/primaryStream/signalPort={port}"]
    return ["--/app/window/drawMouse=true", f"--/app/livestream/port={port}"]


def _missing_extension(name: str) -> IsaacSimError:
    return IsaacSimError(
        f"Isaac Sim has no extension {name!r}; start it with the standard experience "
        "(isaacsim.exp.base.python.kit) of a complete installation"
    )


def _unreachable_assets(reason: str) -> IsaacSimError:
    return IsaacSimError(
        f"Isaac Sim's assets can't be reached ({reason}); download the asset pack and give its "
        "folder, which holds Isaac/ and NVIDIA/, with --assets-root or ISAAC_ASSETS_ROOT"
    )
