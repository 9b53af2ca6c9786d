"""Episodes by number on a Ray cluster, which schedules them and repeats what a lost node leaves."""

import os
import signal
import socket
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any

from pp_recorder.parallel.processes import Died, Worker, WorkerError

_MOMENT = 0.2  # s between two questions whether to stop
_PATIENCE = 5.0  # s for an address to answer
_TRIES = 4  # of an episode whose process or node is lost


class Cluster:
    """A connection to a running Ray cluster, whose nodes have this project installed.

    Args:
        address: "auto" for the one this machine belongs to, or host:port of its head.
        at_once: Episodes under way at once; default twice the processors of the cluster.
        gpu_share: Share of a GPU that an episode takes.
        environment: Variables for the process that works on the GPU of that number, or on none and
            has that number.

    Raises:
        ImportError: Ray is not installed.
        WorkerError: There is no cluster.
    """

    def __init__(
        self,
        address: str,
        at_once: int | None = None,
        gpu_share: float = 0.0,
        environment: Callable[[int], dict[str, str]] = lambda number: {},
    ) -> None:
        self._ray = require_library()
        _require_listening(address)
        ours = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._ray.init(address=address, logging_level="ERROR", log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise WorkerError(
                f"there is no Ray cluster at {address!r} ({error}); start one with "
                "'ray start --head', or give the address that it prints"
            ) from error
        finally:
            for number, handler in ours.items():  # Ray's would end the program at once
                signal.signal(number, handler)
        self._at_once = at_once
        self._resources = {"num_cpus": 1, "num_gpus": gpu_share}
        self._environment = environment

    def run_once(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function says on some node."""
        return self._ray.get(self._task(_call).remote(self._environment, function, *args))

    def run_all(
        self, make: Callable[[], Worker], indices: Iterable[int], stop: Callable[[], bool]
    ) -> Generator[tuple[int, Any], None, None]:
        """As `pp_recorder.parallel.processes.run_all`, anywhere in the cluster."""
        task, run = self._task(_run), uuid.uuid4().hex
        shared = self._ray.put(partial(_call, self._environment, make))
        waiting: deque[tuple[int, Any]] = deque()
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
                if self._ray.wait([reference], timeout=_MOMENT)[0]:
                    waiting.popleft()
                    yield index, self._result(reference)
        finally:
            for _, reference in waiting:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        """Leaves the cluster, which runs on."""
        self._ray.shutdown()

    def _task(self, function: Callable[..., Any]) -> Any:
        return self._ray.remote(max_retries=_TRIES - 1, **self._resources)(function)

    def _capacity(self) -> int:
        """Twice what runs at once, so that no processor waits for the episode that is next."""
        return self._at_once or max(2 * int(self._ray.cluster_resources().get("CPU", 1)), 1)

    def _result(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            return Died(f"{type(error).__name__}, {_TRIES} times")


def require_library() -> Any:
    """The module `ray`.

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
    """Fails at once where Ray would try for minutes and then end the program."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"nothing answers at the Ray address {address} ({error}); 'ray status' on the head "
            "node prints the right one"
        ) from error


_workers: dict[str, Worker] = {}  # at most one, of the newest run, per process


def _run(run: str, make: Callable[[], Worker], index: int) -> Any:
    """What a process of the cluster does: Ray uses it for one episode after another."""
    if run not in _workers:
        for worker in _workers.values():
            worker.close()
        _workers.clear()
        _workers[run] = make()
    return _workers[run].run(index)


def _call(
    environment: Callable[[int], dict[str, str]], function: Callable[..., Any], *args: Any
) -> Any:
    """Calls a function in a process that is told, before it draws, how to."""
    os.environ.update(environment(_number()))
    return function(*args)


def _number() -> int:
    """Of the GPU that Ray has given to this process; of the process where it gave none."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
    return int(gpu) if gpu.isdigit() else os.getpid()
