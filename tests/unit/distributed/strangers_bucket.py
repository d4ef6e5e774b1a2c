"""A bucket of Google's kind on this machine: unlike an S3's, its objects may have any names."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_TIME = "2026-01-01T00:00:00Z"
_LISTING = "/storage/v1/b/strange/o"


@contextlib.contextmanager
def strangers_bucket(objects):
    """Serves `objects`, name → content, in the bucket `strange`; yields what makes a URI of a
    folder there."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            parts = urlsplit(self.path)
            name = unquote(parts.path.removeprefix(_LISTING).removeprefix("/"))
            query = parse_qs(parts.query)
            if parts.path == _LISTING:
                prefix = query.get("prefix", [""])[0]
                items = [_described(n, objects[n]) for n in objects if n.startswith(prefix)]
                self._send({"kind": "storage#objects", "items": items})
            elif unquote(parts.path).removeprefix("/strange/") in objects:  # another of its ways
                self._send(objects[unquote(parts.path).removeprefix("/strange/")])
            elif name not in objects:
                self._send({"error": {"code": 404, "message": "not found"}}, 404)
            elif query.get("alt") == ["media"]:
                self._send(objects[name])
            else:
                self._send(_described(name, objects[name]))

        def _send(self, content, status=200):
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = f"scheme=http&endpoint_override=127.0.0.1:{server.server_port}"
        yield lambda folder: f"gs://anonymous@strange/{folder}?{options}"
        server.shutdown()


def _described(name, content):
    return {
        "kind": "storage#object",
        "id": name,
        "name": name,
        "bucket": "strange",
        "size": str(len(content)),
        "generation": "1",
        "metageneration": "1",
        "timeCreated": _TIME,
        "updated": _TIME,
    }
