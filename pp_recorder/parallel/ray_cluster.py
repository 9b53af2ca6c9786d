"""Run episodes on a Ray cluster, which schedules them and repeats those of a lost node."""

import os
import signal
import socket
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any

from pp_recorder.parallel.processes import (
    STOP_SIGNALS,
    Died,
    Index,
    Worker,
    WorkerError,
    WorkerPool,
)

_POLL_INTERVAL = 0.2  # s between two calls of `stop`
_CONNECT_TIMEOUT = 5.0  # s
_MAX_TRIES = 4  # per episode, if its process or node is lost


class RayCluster(WorkerPool):
    """A connection to a running Ray cluster, whose nodes have this project installed.

    Args:
        address: "auto" for the one this machine belongs to, or host:port of its head.
        max_pending: Episodes submitted at once; default twice the processors of the cluster.
        gpu_share: Share of a GPU that an episode takes.
        environment: Function from the number of a process's GPU, or the process's own number if it
            has none, to environment variables.

    Raises:
        ImportError: Ray is not installed.
        WorkerError: There is no cluster at the address.
    """

    def __init__(
        self,
        address: str,
        max_pending: int | None = None,
        gpu_share: float = 0.0,
        environment: Callable[[int], dict[str, str]] = lambda number: {},
    ) -> None:
        self._ray = require_library()
        _require_listening(address)
        handlers = {s: signal.getsignal(s) for s in STOP_SIGNALS}
        try:
            self._ray.init(address=address, logging_level="ERROR", log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise WorkerError(
                f"there is no Ray cluster at {address!r} ({error}); start one with "
                "'ray start --head', or give the address that it prints"
            ) from error
        finally:
            for number, handler in handlers.items():  # Ray's would end the program at once
                signal.signal(number, handler)
        self._max_pending = max_pending
        self._resources = {"num_cpus": 1, "num_gpus": gpu_share}
        self._environment = environment

    def run_once(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return the value of a function, called on some node."""
        return self._ray.get(
            self._task(_call_with_environment).remote(self._environment, function, *args)
        )

    def run_all(
        self,
        worker_factory: Callable[[], Worker],
        indices: Iterable[Index | None],
        stop: Callable[[], bool],
    ) -> Generator[tuple[Index, Any], None, None]:
        """Run episodes on any node; see `pp_recorder.parallel.processes.run_all`."""
        task, run = self._task(_run_in_worker), uuid.uuid4().hex
        shared = self._ray.put(partial(_call_with_environment, self._environment, worker_factory))
        waiting: deque[tuple[Index, Any]] = deque()
        remaining = iter(indices)
        try:
            while not stop():
                while (
                    len(waiting) < self._capacity() and (index := next(remaining, None)) is not None
                ):
                    waiting.append((index, task.remote(run, shared, index)))
                if not waiting:
                    return
                index, reference = waiting[0]
                if self._ray.wait([reference], timeout=_POLL_INTERVAL)[0]:
                    waiting.popleft()
                    yield index, self._result(reference)
        finally:
            for _, reference in waiting:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        """Disconnect from the cluster, which runs on."""
        self._ray.shutdown()

    def _task(self, function: Callable[..., Any]) -> Any:
        return self._ray.remote(max_retries=_MAX_TRIES - 1, **self._resources)(function)

    def _capacity(self) -> int:
        """Return the number of episodes to submit: enough that no processor is ever idle."""
        return self._max_pending or max(2 * int(self._ray.cluster_resources().get("CPU", 1)), 1)

    def _result(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            return Died(f"{type(error).__name__}, {_MAX_TRIES} times")


def require_library() -> Any:
    """Import and return the module `ray`.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ImportError(
            "--ray-address needs Ray; try: pip install 'franka-pick-place[ray]'"
        ) from error
    return ray


def _require_listening(address: str) -> None:
    """Raise an error at once where Ray would try for minutes and then end the program.

    Raises:
        WorkerError: Nothing answers at the address.
    """
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"nothing answers at the Ray address {address} ({error}); 'ray status' on the head "
            "node prints the right one"
        ) from error


_workers: dict[str, Worker] = {}  # at most one, of the newest run, per process


def _run_in_worker(run: str, worker_factory: Callable[[], Worker], index: Index) -> Any:
    """Run an episode in a process of the cluster, which Ray uses for one after another."""
    if run not in _workers:
        for worker in _workers.values():
            worker.close()
        _workers.clear()
        _workers[run] = worker_factory()
    return _workers[run].run(index)


def _call_with_environment(
    environment: Callable[[int], dict[str, str]], function: Callable[..., Any], *args: Any
) -> Any:
    """Call a function after setting the environment variables of this process."""
    os.environ.update(environment(_process_number()))
    return function(*args)


def _process_number() -> int:
    """Return the number of the GPU that Ray has assigned to this process, else its process id."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
    return int(gpu) if gpu.isdigit() else os.getpid()
