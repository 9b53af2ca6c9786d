"""The bridge: start, watch and stop a collection from a browser (docs/bridge.md)."""

import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pp_bridge import logs
from pp_bridge.options import BridgeOptions
from pp_bridge.settings import (
    WebSettings,
    read_token,
    require_library,
    validate_ports,
    validate_token,
)
from pp_bridge.shared_state import SharedState
from pp_bridge.web_process import StartError, WebProcess
from pp_collect.factory import make_config, make_env
from pp_collect.process import stop_on_signal
from pp_env.config import NAMED_CAMERAS, PickPlaceConfig
from pp_env.sim import shutdown_app
from pp_recorder.command_line import fail, parse
from pp_recorder.dataset.commit import lock, unlock
from pp_recorder.interrupts import raise_on_interrupt
from pp_recorder.output import make_folder

# Imported where it is used: without the extra [bridge], the error must name the extra.
if TYPE_CHECKING:
    from pp_bridge.service import Service

_PROG = "pp-bridge"
_LOG = logging.getLogger("bridge")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parse(
        BridgeOptions,
        argv,
        prog=_PROG,
        description="Start, watch and stop a collection from a browser, or by HTTP.",
        example="pp-bridge --simulator mujoco --port 8080 --root datasets",
    )
    token = read_token()
    try:
        config = make_config(options)
        require_library()
        validate_token(token, options.host)
        validate_ports(options.streaming_port)
        make_folder(options.root, "--root")
    except (ValueError, OSError, ImportError) as error:
        fail(_PROG, error)
    logs.set_up()
    status = 1
    try:
        raise_on_interrupt()
        status = serve(options, config, token)
    except (StartError, ImportError) as error:  # as of the simulator
        fail(_PROG, error)
    except (OSError, RuntimeError) as error:
        _LOG.error("ended", extra={"reason": str(error)}, exc_info=error)
    except KeyboardInterrupt:
        _LOG.warning("ended at once")
        status = 130
    finally:
        shutdown_app(status)
    return status


def serve(options: BridgeOptions, config: PickPlaceConfig, token: str | None) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit status.

    Raises:
        StartError: Another service uses the root, or the port is taken.
        RuntimeError: The simulator can't be started, or the web's process has ended.
    """
    from pp_bridge.service import INITIAL_STATUS, Service

    shared_state = SharedState([camera.name for camera in NAMED_CAMERAS], config.render.size)
    shared_state.show([camera.name for camera in config.cameras])
    shared_state.publish_status(INITIAL_STATUS)
    owned = _lock(options.root)
    try:
        web = WebProcess(shared_state, web_settings(options, token))
        _LOG.info("listening", extra={"address": f"http://{options.host}:{web.port}"})
        try:
            with ExitStack() as at_end:
                env = make_env(options, config, cameras=True)
                at_end.callback(env.close)
                env.reset(seed=0)  # it renders, so that missing OpenGL ends the service at once
                service = Service(options, config, env, shared_state, web.commands, options.root)
                at_end.pop_all()  # the environment is the service's now
                at_end.callback(service.close)
                work(service, options.resume)
        finally:
            web.close()
    finally:
        unlock(options.root, owned)
    _LOG.info("ended")
    return 0


def _lock(root: Path) -> int:
    """Return the handle of the root's lock, which no other service has.

    Raises:
        StartError: Another one has it, or the root can't be written.
    """
    try:
        return lock(root)
    except FileExistsError:
        raise StartError(
            f"another service uses {root}; stop that one, or choose another --root"
        ) from None
    except OSError as error:
        raise StartError(f"the root {root} can't be written: {error.strerror}") from None


def work(service: "Service", resume: bool) -> None:
    """Run the service until a signal."""
    from pp_bridge.messages import RefusalError

    with stop_on_signal() as stop:
        if resume:
            try:
                service.resume()
            except RefusalError as refusal:
                _LOG.error("not resumed", extra={"reason": str(refusal)})
        _LOG.info("ready")
        service.work(stop)


def web_settings(options: BridgeOptions, token: str | None) -> WebSettings:
    """Return the settings of the web's process."""
    from pp_bridge.messages import scene_defaults

    return WebSettings(
        options.host,
        options.port,
        options.streaming_port,
        token,
        options.root,
        scene_defaults(options),
    )


if __name__ == "__main__":
    sys.exit(main())
