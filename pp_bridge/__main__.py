"""The bridge: start, watch and stop a collection from a browser (docs/bridge.md)."""

import argparse
import logging
import sys
from pathlib import Path

import collect
from pp_bridge import logs
from pp_bridge.messages import RefusalError
from pp_bridge.service import INITIAL_STATUS, Service
from pp_bridge.settings import (
    TOKEN_VARIABLE,
    WebSettings,
    read_token,
    require_library,
    validate_ports,
    validate_token,
)
from pp_bridge.shared_state import MAX_VIEWERS, SharedState
from pp_bridge.web_process import WebProcess
from pp_collect import session as collection
from pp_env.config import PickPlaceConfig
from pp_env.sim import leave
from pp_recorder.dataset.commit import lock, unlock
from pp_recorder.dataset.video import CODECS

_LOG = logging.getLogger("bridge")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    token = read_token()
    try:
        config = collect.make_config(args)
        collect.require_fitting(args)
        require_library()
        validate_token(token, args.host)
        validate_ports(args.streaming_port)
        args.root.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    logs.set_up()
    status = 1
    try:
        status = serve(args, config, token)
    except (OSError, RuntimeError, ImportError) as error:
        _LOG.error("ended", extra={"reason": str(error)}, exc_info=error)
    except KeyboardInterrupt:
        _LOG.warning("ended at once")
        status = 130
    finally:
        leave(status)
    return status


def serve(args: argparse.Namespace, config: PickPlaceConfig, token: str | None) -> int:
    """Serves until SIGTERM or Ctrl-C; returns the exit status.

    Raises:
        OSError: The root is another service's, or the port is taken.
        RuntimeError: The simulator can't be started, or the web's process has ended.
    """
    shared_state = SharedState([camera.name for camera in config.cameras], config.render.size)
    shared_state.publish_status(INITIAL_STATUS)
    owned = lock(args.root)
    try:
        web = WebProcess(shared_state, web_settings(args, token))
        _LOG.info("listening", extra={"address": f"http://{args.host}:{web.port}"})
        try:
            env = collection.make_env(args, config)
            try:
                env.reset(seed=0)  # draws: no OpenGL, no service
                work(Service(args, config, env, shared_state, web.commands, args.root), args.resume)
            finally:
                env.close()
        finally:
            web.close()
    finally:
        unlock(args.root, owned)
    _LOG.info("ended")
    return 0


def work(service: Service, resume: bool) -> None:
    """Has the service work until a signal."""
    with collect.stop_on_signal() as stop:
        if resume:
            try:
                service.resume()
            except RefusalError as refusal:
                _LOG.error("not resumed", extra={"reason": str(refusal)})
        _LOG.info("ready")
        service.work(stop)


def web_settings(args: argparse.Namespace, token: str | None) -> WebSettings:
    """What the web's process is told."""
    return WebSettings(args.host, args.port, args.streaming_port, token, args.root)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="pp-bridge",
        description="Start, watch and stop a collection from a browser, or by HTTP.",
        epilog="Example: pp-bridge --simulator mujoco --port 8080 --root datasets",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    # What a collection may be asked for is in the request; the rest is as in collect.py.
    parser.set_defaults(**{**vars(collect.make_parser().parse_args([])), "resume": False})
    add = parser.add_argument
    add("--host", default="127.0.0.1", help=f"address; any other needs a token in {TOKEN_VARIABLE}")
    add("--port", type=int, default=8080, help="TCP port of the page and of HTTP")
    add("--root", type=Path, default=Path("datasets"), help="folder that holds all datasets")
    add(
        "--streaming-port",
        type=int,
        default=49102,
        help=f"first of {MAX_VIEWERS} UDP ports of the live view, one per viewer",
    )
    add("--resume", action="store_true", help="go on with what the last end interrupted")
    collect.add_scene_options(parser)
    add("--headless", action=argparse.BooleanOptionalAction, default=True, help="without a window")
    add("--codec", choices=sorted(CODECS), default="h264", help="video compression")
    add("--assets-root", help="folder of Isaac Sim's assets; default: ISAAC_ASSETS_ROOT")
    return parser


if __name__ == "__main__":
    sys.exit(main())
