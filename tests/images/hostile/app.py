"""Runs the Python that it is sent, with all that `attacks` knows. Its start is an attack, too: it floods the console."""

import contextlib
import http.server
import io
import json
import traceback

import attacks

session = {"__name__": "session", **vars(attacks)}


def run(code):
    """The value of an expression, as JSON, or what a program printed."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            try:
                return {"value": eval(compile(code, "<sent>", "eval"), session)}
            except SyntaxError:
                exec(compile(code, "<sent>", "exec"), session)
                return {"value": printed.getvalue()}
    except BaseException:
        return {"error": traceback.format_exc()}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        self.answer({"value": "here"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.answer(run(body) if self.path == "/run" else {})

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass


print("the application starts", flush=True)
# Half as much again as the VMM's log keeps: each byte takes a while where virtualization is emulated.
attacks.flood_console(3 << 15)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
