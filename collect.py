"""Collect expert demonstrations as a LeRobot dataset; the composition root, never imported."""

if __name__ == "__main__":
    from pp_recorder import interrupts

    interrupts.leave_on_interrupt()  # before the imports below, which take long

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pp_collect.factory import Expert, make_config, make_expert, require_policies
from pp_collect.options import CollectOptions
from pp_collect.process import StopRequest, restart_process, stop_on_signal
from pp_collect.runs import (
    finish_complete,
    format_report,
    require_writable,
    resolve_workers,
    run_local,
    run_parallel,
)
from pp_collect.session import CollectionError
from pp_env.config import PickPlaceConfig
from pp_env.sim import shutdown_app
from pp_recorder.command_line import fail, parse
from pp_recorder.interrupts import interrupted, raise_on_interrupt
from pp_recorder.output import describe_error, outlive_readers
from pp_recorder.rollout import EpisodeSink
from pp_recorder.sinks import setup_logging
from pp_recorder.status import StatusFile

_CONSOLE_SCRIPT = "pp-collect"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    prog = _CONSOLE_SCRIPT if Path(sys.argv[0]).name == _CONSOLE_SCRIPT else "collect.py"
    outlive_readers(full_disks=True)
    options = parse(
        CollectOptions,
        argv,
        prog=prog,
        description="Collect expert demonstrations as a LeRobot v3.0 dataset.",
        example=f"{prog} --num-episodes 50 --output datasets/pick_place --seed 12345",
    )
    setup_logging()
    words = sys.orig_argv[1:] if argv is None else ["-m", "collect", *argv]
    try:
        raise_on_interrupt()
        config = make_config(options)
        expert = make_expert(options, config)
        require_policies(options, config, options.record_cameras, options.render_after)
        options = resolve_workers(options)
        require_extras(options)
        require_writable(options)
    except (ValueError, OSError, ImportError) as error:
        fail(prog, error)
    except KeyboardInterrupt:
        return interrupted("nothing was begun")
    status = 1
    try:
        status = run(options, config, expert, words)
    finally:
        shutdown_app(status)
    return status


def require_extras(options: CollectOptions) -> None:
    """Check what the options need beyond the core.

    Raises:
        ValueError: The address of the page, or the repository's name, is not one that it can have.
        ImportError: An extra is not installed.
        OSError: The Hub does not accept the token.
    """
    if options.streams_page:
        from pp_bridge.live_view import require_live_view

        require_live_view(options.streaming_host, options.streaming_port)
    if options.push_to_hub is not None:
        from pp_recorder.dataset import hub

        hub.require_ready(options.push_to_hub)


def run(
    options: CollectOptions,
    config: PickPlaceConfig,
    expert: Expert,
    words: Sequence[str],
) -> int:
    """Collect, and report in words and in the status file; return the exit status."""
    from pp_recorder.dataset.reader import DatasetError

    file = StatusFile(options.status_file, output=str(options.output), wanted=options.num_episodes)
    with stop_on_signal() as stop:
        file.update(state="starting")
        status, state, error_text = 1, "failed", None
        try:
            status = collect(options, config, expert, words, stop, file)
            state = "complete" if status == 0 else "stopped"
        except (CollectionError, DatasetError, RuntimeError, ImportError, OSError) as error:
            error_text = describe_error(
                error,
                "the episode in hand was dropped, and what was finished is intact in "
                f"{options.output}; once there is room, --resume goes on",
            )
            print(f"error: {error_text}", file=sys.stderr)
        except KeyboardInterrupt:
            state = "stopped"
            status = interrupted("what was finished is intact; --resume goes on")
        except BaseException as error:
            error_text = f"{type(error).__name__}: {error}"
            raise
        finally:  # whatever happens, or a supervisor would wait for a run that has ended
            file.update(state=state, exit_status=status, error=error_text)
    return status


def collect(
    options: CollectOptions,
    config: PickPlaceConfig,
    expert: Expert,
    words: Sequence[str],
    stop: StopRequest,
    file: StatusFile,
) -> int:
    """Collect and report; return the exit status."""
    begin = time.perf_counter()
    monitor = finish_complete(options, config, expert, file)
    is_local = options.workers == 1 and options.ray_address is None and not options.steps_together
    if monitor is None and is_local:
        make_watchers = partial(live_view, options, config)
        monitor = run_local(options, config, expert, stop, file, make_watchers)
    elif monitor is None:
        monitor = run_parallel(options, config, expert, stop, file)
    if monitor.restart and not stop.requested:
        file.update(state="restarting")
        restart_process(words)
    writer = monitor.writer
    print(format_report(monitor, time.perf_counter() - begin))
    if options.push_to_hub is not None and not stop.requested:
        from pp_recorder.dataset import hub

        print(f"uploaded   {hub.push(writer.root, options.push_to_hub)}")
    if stop.requested:
        print(
            f"stopped: the episode in hand was dropped; {writer.location} is a valid dataset of "
            f"{writer.num_episodes} of the {options.num_episodes} episodes; --resume goes on"
        )
        return 130
    return 0


def live_view(options: CollectOptions, config: PickPlaceConfig) -> list[EpisodeSink]:
    """Return what shows the cameras to browsers, if the options ask for it."""
    if not options.streams_page:
        return []
    from pp_bridge.live_view import LiveView  # needs the extra [bridge]

    view = LiveView(options.streaming_host, options.streaming_port, config)
    print(f"live view: {view.address}", file=sys.stderr)
    return [view]


if __name__ == "__main__":
    sys.exit(main())
