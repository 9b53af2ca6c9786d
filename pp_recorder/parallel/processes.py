"""Run episodes by index, in this process or in several, and repeat those whose process died."""

import ctypes
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol

# Requests to stop, also from a terminal that closes. They may reach every process of a run.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_LOG = logging.getLogger(__name__)
_JOIN_TIMEOUT = 10.0  # s for a process to end by itself
_POLL_INTERVAL = 0.2  # s between two calls of `stop`
_MAX_PENDING = 4  # episodes per process that run, or wait for the result of an earlier one
_READY = object()
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


Index = Any  # of an episode: a number, or a range of them, all of which a worker runs at once


class Worker(Protocol):
    """An object that runs episodes, one after another, in one process."""

    def run(self, index: Index) -> Any:
        """Run one episode, or a range of them; return a result that can be pickled."""
        ...

    def close(self) -> None:
        """Release all resources; no episode follows. The default does nothing."""


class WorkerError(RuntimeError):
    """Worker processes cannot be started, or one raised an exception that cannot be pickled."""


class Died(NamedTuple):
    """The result of an episode whose process died.

    Attributes:
        cause: The signal or the exit status.
    """

    cause: str


class _Make(NamedTuple):
    """A message to a process: to make a worker, in place of its own if it has one."""

    factory: Callable[[], Worker]


class WorkerPool(Protocol):
    """Processes that run episodes, on this machine or on others."""

    def run_once(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return the value of a function, called in one of the processes."""
        ...

    def run_all(
        self,
        worker_factory: Callable[[], Worker],
        indices: Iterable[Index | None],
        stop: Callable[[], bool],
    ) -> Generator[tuple[Index, Any], None, None]:
        """Run episodes; see the function `run_all`."""
        ...

    def close(self) -> None:
        """Release all resources. The default does nothing."""


class ProcessPool(WorkerPool):
    """Processes on this machine, which live as long as the episodes of one `run_all`.

    Args:
        count: Number of processes at once.
        environment: Function from a process's number, from 0 on, to its environment variables.
        is_worn: See the function `run_all`.
        keeps_first: Whether the process of `run_once` is the first of the next `run_all`, too: to
            start one takes time, but not every simulator can be made twice in it.
    """

    def __init__(
        self,
        count: int,
        environment: Callable[[int], dict[str, str]] = lambda number: {},
        is_worn: Callable[[int, int], bool] = lambda episodes, pid: False,
        keeps_first: bool = False,
    ) -> None:
        self._count = count
        self._environment = environment
        self._is_worn = is_worn
        self._keeps_first = keeps_first
        self._kept: list[_WorkerProcess] = []

    def run_once(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return the value of a function, called in a new process in place of the first."""
        self.close()
        call, kept = partial(_Call, function, args), self._kept if self._keeps_first else None
        results = _run_in_processes(call, [0], 1, environment=self._environment, kept=kept)
        with closing(results):
            [(_, value)] = results
        return value

    def run_all(
        self,
        worker_factory: Callable[[], Worker],
        indices: Iterable[Index | None],
        stop: Callable[[], bool],
    ) -> Generator[tuple[Index, Any], None, None]:
        """Run episodes; see the function `run_all`."""
        first, self._kept = self._kept, []
        yield from _run_in_processes(
            worker_factory,
            indices,
            self._count,
            stop,
            self._environment,
            self._is_worn,
            first=first,
        )

    def close(self) -> None:
        """End the process that is kept."""
        while self._kept:
            self._kept.pop().kill()


class _Call(Worker):
    """A worker that calls a function when it is made, and returns the value."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._value = function(*args)

    def run(self, index: Index) -> Any:
        return self._value


def run_all(
    worker_factory: Callable[[], Worker],
    indices: Iterable[Index | None],
    processes: int,
    stop: Callable[[], bool] = lambda: False,
    environment: Callable[[int], dict[str, str]] = lambda number: {},
    apart: bool = False,
    is_worn: Callable[[int, int], bool] = lambda episodes, pid: False,
) -> Generator[tuple[Index, Any], None, None]:
    """Run episodes, and yield their results in the order of `indices`.

    An episode whose process dies is repeated once. Closing the iterator ends all processes at once.

    Args:
        worker_factory: Function that makes a worker; with several processes it is sent to each, so
            it must be picklable.
        indices: The episodes, taken one by one as processes become free. None means that there is
            none until the next result has been taken.
        processes: Number of processes at once; 1 runs the episodes in this process.
        stop: Function called several times a second; True ends the iteration.
        environment: Function from a process's number, from 0 on, to environment variables that are
            set before its worker is made.
        apart: Have a process of its own for the episodes even if it is one: they may end it.
        is_worn: Function from the number of episodes that a process has run, and its id; True has
            it replaced by a new one.

    Yields:
        Index and result of each episode; the result is `Died` if its second process died, too.

    Raises:
        WorkerError: A process died before its worker was ready, and none ever was.
        Exception: Any exception that `worker_factory` or `Worker.run` raises.
    """
    if processes == 1 and not apart:
        return _run_here(worker_factory, indices, stop)
    return _run_in_processes(worker_factory, indices, processes, stop, environment, is_worn)


def _run_here(
    worker_factory: Callable[[], Worker], indices: Iterable[Index | None], stop: Callable[[], bool]
) -> Generator[tuple[Index, Any], None, None]:
    """Run episodes in this process; see `run_all`."""
    worker = worker_factory()
    try:
        for index in indices:
            if index is None:
                continue
            yield index, worker.run(index)
            if stop():
                return
    finally:
        worker.close()


def _run_in_processes(
    worker_factory: Callable[[], Worker],
    indices: Iterable[Index | None],
    processes: int,
    stop: Callable[[], bool] = lambda: False,
    environment: Callable[[int], dict[str, str]] = lambda number: {},
    is_worn: Callable[[int, int], bool] = lambda episodes, pid: False,
    first: Sequence["_WorkerProcess"] = (),
    kept: list["_WorkerProcess"] | None = None,
) -> Generator[tuple[Index, Any], None, None]:
    """Run episodes in processes of their own; see `run_all`.

    Args:
        worker_factory: As there, and so are those not named here.
        indices: Likewise.
        processes: Likewise.
        stop: Likewise.
        environment: Likewise.
        is_worn: Likewise.
        first: Processes that have had another worker.
        kept: Gets the processes at the end, in place of it.
    """
    queue = _Queue(indices, _MAX_PENDING * processes)
    active = list(first)
    can_begin = False
    try:
        for process in active:
            process.change(worker_factory)
        while not stop():
            _assign(queue, active)
            while len(active) < processes and (index := queue.take()) is not None:
                free = min(set(range(processes)) - {process.number for process in active})
                active.append(_WorkerProcess(worker_factory, free, environment(free), can_begin))
                active[-1].assign(index)
            if all(process.index is None for process in active):
                break
            messages = _wait_for_messages(active)
            if stop():  # what told this process to stop may have ended others
                return
            for process in messages:
                _handle_message(process, queue)
            can_begin = can_begin or any(process.is_ready for process in active)
            active = [process for process in active if process.alive]
            worn = [p for p in active if p.index is None and is_worn(p.episodes, p.pid)]
            _stop_all(worn)
            active = [process for process in active if process not in worn]
            _assign(queue, active)  # what the caller does with results may take long
            yield from queue.finished()
        else:
            return
        if kept is None:
            _stop_all(active)
        else:
            kept += active
            active = []
    finally:
        for process in active:
            process.kill()


class _Queue:
    """The episodes still to run, and the results that wait for that of an earlier episode.

    Args:
        indices: The episodes.
        max_pending: Limit of the episodes that run or wait, so that their results do not pile up
            behind one that hangs.
    """

    def __init__(self, indices: Iterable[Index | None], max_pending: int) -> None:
        self._indices = iter(indices)
        self._max_pending = max_pending
        self._repeated: deque[Index] = deque()
        self._died_once: set[Index] = set()
        self._order: deque[Index] = deque()
        self._results: dict[Index, Any] = {}

    def take(self) -> Index | None:
        """Return the next episode to run; None if there is none for now."""
        if self._repeated:
            return self._repeated.popleft()
        if len(self._order) >= self._max_pending:
            return None
        index = next(self._indices, None)
        if index is not None:
            self._order.append(index)
        return index

    def put(self, index: Index, result: Any) -> bool:
        """Store the result of an episode; return True if the episode is to be repeated instead."""
        if isinstance(result, Died) and index not in self._died_once:
            self._died_once.add(index)
            self._repeated.append(index)
            return True
        self._results[index] = result
        return False

    def finished(self) -> Iterator[tuple[Index, Any]]:
        """Yield the results that are next in order."""
        while self._order and self._order[0] in self._results:
            index = self._order.popleft()
            yield index, self._results.pop(index)


def _assign(queue: _Queue, active: "list[_WorkerProcess]") -> None:
    """Give each process that has none an episode, if there is one."""
    for process in active:
        if process.index is None and (index := queue.take()) is not None:
            process.assign(index)


def _handle_message(process: "_WorkerProcess", queue: _Queue) -> None:
    """Receive a message of a process, and store the result if it is one."""
    index, result = process.index, process.receive()
    if result is _READY or index is None:
        return
    again = queue.put(index, result)
    if isinstance(result, Died):
        then = "it is tried again" if again else "for the second time, so it failed"
        what = f"episode {index}" if isinstance(index, int) else index
        _LOG.warning(f"the process of {what} died ({result.cause}); {then}")


class _WorkerProcess:
    """A worker in a process of its own.

    Args:
        worker_factory: Function that makes the worker.
        number: Number of the process among those that run at once, from 0 on.
        environment: Environment variables to set there.
        can_begin: True if another process could make such a worker.

    Attributes:
        number: As above.
        index: The episode that it runs, or None.
        episodes: Number of episodes that it has run.
        is_ready: True after it has made its worker.
        alive: False after the process has died.
        pipe: The connection to the process.
    """

    def __init__(
        self,
        worker_factory: Callable[[], Worker],
        number: int,
        environment: dict[str, str],
        can_begin: bool,
    ) -> None:
        self.number = number
        self.index: Index | None = None
        self.episodes = 0
        self.alive = True
        self.is_ready = False
        self._can_begin = can_begin
        # A fork would share OpenGL contexts, CUDA and locks of other threads with its parent.
        context = multiprocessing.get_context("spawn")
        self.pipe, remote_end = context.Pipe()
        self._process = context.Process(
            target=_worker_main, args=(worker_factory, remote_end, environment)
        )
        with stop_signals_held_back():
            self._process.start()
        remote_end.close()  # so that the pipe ends when the process does

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    def change(self, worker_factory: Callable[[], Worker]) -> None:
        """Have it make another worker in place of its own."""
        self.is_ready, self.episodes, self._can_begin = False, 0, True
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(_Make(worker_factory))

    def assign(self, index: Index) -> None:
        """Send it an episode; if it has just died, `receive` returns that."""
        self.index = index
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(index)

    def receive(self) -> Any:
        """Return the result, `_READY` or `Died`; raise the worker's exception."""
        try:
            value, error = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return self._handle_death()
        if error is not None:
            raise value from WorkerError(f"in a worker:\n{error}")
        if not self.is_ready:
            self.is_ready = True
            return _READY
        self.index = None
        self.episodes += 1
        return value

    def _handle_death(self) -> Died:
        """Return the cause of death.

        Raises:
            WorkerError: The process died before its worker was ready, and none ever was.
        """
        self.alive = False
        self._process.join(_JOIN_TIMEOUT)
        cause = _describe_exit(self._process.exitcode)
        self.kill()
        if not (self.is_ready or self._can_begin):
            raise WorkerError(
                f"a process died before it could begin ({cause}); try fewer of them, or one, to "
                "see what it says"
            )
        return Died(cause)

    def stop(self, deadline: float) -> None:
        """Let it close its worker and end, until a time of `time.monotonic`."""
        self.pipe.close()
        self._process.join(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """End it at once; a second call has no effect."""
        self._process.kill()
        self._process.join()


def _stop_all(processes: list[_WorkerProcess]) -> None:
    """Let processes close their workers and end, all at once; kill those that take too long."""
    for process in processes:
        process.pipe.close()
    deadline = time.monotonic() + _JOIN_TIMEOUT
    for process in processes:
        process.stop(deadline)


def _wait_for_messages(active: list[_WorkerProcess]) -> list[_WorkerProcess]:
    """Return the processes with a message, after waiting shortly for the first."""
    pipes = wait([process.pipe for process in active], _POLL_INTERVAL)
    return [process for process in active if process.pipe in pipes]


def _worker_main(
    worker_factory: Callable[[], Worker], pipe: Connection, environment: dict[str, str]
) -> None:
    """Run a worker process, and end it at once.

    The rest of a process's end is left out, since it is useless here, and Isaac Sim's may hang.
    """
    _begin_process()
    os.environ.update(environment)
    status: Any = 1
    try:
        _serve(worker_factory, pipe)
        status = 0
    except SystemExit as end:
        status = 0 if end.code is None else end.code
        if not isinstance(status, int):
            print(status, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def _serve(worker_factory: Callable[[], Worker], pipe: Connection) -> None:
    """Make the worker and run episodes: send (value, traceback) when ready, and for each one."""
    worker: Worker | None = None
    message: Any = _Make(worker_factory)
    try:
        while message is not None:
            if isinstance(message, _Make):
                if worker is not None:
                    worker.close()
                worker = None  # if the next one cannot be made, none is left to be closed
                worker = message.factory()
                pipe.send((None, None))
            elif worker is not None:
                pipe.send((worker.run(message), None))
            message = _receive(pipe)
    except BrokenPipeError:
        pass  # the parent has closed its end
    except Exception as error:
        pipe.send((_to_picklable(error), traceback.format_exc()))
    finally:
        pipe.close()  # a worker that hangs from here on holds nobody up
        if worker is not None:
            worker.close()


def _begin_process() -> None:
    """Leave requests to stop to the parent, and end with it, however busy or stuck this process is.

    What hangs in C holds the lock that a thread here needs, so Linux is asked to end it, too.
    """
    ignore_stop_signals()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with_parent, daemon=True).start()  # it may have ended already


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def ignore_stop_signals() -> None:
    """Leave requests to stop to the parent: Ctrl-C, a terminal or a supervisor send them to all."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@contextmanager
def stop_signals_held_back(signals: Sequence[int] = STOP_SIGNALS) -> Iterator[None]:
    """Hold requests to stop back in processes started here, until they ignore them."""
    resource_tracker.ensure_running()  # its own start lets signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _receive(pipe: Connection) -> Any:
    """Return a `_Make` or the next episode; None after the last one, or if the parent has ended."""
    try:
        return pipe.recv()
    except EOFError:
        return None


def _to_picklable(error: Exception) -> Exception:
    """Return the exception, or a `WorkerError` with its text if it cannot be pickled."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"{type(error).__name__}: {error}")


def _describe_exit(exit_code: int | None) -> str:
    """Return the name of the signal that ended a process, or its exit status."""
    if exit_code is None:
        return "it hung while it ended"
    if exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"
