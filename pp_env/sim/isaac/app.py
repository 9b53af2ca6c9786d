"""Isaac Sim's application: how this process starts it, finds its files and survives its end.

Nothing of Isaac Sim may be imported before the application runs, so every import is inside a
function. Not run on hardware yet: docs/isaac-sim.md says what has been checked and how.
"""

import os
import signal
import sys
import threading
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

OLDEST, NEWEST = (4, 5), (6, 0)
HOW_TO_RUN = (
    "run it with Isaac Sim's own Python, './python.sh collect.py --simulator isaacsim ...' "
    "(docs/isaac-sim.md)"
)

# By major version; both lists end with the newest that is known.
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

# So that a picture shows the state it was asked for: what Isaac's zero-delay experience sets.
_ZERO_DELAY = (
    "--/app/hydraEngine/waitIdle=true",
    "--/app/updateOrder/checkForHydraRenderComplete=1000",
    "--/app/renderer/waitIdle=true",
    "--/omni/replicator/asyncRendering=false",
)
_DLAA = 4  # smooths edges without DLSS, which would draw at a lower resolution
_SHOW_GRID_AND_UI = 3286  # what NVIDIA's livestream example displays
_CLOSE_TIMEOUT = 60.0  # s

_NVIDIA_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))

_started: Any = None  # the application that this process started: there can be only one


class IsaacSimError(RuntimeError):
    """Isaac Sim can't do what is asked; the message names the fix."""


def start(
    headless: bool,
    size: tuple[int, int],
    assets_root: str | None,
    streaming_port: int | None,
) -> Any:
    """Isaac's `SimulationApp`, started by the first call.

    Args:
        headless: Without a window.
        size: Width and height of the pictures.
        assets_root: Folder or address that holds `Isaac/` and `NVIDIA/`; None is Isaac's default.
        streaming_port: TCP port of the livestream; None is no livestream.

    Raises:
        ImportError: This Python is not Isaac Sim's.
        IsaacSimError: There is no GPU, the version is not supported, or an extension is missing.
    """
    global _started
    if _started is not None:
        return _started
    _require_main_thread()
    require_local_assets(assets_root)
    _require_gpu()
    try:
        from isaacsim import SimulationApp  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ImportError(f"Isaac Sim is not installed in this Python; {HOW_TO_RUN}") from error
    if SimulationApp is None:  # what its package makes of an error while it loads
        raise ImportError(f"Isaac Sim could not be loaded, as it says above; {HOW_TO_RUN}")
    major = version()[0]
    config = {
        "headless": headless,
        "hide_ui": headless and streaming_port is None,
        "width": size[0],
        "height": size[1],
        "anti_aliasing": _DLAA,
        "multi_gpu": False,
        "disable_viewport_updates": headless and streaming_port is None,  # 5.0 and newer
        "extra_args": [
            *_ZERO_DELAY,
            *_assets_setting(assets_root),
            *_stream_settings(major, streaming_port),
        ],
    }
    if streaming_port is not None:
        config["display_options"] = _SHOW_GRID_AND_UI
    # The application hands our command line to Kit, and takes over Ctrl-C to exit with status 0.
    argv, handlers = sys.argv, {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    sys.argv = argv[:1]
    try:
        _started = SimulationApp(config)
    finally:
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if streaming_port is not None:
        enable_extension(_started, _LIVESTREAM_EXTENSIONS[major])
    return _started


def keep_alive() -> None:
    """Lets the application, if it was started, draw and handle its events; physics stands still."""
    if _started is None:
        return
    _started.set_setting("/app/player/playSimulations", False)  # as World.render() does
    try:
        _started.update()
    finally:
        _started.set_setting("/app/player/playSimulations", True)


def shutdown_app(status: int) -> None:
    """Ends the process with `status` if it has started the application; else returns.

    The application's own end is always status 0 and may hang, so a failure does not wait for it
    and a success does for no longer than a minute.
    """
    if _started is None:
        return
    if sys.exc_info()[0] not in (None, SystemExit):
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    if status == 0:
        watchdog = threading.Timer(_CLOSE_TIMEOUT, os._exit, (0,))
        watchdog.daemon = True
        watchdog.start()
        try:
            _started.close()
        finally:
            watchdog.cancel()  # or it would end whatever outlives an application that can't close
    os._exit(status)


def version() -> tuple[int, int, str]:
    """Isaac Sim's major and minor version, and its whole text.

    Raises:
        IsaacSimError: It is unknown or not supported.
    """
    file = Path(os.environ.get("ISAAC_PATH", "")) / "VERSION"
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
            f"Isaac Sim {text} is not supported: 4.5, 5.x and 6.0 are; the container is "
            "nvcr.io/nvidia/isaac-sim:4.5.0"
        )
    return major, minor, text


def load(app: Any, module: str) -> ModuleType:
    """A module of Isaac Sim, with its extension switched on if need be.

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
    """Switches an extension on.

    Raises:
        IsaacSimError: There is no such extension.
    """
    extensions = import_module("isaacsim.core.utils.extensions")
    if not extensions.enable_extension(name):
        raise _missing_extension(name)
    app.update()


def chosen_assets_root(option: str | None) -> str | None:
    """The asset root that was given, by option or by `ISAAC_ASSETS_ROOT`; None is Isaac's own."""
    return option or os.environ.get("ISAAC_ASSETS_ROOT") or None


def asset_url(assets_root: str | None, path: str) -> str:
    """Where a file of Isaac's asset pack is.

    Raises:
        IsaacSimError: The pack can't be reached.
    """
    if assets_root is not None:
        return assets_root.rstrip("/") + path
    native = import_module("isaacsim.storage.native")
    try:
        root = native.get_assets_root_path()
    except RuntimeError as error:
        raise _unreachable_assets(str(error)) from error
    if root is None:  # what the documentation says, though all four versions raise
        raise _unreachable_assets("get_assets_root_path() gave None")
    return root + path


def robot_url(assets_root: str | None) -> str:
    """Where the Franka Panda's file is, for this version."""
    return asset_url(assets_root, _ROBOT_FILES[version()[0]])


def require_local_assets(assets_root: str | None) -> None:
    """Checks an asset root that is a folder.

    Raises:
        IsaacSimError: It is not one that holds `Isaac/`.
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


def _require_gpu() -> None:
    if not any(path.exists() for path in _NVIDIA_DRIVER):
        raise IsaacSimError(
            "Isaac Sim needs an NVIDIA RTX GPU, and no NVIDIA driver is visible "
            f"({_NVIDIA_DRIVER[0]} is missing); in a container pass it with '--gpus all' or "
            "'nvidia.com/gpu: 1'"
        )


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
