"""Smooth motion along a path in joint space, with bounded speed and acceleration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_CORNER = 0.01  # rad by which the arm may overshoot a knot where it turns


@dataclass(frozen=True)
class Knot:
    """A posture on the way.

    Attributes:
        posture: (7,) rad.
        phase: Name of what the arm does on its way there.
        speed: Greatest joint speed on its way there, as a share of the servo's.
    """

    posture: np.ndarray
    phase: str
    speed: float = 1.0


class JointServo:
    """Moves a command from where it is along knots, one control period at a time.

    The fastest joint sets the pace. Where the path turns, the command slows down as far as it takes
    to overshoot by 0.01 rad at most; at the last knot it comes to rest.

    Args:
        speed: Greatest joint speed, rad/s.
        acceleration: Greatest joint acceleration, rad/s^2.
        period: Control period, s.
    """

    def __init__(self, speed: float, acceleration: float, period: float) -> None:
        self._speed, self._acceleration, self._period = speed, acceleration, period
        self._corner_speed = min(speed, np.sqrt(2 * acceleration * _CORNER))
        self._velocity = np.zeros(7)
        self._knots: list[Knot] = []
        self.command = np.zeros(7)

    def restart(self, posture: np.ndarray) -> None:
        """Set the command to a posture (7,), rad, at rest, without a path."""
        self.command, self._velocity, self._knots = posture.copy(), np.zeros(7), []

    def follow(self, knots: Sequence[Knot]) -> None:
        """Take another path from where the command is, at the velocity that it has."""
        self._knots = list(knots)

    @property
    def phase(self) -> str:
        """Phase of the present knot, or "" without a path."""
        return self._knots[0].phase if self._knots else ""

    @property
    def at_end(self) -> bool:
        """True if the command rests at the last knot."""
        return (
            len(self._knots) <= 1
            and not self._velocity.any()
            and (not self._knots or np.array_equal(self.command, self._knots[0].posture))
        )

    def advance(self, hold: bool = False) -> np.ndarray:
        """Return the command (7,), rad, one period later; `hold` brings it to rest where it is."""
        while len(self._knots) > 1 and self._distance() <= self._reached():
            self._knots.pop(0)
        wanted = np.zeros(7) if hold or not self._knots else self._wanted_velocity()
        change = wanted - self._velocity
        limit = self._acceleration * self._period
        self._velocity = self._velocity + change * min(1.0, limit / max(_largest(change), 1e-12))
        if not hold and self._knots and self._arrives():
            self.command, self._velocity = self._knots[0].posture.copy(), np.zeros(7)
        else:
            self.command = self.command + self._velocity * self._period
        return self.command.copy()

    def _distance(self) -> float:
        return _largest(self._knots[0].posture - self.command)

    def _reached(self) -> float:
        """Return the distance at which the command turns to the next knot."""
        return max(_CORNER, _largest(self._velocity) * self._period)

    def _wanted_velocity(self) -> np.ndarray:
        """Return the velocity (7,), rad/s, towards the present knot, in time to slow down there."""
        knot, way = self._knots[0], self._knots[0].posture - self.command
        distance = _largest(way)
        if distance == 0.0:
            return np.zeros(7)
        end_speed = self._corner_speed if len(self._knots) > 1 else 0.0
        step = self._acceleration * self._period
        # The speed from which constant braking, a step a period, just stops in time.
        braking = step * (np.sqrt(0.25 + 2 * distance / (step * self._period)) - 0.5)
        speed = min(self._speed * knot.speed, np.hypot(end_speed, braking))
        if len(self._knots) == 1:
            speed = min(speed, distance / self._period)
        return way * (speed / distance)

    def _arrives(self) -> bool:
        """Return True if the command can rest at the last knot within this period."""
        if len(self._knots) > 1:
            return False
        step = self._acceleration * self._period
        return self._distance() <= step * self._period and _largest(self._velocity) <= 2 * step


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max())
