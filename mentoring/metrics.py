"""The hub's figures for Prometheus, in a registry of its own."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Metrics", "Timed"]


class Metrics:
    """Counters of one hub since its start."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.items = Counter(
            "hub_items", "Items sent, by what became of them", ["outcome"], registry=self.registry
        )
        self.bytes = Counter("hub_item_bytes", "Bytes of new items", registry=self.registry)
        self.fsync_s = Histogram(
            "hub_fsync_seconds",
            "What a new item waited for the disk",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
            registry=self.registry,
        )
        self.answers = Counter(
            "hub_answers", "Answers sent, by what became of them", ["outcome"], registry=self.registry
        )
        self.open = Gauge(
            "hub_open_questions", "Open questions, counted up to 1000 frames", registry=self.registry
        )
        self.seconds = Histogram(
            "hub_request_seconds",
            "Time to answer a request",
            ["route"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
            registry=self.registry,
        )

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)


class Timed:
    """An ASGI layer that measures how long each route takes, the sending of its body included."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        try:
            await self._app(scope, receive, send)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
