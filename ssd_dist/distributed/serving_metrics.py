"""The service's numbers in Prometheus' format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ssd_dist.distributed.serving_inference import Answer

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
DETECT = "/detect"
"""Path of the request that matters."""


class Metrics:
    """Counts what is asked and answered; one for a service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ssd_dist_requests",
            "Requests to detect, by the status of the answer.",
            ("status",),
            registry=self._registry,
        )
        self.under_way = Gauge(
            "ssd_dist_requests_under_way",
            "Requests to detect that were let in and are not answered yet.",
            registry=self._registry,
        )
        self._seconds = self._histogram(
            "request_seconds", "Time of a request that was answered with 200.", _SECONDS
        )
        self._decode = self._histogram("decode_seconds", "Decoding of a picture.", _SECONDS)
        self._network = self._histogram(
            "network_seconds", "Network and post-processing of a picture's batch.", _SECONDS
        )
        self._batch = self._histogram(
            "batch_size", "Pictures in the batch of an answered picture.", _BATCHES
        )

    def ended(self, path: str, status: int, seconds: float) -> None:
        """A request was answered."""
        if path == DETECT:
            self._requests.labels(str(status)).inc()
            if status == 200:
                self._seconds.observe(seconds)

    def answered(self, answer: Answer) -> None:
        """A replica came back with an answer."""
        self._decode.observe(answer.decode_ms / 1000)
        self._network.observe(answer.network_ms / 1000)
        self._batch.observe(answer.batch_size)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"ssd_dist_{name}", about, buckets=buckets, registry=self._registry)
