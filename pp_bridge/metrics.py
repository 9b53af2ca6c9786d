"""Prometheus metrics of the service's status."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from pp_bridge.shared_state import SharedState


class StatusCollector:
    """A collector that reads the status anew for every scrape.

    Args:
        shared_state: Source of the status.
    """

    def __init__(self, shared_state: SharedState) -> None:
        self._shared_state = shared_state

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        status = self._shared_state.status()
        request = status["request"] or {"num_episodes": 0}
        gauges = {
            "collecting": ("1 while a collection runs", status["state"] == "collecting"),
            "ready": ("1 once the simulator runs", status["state"] != "starting"),
            "wanted_episodes": ("Of the newest collection", request["num_episodes"]),
            "finished_episodes": ("Of the newest collection", status["episodes"]),
            "frames_per_second": ("Of the collection", status["frames_per_second"] or 0.0),
            "viewers": ("Viewers of the cameras", self._shared_state.viewers),
            "silence_seconds": (
                "Since the last tick of the simulator's loop",
                self._shared_state.seconds_since_status(),
            ),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"pp_bridge_{name}", text, value)
        for name, value in status["totals"].items():
            text = f"Since the service has started: {name.replace('_', ' ')}"
            yield CounterMetricFamily(f"pp_bridge_{name}", text, value)
