"""A service's start beside the end of another."""

import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException

from ssd_dist.distributed import serving_replicas


@pytest.fixture
def serve(monkeypatch):
    """A Ray Serve that fails as it is told to, start by start; what it was asked for."""

    class Serve:
        def __init__(self):
            self.failures, self.asked = [], []

        def start(self, **_):
            self.asked.append("start")

        def run(self, application, name, route_prefix):
            self.asked.append((application, name, route_prefix))
            if self.failures:
                raise self.failures.pop(0)
            return "handle"

    serve = Serve()
    monkeypatch.setattr(serving_replicas, "serve", serve)
    monkeypatch.setattr(serving_replicas, "_BETWEEN_STARTS_S", 0.0)
    return serve


def test_what_another_service_took_down_is_started_again(serve):
    serve.failures = [RayActorError(), RayServeException()]
    assert serving_replicas._deploy("application", "mine") == "handle"
    assert serve.asked == ["start", ("application", "mine", None)] * 3


def test_what_never_starts_is_told(serve):
    serve.failures = [RayActorError() for _ in range(9)]
    with pytest.raises(RayActorError):
        serving_replicas._deploy("application", "mine")
    assert len(serve.failures) == 6


def test_what_is_wrong_with_the_application_is_told_at_once(serve):
    serve.failures = [RuntimeError("no such network")]
    with pytest.raises(RuntimeError, match="no such network"):
        serving_replicas._deploy("application", "mine")
    assert serve.asked.count("start") == 1
