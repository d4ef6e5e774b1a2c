"""The service's door: what is let in, what is refused and how, and what comes back."""

import asyncio
import json
import socket
import time

import httpx
import pytest
from served import Worker, answer_of, application, listening
from starlette.datastructures import Headers

from ssd_dist.distributed.serving_http import Limits, NoWorkerError
from ssd_dist.distributed.serving_inference import Refusal

TOKEN = "0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def worker():
    return Worker()


def ask(app, method, path, **options):
    """One request, through the whole application."""

    async def sent():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    return asyncio.run(sent())


def test_boxes_come_in_pixels_with_names_and_scores(worker):
    response = ask(application(worker), "POST", "/detect", content=b"picture")
    assert response.status_code == 200
    found = response.json()
    assert (found["width"], found["height"], found["batch_size"]) == (200, 100, 3)
    assert found["detections"] == [
        {"label": "cat", "score": pytest.approx(0.9), "box": [1, 20, 60.5, 90]},
        {"label": "dog", "score": pytest.approx(0.4), "box": [11, 20, 70.5, 90]},
    ]
    assert found["milliseconds"]["decode"] == 1
    assert found["milliseconds"]["network"] == 2
    assert found["milliseconds"]["total"] > 0


@pytest.mark.parametrize(("threshold", "count"), [(0, 3), (0.3, 2), (0.9, 0), (1, 0)])
def test_the_threshold_is_the_asker_s(threshold, count, worker):
    worker.answer = answer_of((0.8, 0.4, 0.1))
    path = f"/detect?score_threshold={threshold}"
    found = ask(application(worker), "POST", path, content=b"picture").json()
    assert len(found["detections"]) == count


@pytest.mark.parametrize(("given", "told"), [("2", "less than or equal to 1"), ("x", "number")])
def test_a_threshold_outside_0_to_1_is_refused_in_one_sentence(given, told, worker):
    response = ask(application(worker), "POST", f"/detect?score_threshold={given}", content=b"x")
    assert response.status_code == 422
    detail = response.json()["detail"]
    assert detail.startswith("score_threshold: ")
    assert told in detail
    assert worker.contents == []


def test_a_picture_comes_raw_or_in_a_form(worker):
    app = application(worker)
    ask(app, "POST", "/detect", content=b"raw")
    ask(app, "POST", "/detect", files={"any": ("a.jpg", b"form")}, data={"note": "text"})
    big = bytes(range(256)) * 8192  # above what a parser keeps in memory
    ask(app, "POST", "/detect", files={"picture": ("b.jpg", big, "image/jpeg")})
    assert worker.contents == [b"raw", b"form", big]


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        ({"content": b""}, 422, "no picture"),
        ({"data": {"note": "text"}, "files": {}}, 200, None),  # an urlencoded body is a body
        ({"files": {"note": (None, b"text")}}, 422, "no picture"),
        ({"files": [("a", ("a", b"1")), ("b", ("b", b"2"))]}, 400, "Too many files"),
        (
            {"content": b"no form", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "boundary",
        ),
        ({"content": b"x", "headers": {"Content-Length": "many"}}, 400, "Content-Length"),
    ],
)
def test_a_body_without_a_picture_is_refused(options, status, told, worker):
    response = ask(application(worker), "POST", "/detect", **options)
    assert response.status_code == status
    if told is not None:
        assert told in response.json()["detail"]
        assert worker.contents == []


def messages(app, headers, parts):
    """What comes back to a request whose body arrives in these parts, and how many were taken."""
    taken, sent = [], []

    async def receive():
        taken.append(parts[len(taken)])
        return {
            "type": "http.request", "body": taken[-1], "more_body": len(taken) < len(parts)
        }  # fmt: skip

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/detect", "raw_path": b"/detect",
        "query_string": b"", "headers": Headers({"host": "localhost", **headers}).raw,
        "http_version": "1.1", "scheme": "http", "root_path": "", "server": ("localhost", 80),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], len(taken)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(worker):
    app = application(worker, max_bytes=100)
    parts = [b"x" * 40] * 10
    assert messages(app, {"content-length": "400"}, parts) == (413, 0)
    # One that does not say its length, or lies, is read no further than to the limit.
    assert messages(app, {}, parts) == (413, 3)
    assert messages(app, {"content-length": "90"}, parts) == (413, 3)
    assert messages(app, {"content-length": "80"}, parts[:2]) == (200, 2)
    assert [len(content) for content in worker.contents] == [80]


def test_a_body_that_does_not_arrive_is_given_up(worker):
    app = application(worker, upload_seconds=0.05)

    async def stalled():
        async def parts():
            yield b"first"
            await asyncio.sleep(5)

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/detect", content=parts())

    response = asyncio.run(stalled())
    assert response.status_code == 408
    assert worker.contents == []


def test_an_upload_that_is_broken_off_leaves_no_trace_on_the_terminal(worker, capfd, caplog):
    with listening(application(worker)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /detect HTTP/1.1\r\nHost: localhost\r\n")
            client.sendall(b"Content-Length: 1000\r\n\r\nabc")
            while "requests_under_way 1.0" not in httpx.get(f"{url}/metrics").text:
                time.sleep(0.01)
        counted = ""
        while "requests_total" not in counted:
            counted = httpx.get(f"{url}/metrics").text
    assert 'ssd_dist_requests_total{status="400"} 1.0' in counted
    assert "ssd_dist_requests_under_way 0.0" in counted
    assert worker.contents == []
    assert capfd.readouterr().err == ""
    assert caplog.text == ""


def test_beyond_the_bound_requests_are_refused_at_once_and_up_to_it_none(worker):
    """Those that are refused are never read; when one is answered, another is let in."""
    app = application(worker, max_requests=3)

    async def crowd():
        gate = asyncio.Event()

        async def slow(content):
            worker.contents.append(content)
            await gate.wait()
            return worker.answer

        worker.detect = slow
        app = application(worker, max_requests=3)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            waiting = [asyncio.create_task(client.post("/detect", content=b"x")) for _ in range(3)]
            while len(worker.contents) < 3:
                await asyncio.sleep(0.001)
            refused = await client.post("/detect", content=b"x")
            healthy = await client.get("/healthz")
            gate.set()
            answered = await asyncio.gather(*waiting)
            after = await client.post("/detect", content=b"x")
            metrics = await client.get("/metrics")
        return refused, healthy, answered, after, metrics

    refused, healthy, answered, after, metrics = asyncio.run(crowd())
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert healthy.status_code == 200  # a full queue keeps nobody from asking how it is
    assert [one.status_code for one in answered] == [200] * 3
    assert after.status_code == 200
    assert 'ssd_dist_requests_total{status="200"} 4.0' in metrics.text
    assert 'ssd_dist_requests_total{status="429"} 1.0' in metrics.text
    assert "ssd_dist_requests_under_way 0.0" in metrics.text
    assert ask(app, "POST", "/detect", content=b"x").status_code == 200


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        (Refusal("the picture: not readable"), 422, "the picture: not readable"),
        (NoWorkerError("no worker can answer"), 503, "no worker can answer"),
        (KeyError("ours"), 500, None),
    ],
)
def test_what_a_worker_can_t_answer_is_told_and_forgotten(answer, status, told, worker):
    app = application(worker, max_requests=1)
    worker.answer = answer
    for _ in range(2):  # the first one has given its place back
        response = ask(app, "POST", "/detect", content=b"x")
        assert response.status_code == status
        assert told is None or response.json() == {"detail": told}
        assert "ours" not in response.text


def test_health_is_the_workers(worker):
    app = application(worker)
    assert ask(app, "GET", "/healthz").json() == {"status": "ok"}
    worker.healthy = False
    assert ask(app, "GET", "/healthz").status_code == 503


def test_without_a_token_only_this_machine_s_own_pages_ask(worker):
    app = application(worker)
    for headers, status in (
        ({"Host": "127.0.0.1:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "localhost.example.org"}, 403),  # a name of somebody's that leads here
        ({"Host": "127.0.0.1.example.org"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ):
        response = ask(app, "POST", "/detect", content=b"x", headers=headers)
        assert response.status_code == status, headers


def test_with_a_token_nothing_that_tells_is_told_without_it(worker):
    app = application(worker, token=TOKEN)
    for path in ("/detect", "/metrics", "/detect/", "/absent"):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            response = ask(app, "POST", path, content=b"x", headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
    assert worker.contents == []
    for path in ("/", "/healthz", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
        assert ask(app, "GET", path).status_code == 200
    elsewhere = {**BEARER, "Host": "detector.example.org"}
    assert ask(app, "POST", "/detect", content=b"x", headers=elsewhere).status_code == 200
    assert ask(app, "GET", "/metrics", headers=BEARER).status_code == 200


@pytest.mark.parametrize("token", [None, TOKEN])
def test_the_description_has_the_answer_and_every_refusal(token, worker):
    described = ask(application(worker, token=token), "GET", "/openapi.json").json()
    operation = described["paths"]["/detect"]["post"]
    assert set(operation["requestBody"]["content"]) == {"image/*", "multipart/form-data"}
    assert {"200", "401", "408", "413", "422", "429", "503"} <= set(operation["responses"])
    shape = described["components"]["schemas"]["DetectionResponse"]["properties"]
    answered = ask(
        application(worker, token=token), "POST", "/detect", content=b"x", headers=BEARER
    )
    assert set(shape) == set(answered.json())
    assert ("securitySchemes" in described["components"]) is (token is not None)
    assert TOKEN not in json.dumps(described)


def test_pages_load_nothing_from_elsewhere(worker):
    for path in ("/", "/docs"):
        response = ask(application(worker), "GET", path)
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "https://" not in response.text.replace("https://spec.openapis.org", "")


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "max_requests", "upload_seconds"])
def test_limits_are_above_zero(name):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} must be above 0"):
        Limits(**{name: 0})
