"""Episodes by number, here or in several processes; a process that dies is noticed."""

import logging
import multiprocessing
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol

_LOG = logging.getLogger(__name__)
_PATIENCE = 10.0  # s that a process has to end by itself
_MOMENT = 0.2  # s between two questions whether to stop
_LOOK_AHEAD = 4  # episodes per process that may be under way or wait for an earlier one
_IS_READY = object()


class Worker(Protocol):
    """Runs episodes, one after another."""

    def run(self, index: int) -> Any:
        """Runs one, and returns what can be sent to another process."""
        ...

    def close(self) -> None:
        """There are no more episodes."""
        ...


class WorkerError(RuntimeError):
    """The processes cannot do their work."""


class Died(NamedTuple):
    """In place of a result: the process died.

    Attributes:
        how: The signal or the exit status.
    """

    how: str


class Processes:
    """Processes on this machine; `ray_cluster.Cluster` has the same methods for many machines.

    Args:
        count: How many at once.
        environment: Variables for the process of that number.
    """

    def __init__(
        self,
        count: int,
        environment: Callable[[int], dict[str, str]] = lambda number: {},
    ) -> None:
        self._count = count
        self._environment = environment

    def run_once(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function says in a process of its own."""
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            return process.submit(function, *args).result()

    def run_all(
        self, make: Callable[[], Worker], indices: Iterable[int], stop: Callable[[], bool]
    ) -> Generator[tuple[int, Any], None, None]:
        """See `run_all`."""
        return run_all(make, indices, self._count, stop, self._environment)

    def close(self) -> None:
        """Nothing to do: processes live as long as the episodes of one `run_all`."""


def run_all(
    make: Callable[[], Worker],
    indices: Iterable[int],
    processes: int,
    stop: Callable[[], bool] = lambda: False,
    environment: Callable[[int], dict[str, str]] = lambda number: {},
) -> Generator[tuple[int, Any], None, None]:
    """Runs episodes, and gives each result in the order of the episodes; closed, it ends at once.

    Args:
        make: Makes a worker; with several processes it is sent to each, so it must be picklable.
        indices: The episodes' numbers, asked for one by one as processes become free.
        processes: How many at once; 1 runs them in this process.
        stop: Asked several times a second; if it says so, there are no more results.
        environment: Variables for the process of that number, set before its worker is made.

    Yields:
        For each episode its number and result, or `Died` if its second process died as well.

    Raises:
        WorkerError: A process died before it could begin.
        Exception: What `make` or `run` raises, wherever.
    """
    if processes == 1:
        return _run_here(make, indices, stop)
    return _run_in_processes(make, indices, processes, stop, environment)


def _run_here(
    make: Callable[[], Worker], indices: Iterable[int], stop: Callable[[], bool]
) -> Generator[tuple[int, Any], None, None]:
    worker = make()
    try:
        for index in indices:
            yield index, worker.run(index)
            if stop():
                return
    finally:
        worker.close()


def _run_in_processes(
    make: Callable[[], Worker],
    indices: Iterable[int],
    processes: int,
    stop: Callable[[], bool],
    environment: Callable[[int], dict[str, str]],
) -> Generator[tuple[int, Any], None, None]:
    queue = _Queue(indices, _LOOK_AHEAD * processes)
    team: list[_Process] = []
    try:
        while not stop():
            for process in team:
                if process.index is None and (index := queue.take()) is not None:
                    process.give(index)
            while len(team) < processes and (index := queue.take()) is not None:
                free = min(set(range(processes)) - {process.number for process in team})
                team.append(_Process(make, free, environment(free)))
                team[-1].give(index)
            if all(process.index is None for process in team):
                break
            for process in _ready(team):
                _collect(process, queue)
            team = [process for process in team if process.alive]
            yield from queue.finished()
        else:
            return
        for process in team:
            process.end()
    finally:
        for process in team:
            process.kill()


class _Queue:
    """Which episode is next, and the results that wait for an earlier one's.

    Args:
        indices: The episodes.
        ahead: How many may be under way or wait; one that hangs must not let them pile up.
    """

    def __init__(self, indices: Iterable[int], ahead: int) -> None:
        self._indices = iter(indices)
        self._ahead = ahead
        self._again: deque[int] = deque()
        self._died_once: set[int] = set()
        self._order: deque[int] = deque()
        self._results: dict[int, Any] = {}

    def take(self) -> int | None:
        """The next one to run; None if there is none for now."""
        if self._again:
            return self._again.popleft()
        if len(self._order) >= self._ahead:
            return None
        index = next(self._indices, None)
        if index is not None:
            self._order.append(index)
        return index

    def put(self, index: int, result: Any) -> bool:
        """Takes the result of one; returns whether it is to be run again."""
        if isinstance(result, Died) and index not in self._died_once:
            self._died_once.add(index)
            self._again.append(index)
            return True
        self._results[index] = result
        return False

    def finished(self) -> Iterator[tuple[int, Any]]:
        """The results that are next in order."""
        while self._order and self._order[0] in self._results:
            index = self._order.popleft()
            yield index, self._results.pop(index)


def _collect(process: "_Process", queue: _Queue) -> None:
    """Takes what a process has to say."""
    index, result = process.index, process.result()
    if result is _IS_READY or index is None:
        return
    again = queue.put(index, result)
    if isinstance(result, Died):
        then = "it is tried again" if again else "for the second time, so it failed"
        _LOG.warning(f"the process of episode {index} died ({result.how}); {then}")


class _Process:
    """A worker in a process of its own, and the number of its episode.

    Args:
        make: Makes the worker.
        number: Which one of those that run at once it is.
        environment: Variables to set there.

    Attributes:
        index: The episode that it runs, or None.
        alive: Whether it is there.
    """

    def __init__(
        self, make: Callable[[], Worker], number: int, environment: dict[str, str]
    ) -> None:
        self.number = number
        self.index: int | None = None
        self.alive = True
        self._ready = False
        # A fork would share OpenGL contexts, CUDA and locks of other threads with its parent.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, theirs, environment))
        self._process.start()
        theirs.close()  # so that the pipe ends when the process does

    def give(self, index: int) -> None:
        """Gives it an episode; if it has just died, `result` will say so."""
        self.index = index
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(index)

    def result(self) -> Any:
        """What came of it, or `_IS_READY`, or `Died`; raises what the worker raised."""
        try:
            value, error = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return self._died()
        if error is not None:
            raise value from WorkerError(f"in a worker:\n{error}")
        if not self._ready:
            self._ready = True
            return _IS_READY
        self.index = None
        return value

    def _died(self) -> Died:
        self.alive = False
        self._process.join(_PATIENCE)
        how = _how(self._process.exitcode)
        self.kill()
        if not self._ready:
            raise WorkerError(
                f"a process died before it could begin ({how}); try fewer of them, or one, to see "
                "what it says"
            )
        return Died(how)

    def end(self) -> None:
        """Lets it close its worker and leave."""
        self.pipe.close()
        self._process.join(_PATIENCE)
        self.kill()

    def kill(self) -> None:
        """Ends it now; a second call has no effect."""
        self._process.kill()
        self._process.join()


def _ready(team: list[_Process]) -> list[_Process]:
    """Those that have something to say, waiting a moment for the first."""
    pipes = wait([process.pipe for process in team], _MOMENT)
    return [process for process in team if process.pipe in pipes]


def _serve(make: Callable[[], Worker], pipe: Connection, environment: dict[str, str]) -> None:
    """What a process does: it answers (value, traceback) when ready, and for each episode."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    worker = None
    try:
        worker = make()
        pipe.send((None, None))
        while (index := _next(pipe)) is not None:
            pipe.send((worker.run(index), None))
    except BrokenPipeError:
        pass  # nobody waits for it any more
    except Exception as error:
        pipe.send((_sendable(error), traceback.format_exc()))
    finally:
        if worker is not None:
            worker.close()


def _next(pipe: Connection) -> int | None:
    """The next episode; None when there are no more, or the parent is gone."""
    try:
        return pipe.recv()
    except EOFError:
        return None


def _sendable(error: Exception) -> Exception:
    """The exception, or one with its text if it does not survive the way to another process."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"{type(error).__name__}: {error}")


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"
