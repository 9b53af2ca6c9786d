"""Episodes by number, here or in several processes; a process that dies is noticed."""

import multiprocessing
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol

_PATIENCE = 10.0  # s that a process has to end by itself


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


def run_all(
    make: Callable[[], Worker], count: int, processes: int, notice: Callable[[str], None]
) -> Generator[tuple[int, Any], None, None]:
    """Runs the episodes 0..count-1, and gives each result as it comes; closed, it ends at once.

    Args:
        make: Makes a worker; with several processes it is sent to each, so it must be picklable.
        count: How many episodes there are.
        processes: How many at once; 1 runs them in this process.
        notice: Is told when a process has died. Its episode is tried once more.

    Yields:
        For each episode its number and result, or `Died` if its second process died as well.

    Raises:
        WorkerError: A process died before it could begin.
        Exception: What `make` or `run` raises, wherever.
    """
    if processes == 1:
        return _run_here(make, count)
    return _run_in_processes(make, count, processes, notice)


def _run_here(make: Callable[[], Worker], count: int) -> Generator[tuple[int, Any], None, None]:
    worker = make()
    try:
        for index in range(count):
            yield index, worker.run(index)
    finally:
        worker.close()


def _run_in_processes(
    make: Callable[[], Worker], count: int, processes: int, notice: Callable[[str], None]
) -> Generator[tuple[int, Any], None, None]:
    waiting, tried_twice = deque(range(count)), set()
    team = [_Process(make) for _ in range(min(processes, count))]
    try:
        for process in team:
            process.begin(waiting.popleft())
        while team:
            for process in _ready(team):
                index, result = process.index, process.result()
                again = isinstance(result, Died) and index not in tried_twice
                if again:
                    tried_twice.add(index)
                    waiting.appendleft(index)
                if isinstance(result, Died):
                    then = "it is tried again" if again else "for the second time, so it failed"
                    notice(f"the process of episode {index} died ({result.how}); {then}")
                    team.remove(process)
                    if waiting:
                        team.append(_Process(make))
                        team[-1].begin(waiting.popleft())
                elif waiting:
                    process.give(waiting.popleft())
                else:
                    team.remove(process)
                    process.end()
                if not again:
                    yield index, result
    finally:
        for process in team:
            process.kill()


class _Process:
    """A worker in a process of its own, and the number of its episode."""

    def __init__(self, make: Callable[[], Worker]) -> None:
        # A fork would share OpenGL contexts, CUDA and locks of other threads with its parent.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, theirs))
        self._process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.index = -1

    def begin(self, index: int) -> None:
        """Waits until the worker is made, and gives it its first episode."""
        if isinstance(died := self.result(), Died):
            raise WorkerError(
                f"a process died before it could begin ({died.how}); try fewer of them, or one, "
                "to see what it says"
            )
        self.give(index)

    def give(self, index: int) -> None:
        """Gives it an episode; if it has just died, `result` will say so."""
        self.index = index
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(index)

    def result(self) -> Any:
        """What came of it, waiting for that, or `Died`; raises what the worker raised."""
        try:
            value, error = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(_PATIENCE)
            return Died(_how(self._process.exitcode))
        if error is not None:
            raise value from WorkerError(f"in a worker:\n{error}")
        return value

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
    """Those that have something to say, waiting for the first."""
    pipes = wait([process.pipe for process in team])
    return [process for process in team if process.pipe in pipes]


def _serve(make: Callable[[], Worker], pipe: Connection) -> None:
    """What a process does: it answers (value, traceback) when ready, and for each episode."""
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
