"""A small threaded JSON server over `http.server`."""

import http.server
import json
import socketserver
import threading
import traceback

MAX_BODY_BYTES = 16 * 1024 * 1024


class Server(socketserver.ThreadingTCPServer):
    # Not `http.server.HTTPServer`: that one asks the resolver for its own name when it binds.
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


class Request:
    """One request as a route sees it."""

    def __init__(self, headers, body):
        self.headers, self.body = headers, body

    def is_json(self):
        return self.headers.get_content_type() == "application/json"

    def text(self):
        return self.body.decode("utf-8")

    def json(self):
        value = json.loads(self.body)
        if not isinstance(value, dict):
            raise ValueError("the body must be a JSON object")
        return value


def serve(port, routes):
    """Serves `routes`, a map of (method, path) to a function that answers (status, JSON value),
    on every address of the machine, from a thread of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # one packet per answer

        def do_GET(self):
            try:
                body = self.read_body()
            except ValueError as error:
                self.close_connection = True
                return self.answer(400, {"error": str(error)})
            self.answer(*self.route(body))

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def route(self, body):
            path = self.path.partition("?")[0]
            handler = routes.get((self.command, path))
            if handler is None:
                known = any(path == other for _, other in routes)
                return (405, {"error": "method not allowed"}) if known else (404, {"error": "not found"})
            try:
                return handler(Request(self.headers, body))
            except (ValueError, KeyError) as error:
                return 400, {"error": f"bad request: {error}"}
            except Exception:
                traceback.print_exc()
                return 500, {"error": "internal error"}

        def read_body(self):
            if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
                return self.read_chunks()
            length = int(self.headers.get("Content-Length", 0))
            if not 0 <= length <= MAX_BODY_BYTES:
                raise ValueError("body too large")
            return self.rfile.read(length)

        def read_chunks(self):
            body = bytearray()
            while size := int(self.rfile.readline(64).split(b";")[0], 16):
                if size < 0 or len(body) + size > MAX_BODY_BYTES:
                    raise ValueError("body too large")
                body += self.rfile.read(size)
                self.rfile.readline(8)
            while self.rfile.readline(8192) not in (b"\r\n", b"\n", b""):
                pass  # trailers
            return bytes(body)

        def answer(self, status, value):
            body = json.dumps(value).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass  # requests are the caller's business; the log is for what the service does

    server = Server(("0.0.0.0", port), Handler)
    # The interval only paces the check for a shutdown that never comes: sleep through it.
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 3600}, daemon=True).start()
    return server
