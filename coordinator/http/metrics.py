"""Counts for a monitoring system, in Prometheus' text format 0.0.4.

Sizes of the log, requests by route and status, seconds spent: nothing of what entries, blobs or
members say. Owned by the event loop's thread.
"""

from __future__ import annotations

from collections import Counter

from coordinator.sequencing.view import View

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters since the start of the process."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: dict[str, float] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request by its route's template, never by its path."""
        self._requests[(method, route, status)] += 1
        self._seconds[route] = self._seconds.get(route, 0.0) + seconds

    def render(self, view: View, certificate_days: int | None = None) -> str:
        """All of it as text.

        Args:
            view: of the log.
            certificate_days: until the TLS certificate ends; None where none is served here.
        """
        state = view.state
        gauges = {
            "consilium_log_entries": view.size,
            "consilium_log_final_entries": view.final_size,
            "consilium_log_time_seconds": state.log_time / 1000,
            "consilium_sequencing": int(view.stopped is None),
            "consilium_members": len(state.members),
            "consilium_datasets": len(state.datasets),
            "consilium_experiments": len(state.experiments),
            "consilium_rounds_open": sum(e.round is not None for e in state.experiments.values()),
        }
        if certificate_days is not None:
            gauges["consilium_certificate_days"] = certificate_days
        lines = []
        for name, value in gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value:.15g}"]
        lines.append("# TYPE consilium_requests_total counter")
        for (method, route, status), count in sorted(self._requests.items()):
            labels = f'method="{method}",route="{route}",status="{status}"'
            lines.append(f"consilium_requests_total{{{labels}}} {count}")
        lines.append("# TYPE consilium_request_seconds_total counter")
        for route, spent in sorted(self._seconds.items()):
            lines.append(f'consilium_request_seconds_total{{route="{route}"}} {spent:.6f}')
        return "\n".join(lines) + "\n"
