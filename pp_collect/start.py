"""The console scripts. Each listens for Ctrl-C before it imports what it needs."""

from importlib import import_module

from pp_recorder.interrupts import leave_on_interrupt


def collect() -> int:
    """Run pp-collect; return the exit status."""
    return _run("collect")


def evaluate() -> int:
    """Run pp-evaluate; return the exit status."""
    return _run("pp_collect.evaluate")


def replay() -> int:
    """Run pp-replay; return the exit status."""
    return _run("pp_collect.replay", "replay_main")


def reproduce() -> int:
    """Run pp-reproduce; return the exit status."""
    return _run("pp_collect.replay", "reproduce_main")


def inspect() -> int:
    """Run pp-inspect; return the exit status."""
    return _run("pp_recorder.checks.cli")


def merge() -> int:
    """Run pp-merge; return the exit status."""
    return _run_in_processes("pp_recorder.dataset.merge")


def pack() -> int:
    """Run pp-pack; return the exit status."""
    return _run_in_processes("pp_recorder.dataset.packing")


def push() -> int:
    """Run pp-push; return the exit status."""
    return _run("pp_recorder.dataset.hub")


def bridge() -> int:
    """Run pp-bridge; return the exit status."""
    return _run("pp_bridge.__main__")


def _run(module: str, function: str = "main") -> int:
    leave_on_interrupt()
    return getattr(import_module(module), function)()


def _run_in_processes(module: str) -> int:
    leave_on_interrupt()
    processors = import_module("pp_env.processors")  # which the recorder does not know
    return import_module(module).main(processes=processors.usable_processors())
