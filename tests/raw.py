"""Signed requests as they go over the wire: nothing between a test and the bytes, where an SDK would hide the truth."""

import dataclasses
import datetime
import http.client
import json
import ssl
import time
import urllib.parse

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


def canonical(query):
    """The query as a signature covers it, however it is spelled on the wire."""
    spelled = lambda text: urllib.parse.quote(urllib.parse.unquote(text, errors="surrogateescape"), safe="-_.~", errors="surrogateescape")
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(f"{spelled(name)}={spelled(value)}" for name, _, value in pairs)


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def kind(self):
        return self.headers.get("x-amzn-errortype")

    @property
    def message(self):
        return self.json.get("message", self.json.get("Message"))


class Raw:
    """One kept-alive connection to the daemon."""

    def __init__(self, settings):
        self.settings = settings
        self.host = settings["endpointUrl"].split("//")[1]
        self.context = ssl.create_default_context(cafile=settings["ca"])
        self.connection = None

    def signed(self, method, target, body=b"", *, service="lambda", region=None, key=None, secret=None, when=None, headers=None):
        """The headers of a request with its signature."""
        credentials = Credentials(key or self.settings["accessKeyId"], secret or self.settings["secretAccessKey"])
        path, mark, query = target.partition("?")
        request = AWSRequest(method, f"https://{self.host}{path}{mark}{canonical(query)}", headers or {}, body)
        auth = SigV4Auth(credentials, service, region or self.settings["region"])
        when = when or datetime.datetime.now(datetime.timezone.utc)
        request.context["timestamp"] = when.strftime("%Y%m%dT%H%M%SZ")
        auth._modify_request_before_signing(request)
        text = auth.string_to_sign(request, auth.canonical_request(request))
        auth._inject_signature_to_request(request, auth.signature(text, request))
        return dict(request.headers)

    def send(self, method, target, body=b"", headers=None):
        """One request with exactly these headers; the connection is made anew when the daemon has closed it."""
        for attempt in (1, 2):
            if self.connection is None:
                self.connection = http.client.HTTPSConnection(self.host, context=self.context, timeout=60)
            try:
                self.connection.putrequest(method, target, skip_accept_encoding=True)
                sent = {"Content-Length": str(len(body)), **(headers or {})}
                for name, value in sent.items():
                    self.connection.putheader(name, value)
                self.connection.endheaders(body)
                response = self.connection.getresponse()
                answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
                if response.will_close:
                    self.close()
                return answer
            except OSError as error:
                self.close()
                if attempt == 2 or not isinstance(error, (ConnectionError, ssl.SSLEOFError)):
                    raise

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def __call__(self, method, target, body=None, **signing):
        """A signed request; a body that is not bytes is sent as JSON. As every SDK does, it waits when it is throttled."""
        if body is None:
            body = b""
        elif not isinstance(body, bytes):
            body = json.dumps(body).encode()
        for _ in range(60):
            answer = self.send(method, target, body, self.signed(method, target, body, **signing))
            if answer.status != 429:
                break
            time.sleep(float(answer.headers.get("retry-after", 1)))
        return answer
