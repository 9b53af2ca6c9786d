"""OpenGL without a screen: contexts that any thread can use, but no forked process.

A context is current only while it renders: one that is current in a thread is of no use to others.
OpenGL's drivers have threads and locks that a fork does not copy. A forked process would wait for
them for ever, even if every context was freed before the fork.
"""

import atexit
import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_used = False  # OpenGL was used by this process or by one that it was forked from
_inherited = False  # ... by one that it was forked from
_ended = False  # the process ends, and MuJoCo is about to close OpenGL
_creation = threading.Lock()
_idle: deque[Any] = deque()  # EGL contexts that were freed; no lock, which a collector might need
_MAX_IDLE = 2
_bound = threading.local()  # `context` is the one that is current in a thread


def is_inherited() -> bool:
    """Return True if OpenGL was used before this process was forked, so that it cannot be here.

    Also when the process ends: what is freed then may come after OpenGL has gone.
    """
    return _inherited or _ended


def note_use() -> None:
    """Note that this process uses a graphics driver, through another library."""
    global _used
    require_not_inherited()
    _used = True


def abandon(inherited: Any) -> None:
    """Keep what a forked process has inherited from being freed, which might wait for ever.

    Not even at the interpreter's exit, which frees what modules hold.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


class Context:
    """An OpenGL context without a screen.

    Used instead of `mujoco.GLContext`, whose platform is read from the environment when mujoco is
    first imported, possibly long before this package is.

    EGL's have no size and are used again: in software, Mesa compiles what a context draws with,
    which takes 0.2 s. So whatever is made in one must be deleted before it is freed.

    Args:
        size: Width and height in pixels.

    Raises:
        RuntimeError: OpenGL was used before this process was forked.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        note_use()
        with _creation:
            platform = _context_class()
            is_at_hand = bool(_idle) and isinstance(_idle[-1], platform)
            self._gl = _idle.pop() if is_at_hand else platform(*size)
            atexit.register(_note_end)  # MuJoCo has registered its own end before
        self._module = sys.modules[type(self._gl).__module__]
        self._freed = False
        before = getattr(_bound, "context", None)
        if before is not None:  # some platforms have released it
            before._bind()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread, and afterwards the one that was before.

        That is another one if garbage is collected, and its context freed, in the middle of an
        image.
        """
        before: Context | None = getattr(_bound, "context", None)
        self._bind()
        try:
            yield
        finally:
            if before is not None and not before._freed:
                before._bind()
            else:
                self._release()

    def free(self) -> None:
        """Free the context, in which nothing is left."""
        self._freed = True
        if self._name == "egl" and len(_idle) < _MAX_IDLE:
            if getattr(_bound, "context", None) is self:
                self._release()  # other threads may take it from here on
            _idle.append(self._gl)
            return
        self._gl.make_current()  # on macOS it is locked, and unlocked by `free`
        self._gl.free()

    def _bind(self) -> None:
        if self._name == "cgl":  # its `make_current` would lock it for other threads
            self._module.cgl.CGLSetCurrentContext(self._gl._context)
        else:
            self._gl.make_current()
        _bound.context = self

    def _release(self) -> None:
        _bound.context = None
        module = self._module
        if self._name == "egl":
            egl = module.EGL
            none = egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, egl.EGL_NO_CONTEXT
            egl.eglMakeCurrent(module.EGL_DISPLAY, *none)
        elif self._name == "osmesa":
            module.osmesa.OSMesaMakeCurrent(None, None, module.GL.GL_FLOAT, 0, 0)
        elif self._name == "cgl":
            module.cgl.CGLSetCurrentContext(None)
        else:
            module.glfw.make_context_current(None)

    @property
    def _name(self) -> str:
        """Name of the platform: "egl", "osmesa", "cgl" or "glfw"."""
        return self._module.__name__.rpartition(".")[2]


def require_not_inherited() -> None:
    """Check that OpenGL works in this process.

    Raises:
        RuntimeError: It was used before this process was forked.
    """
    if _inherited:
        raise RuntimeError(
            "this process was forked from one that had rendered pictures, and OpenGL and Vulkan "
            'do not work after a fork; start processes with context="spawn" (gymnasium\'s '
            'AsyncVectorEnv) or multiprocessing_context="spawn" (torch\'s DataLoader)'
        )


def _context_class() -> Any:
    platform = os.environ.get("MUJOCO_GL", "egl" if sys.platform == "linux" else "")
    if platform == "egl":
        from mujoco.egl import GLContext
    elif platform == "osmesa":
        from mujoco.osmesa import GLContext
    else:
        from mujoco.gl_context import GLContext
    return GLContext


def _note_end() -> None:
    global _ended
    _ended = True


def _note_fork() -> None:
    """Find out, in a process that was just forked, whether OpenGL was used before."""
    global _used, _inherited
    egl: Any = sys.modules.get("mujoco.egl")
    has_display = getattr(egl, "EGL_DISPLAY", None) is not None  # also of MuJoCo's other renderers
    if _used and has_display:
        egl.EGL_DISPLAY = None  # at exit MuJoCo would close it, and wait for its threads for ever
    if _used or has_display:
        _used = _inherited = True


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_note_fork)
