"""Speaks what endpoints carry: HTTP/1.1, server-sent events and chunks (8080), WebSocket (8081), gRPC over cleartext
HTTP/2 (8082), HTTP in TLS (8443), and bytes (7000)."""

import asyncio
import hashlib
import json
import ssl
import socketserver
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import websockets.asyncio.server

go = threading.Event()
burning = threading.Event()


def burn():
    burning.wait()
    while True:
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body, status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        """The request's body, piece by piece."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            left = int(self.headers.get("Content-Length", 0))
            while left:
                piece = self.rfile.read(min(left, 1 << 16))
                left -= len(piece)
                yield piece
            return
        while size := int(self.rfile.readline().strip(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def do_POST(self):
        if self.path.startswith("/aws/lambda-microvms/runtime/v1/"):
            return self.answer({})
        if self.path == "/go":
            go.set()
            return self.answer({})
        digest, length = hashlib.sha256(), 0
        for piece in self.body():
            digest.update(piece)
            length += len(piece)
        self.answer({"length": length, "sha256": digest.hexdigest(), "coding": self.headers.get("Transfer-Encoding")})

    def do_GET(self):
        path, _, argument = self.path.partition("?")
        if path == "/events":
            self.stream(argument)
        elif path == "/chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(100):
                self.chunk(b"%d," % number)
            self.chunk(b"")
        elif path == "/burn":
            burning.set()
            self.answer({})
        elif path == "/clock":
            self.answer(time.time())
        elif path == "/slow":
            time.sleep(float(argument))
            self.answer({})
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            secure = isinstance(self.connection, ssl.SSLSocket)
            self.answer({"path": self.path, "headers": headers, "peer": self.client_address[0], "tls": secure})

    def stream(self, argument):
        """Events: the second only when somebody says go; with an argument one each so many seconds, without an end."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if argument:
            while True:
                self.chunk(b"data: tick\n\n")
                time.sleep(float(argument))
        go.clear()
        self.chunk(b"data: one\n\n")
        go.wait()
        self.chunk(b"data: two\n\n")
        self.chunk(b"")


async def websocket():
    async def talk(connection):
        async for message in connection:
            if message == "headers":
                message = json.dumps({name.lower(): value for name, value in connection.request.headers.raw_items()})
            await connection.send(message)

    def choose(connection, offered):
        return "chat" if "chat" in offered else None

    async with websockets.asyncio.server.serve(
        talk, "127.0.0.1", 8081, select_subprotocol=choose, ping_interval=None, max_size=None
    ):
        await asyncio.Future()


class Echo(grpc.GenericRpcHandler):
    """Bytes there and back: `/test.Echo/Once` and `/test.Echo/Both`."""

    def service(self, details):
        if details.method == "/test.Echo/Once":
            return grpc.unary_unary_rpc_method_handler(self.once)
        if details.method == "/test.Echo/Both":
            return grpc.stream_stream_rpc_method_handler(lambda requests, _: requests)
        return None

    def once(self, request, context):
        context.set_trailing_metadata((("x-trailer", "kept"),))
        if request == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
        return request


class Bytes(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


class Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main():
    threading.Thread(target=burn, daemon=True).start()
    threading.Thread(target=lambda: asyncio.run(websocket()), daemon=True).start()
    rpc = grpc.server(futures.ThreadPoolExecutor(4))
    rpc.add_generic_rpc_handlers((Echo(),))
    rpc.add_insecure_port("127.0.0.1:8082")
    rpc.start()
    threading.Thread(target=Tcp(("127.0.0.1", 7000), Bytes).serve_forever, daemon=True).start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("server.pem")
    secure = ThreadingHTTPServer(("127.0.0.1", 8443), Handler)
    secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    server = ThreadingHTTPServer(("127.0.0.1", 8080), Handler)
    server.serve_forever()


main()
