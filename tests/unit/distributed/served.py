"""What the tests of the service share: a worker that is none, and the application on a socket."""

import contextlib
import socket
import threading
import time

import numpy as np
import uvicorn

from ssd_dist.distributed.serving_end import EndingServer
from ssd_dist.distributed.serving_http import Limits, build_app
from ssd_dist.distributed.serving_inference import Answer

CLASSES = ("cat", "dog")


def answer_of(scores=(0.9, 0.4)):
    """One box for each score, of the classes in turn."""
    count = len(scores)
    boxes = [[10 * i + 1, 20, 10 * i + 60.5, 90] for i in range(count)]
    return Answer(
        width=200,
        height=100,
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.arange(count) % 2 + 1,
        scores=np.array(scores, np.float32),
        decode_ms=1.0,
        network_ms=2.0,
        batch_size=3,
    )


class Worker:
    """Remembers what it is given; `detect` and `healthy` are set by the tests."""

    def __init__(self):
        self.contents = []
        self.answer = answer_of()
        self.healthy = True

    async def detect(self, content):
        self.contents.append(content)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def is_healthy(self):
        return self.healthy


def application(worker, token=None, ending=None, **limits):
    return build_app(
        worker.detect,
        worker.is_healthy,
        CLASSES,
        Limits(**limits),
        token,
        ending or threading.Event(),
    )


@contextlib.contextmanager
def listening(app, ending=None):
    """The application's address, while it runs in a thread of this process."""
    with running(app, ending or threading.Event()) as (_, url):
        yield url


@contextlib.contextmanager
def running(app, ending):
    """The same with its server, for tests that end it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", lifespan="off")
        server = EndingServer(config, ending)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield server, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
