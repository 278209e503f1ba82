"""Traces: what a collector gets by OTLP over HTTP, and the trace context that an application sees."""

import http.server
import json
import threading

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support import wait_for

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Collector(http.server.ThreadingHTTPServer):
    """Takes what OTLP says, and keeps its spans."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.spans, self.services, self.keys = [], set(), set()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
        self.server.keys.add(self.headers["X-Key"])
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in request.resource_spans:
            self.server.services |= {
                attribute.value.string_value
                for attribute in resource.resource.attributes if attribute.key == "service.name"
            }
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def traced(hearth):
    """The daemon with a collector, and the collector."""
    collector = Collector()
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    file = hearth.data / "hearthd.toml"
    before = file.read_text()
    hearth.stop()
    file.write_text(
        f'{before}\n[telemetry]\notlp_endpoint = "http://127.0.0.1:{collector.server_port}"\n'
        'otlp_headers = { "X-Key" = "collector-secret" }\n'
    )
    hearth.start()
    yield hearth, collector
    hearth.stop()
    file.write_text(before)
    collector.shutdown()
    hearth.start()


def attributes(span):
    return {
        attribute.key: attribute.value.string_value or attribute.value.int_value for attribute in span.attributes
    }


def test_requests_of_both_planes_reach_the_collector_and_continue_the_clients_trace(traced, image):
    hearth, collector = traced
    vm = hearth.run(image)
    code = "import json, urllib.request"
    assert vm.python(code) == ""
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
    assert vm.request("GET", "/health?secret=hidden", headers=headers)[0] == 200

    def of_client():
        return [span for span in collector.spans if span.trace_id.hex() == TRACE]

    span = wait_for("the client's span", of_client)[0]
    assert span.parent_span_id.hex() == PARENT and span.name == "endpoint"
    told = attributes(span)
    assert told["hearth.microvm_id"] == vm.id and told["http.response.status_code"] == 200
    assert (told["url.path"], told["http.request.method"], told["hearth.port"]) == ("/health", "GET", 8080)
    assert span.end_time_unix_nano > span.start_time_unix_nano
    hearth.client("s3").list_buckets()
    hearth.client("sts").get_caller_identity()
    hearth.client("logs").describe_log_groups()
    calls = {"RunMicrovm": "lambda", "ListBuckets": "s3", "GetCallerIdentity": "sts", "DescribeLogGroups": "logs"}

    def of_calls():
        found = [span for span in collector.spans if span.name in calls]
        return found if {span.name for span in found} == set(calls) else None

    for span in wait_for("the calls", of_calls):
        told = attributes(span)
        assert (told["rpc.service"], told["rpc.method"]) == (calls[span.name], span.name)
        assert told["http.response.status_code"] in (200, 201)
    assert collector.services == {"hearthd"} and collector.keys == {"collector-secret"}
    log = (hearth.data / "hearthd.log").read_text()
    assert "collector-secret" not in log and "hidden" not in json.dumps([str(span) for span in collector.spans])
    vm.terminate()


def test_the_application_sees_the_clients_trace_below_the_endpoints_span(traced, protocols):
    hearth, collector = traced
    vm = hearth.run(protocols)
    status, _, body = vm.request("GET", "/seen", headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    seen = json.loads(body)["headers"]
    version, trace, parent, flags = seen["traceparent"].split("-")
    assert (status, version, trace, flags, seen["tracestate"]) == (200, "00", TRACE, "01", "vendor=1")
    mine = wait_for("the span", lambda: [span for span in collector.spans if span.span_id.hex() == parent])[0]
    assert mine.parent_span_id.hex() == PARENT
    vm.terminate()
