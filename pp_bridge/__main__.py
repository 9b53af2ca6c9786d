"""The bridge: start, watch and stop a collection from a browser (docs/bridge.md)."""

import logging
import sys
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
from pp_bridge.web_process import WebProcess
from pp_collect.factory import make_config, make_env
from pp_collect.process import stop_on_signal
from pp_env.config import PickPlaceConfig
from pp_env.sim import shutdown_app
from pp_recorder.command_line import fail, parse
from pp_recorder.dataset.commit import lock, unlock

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
        options.root.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError, ImportError) as error:
        fail(_PROG, error)
    logs.set_up()
    status = 1
    try:
        status = serve(options, config, token)
    except (OSError, RuntimeError, ImportError) as error:
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
        OSError: Another service uses the root, or the port is taken.
        RuntimeError: The simulator can't be started, or the web's process has ended.
    """
    from pp_bridge.service import INITIAL_STATUS, Service

    shared_state = SharedState([camera.name for camera in config.cameras], config.render.size)
    shared_state.publish_status(INITIAL_STATUS)
    owned = lock(options.root)
    try:
        web = WebProcess(shared_state, web_settings(options, token))
        _LOG.info("listening", extra={"address": f"http://{options.host}:{web.port}"})
        try:
            env = make_env(options, config, cameras=True)
            try:
                env.reset(seed=0)  # it renders, so that missing OpenGL ends the service at once
                work(
                    Service(options, config, env, shared_state, web.commands, options.root),
                    options.resume,
                )
            finally:
                env.close()
        finally:
            web.close()
    finally:
        unlock(options.root, owned)
    _LOG.info("ended")
    return 0


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
    return WebSettings(options.host, options.port, options.streaming_port, token, options.root)


if __name__ == "__main__":
    sys.exit(main())
