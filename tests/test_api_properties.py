"""Whatever is asked, in whatever order or form: documented states, documented errors, and never a failure of the service.
No MicroVM is started. HEARTH_MUTATIONS sets how many mutated requests are sent, HEARTH_SEED repeats a run."""

import json
import os
import random
import socket
import ssl

import model

IMAGES = "/2025-09-09/microvm-images"
MICROVMS = "/2025-09-09/microvms"
NOWHERE = "s3://no-such-bucket/app.zip"
MUTATIONS = int(os.environ.get("HEARTH_MUTATIONS", "10000"))
SEED = int(os.environ.get("HEARTH_SEED", str(random.randrange(1 << 32))))
# From one observation of an image to a later one (spec section 8); what is gone shows no state.
LATER = {
    "CREATING": {"CREATING", "CREATE_FAILED", "UPDATING", "UPDATE_FAILED", "DELETING"},
    "CREATE_FAILED": {"CREATE_FAILED", "UPDATING", "UPDATE_FAILED", "DELETING"},
    "UPDATING": {"UPDATING", "UPDATE_FAILED", "DELETING"},
    "UPDATE_FAILED": {"UPDATING", "UPDATE_FAILED", "DELETING"},
    "DELETING": {"DELETING"},
}
ODD = [
    None, True, False, 0, -1, 1.5, 1e308, 2**31, 2**63, -(2**63), "", "x", "x" * 5000, "\u0000", "ä\U0001f408", "arn:", "../..",
    "%s%n", "'; DROP TABLE images; --", [], {}, [None], [[]], {"": ""}, {"a": {"b": {}}}, {"uri": None}, [1, "x", {}],
]


def specification(hearth):
    return {
        "baseImageArn": hearth.base_arn(), "buildRoleArn": hearth.role(), "codeArtifact": {"uri": NOWHERE},
        "baseImageVersion": "1", "description": "d", "logging": {"cloudWatch": {"logGroup": "g", "logStream": "s"}},
        "cpuConfigurations": [{"architecture": "X86_64"}], "resources": [{"minimumMemoryInMiB": 512}],
        "additionalOsCapabilities": ["ALL"], "environmentVariables": {"A": "1"},
        "hooks": {"port": 9000, "microvmImageHooks": {"ready": "ENABLED"}, "microvmHooks": {"run": "ENABLED"}},
    }


def templates(hearth, arn):
    """A whole request of every operation."""
    tags = f"/2017-03-31/tags/{arn}"
    return [
        ("POST", IMAGES, {**specification(hearth), "name": "mutant", "tags": {"a": "b"}, "clientToken": "t"}),
        ("PUT", f"{IMAGES}/{arn}", specification(hearth)),
        ("GET", f"{IMAGES}/{arn}", None),
        ("GET", f"{IMAGES}?nameFilter=m&maxResults=3&nextToken=x", None),
        ("DELETE", f"{IMAGES}/{arn}", None),
        ("GET", f"{IMAGES}/{arn}/versions?maxResults=2", None),
        ("GET", f"{IMAGES}/{arn}/versions/1.0", None),
        ("PATCH", f"{IMAGES}/{arn}/versions/1.0", {"status": "ACTIVE"}),
        ("DELETE", f"{IMAGES}/{arn}/versions/1.0", None),
        ("GET", f"{IMAGES}/{arn}/versions/1.0/builds?architecture=X86_64&chipset=INTEL&chipsetGeneration=1", None),
        ("GET", f"{IMAGES}/{arn}/versions/1.0/builds/b", None),
        ("GET", "/2025-09-09/managed-microvm-images?maxResults=1", None),
        ("GET", f"/2025-09-09/managed-microvm-images/{hearth.base_arn()}/versions", None),
        ("POST", MICROVMS, {
            "imageIdentifier": arn, "imageVersion": "1.0", "executionRoleArn": hearth.role(), "clientToken": "t",
            "idlePolicy": {"maxIdleDurationSeconds": 60, "suspendedDurationSeconds": 0, "autoResumeEnabled": True},
            "logging": {"disabled": {}}, "runHookPayload": "p", "maximumDurationInSeconds": 60,
            "ingressNetworkConnectors": ["arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:NO_INGRESS"],
        }),
        ("GET", f"{MICROVMS}/microvm-x", None),
        ("GET", f"{MICROVMS}?imageIdentifier={arn}&imageVersion=1.0&maxResults=2", None),
        ("POST", f"{MICROVMS}/microvm-x/suspend", None),
        ("POST", f"{MICROVMS}/microvm-x/resume", None),
        ("DELETE", f"{MICROVMS}/microvm-x", None),
        ("POST", f"{MICROVMS}/microvm-x/auth-token", {
            "expirationInMinutes": 5, "allowedPorts": [{"port": 1}, {"range": {"startPort": 1, "endPort": 2}}, {"allPorts": {}}],
        }),
        ("POST", f"{MICROVMS}/microvm-x/shell-auth-token", {"expirationInMinutes": 5}),
        ("POST", tags, {"Tags": {"a": "b"}}),
        ("DELETE", f"{tags}?tagKeys=a&tagKeys=b", None),
        ("GET", tags, None),
    ]


def mutated_value(dice, value):
    """The value with one thing in it changed."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        key = dice.choice(list(value))
        rest = {k: v for k, v in value.items() if k != key}
        how = dice.random()
        if how < 0.15:
            return rest
        if how < 0.25:
            return {**rest, key + dice.choice(["x", " ", "\u0000", key]): value[key]}
        return {**rest, key: mutated_value(dice, value[key])}
    if isinstance(value, list) and value and dice.random() < 0.8:
        at = dice.randrange(len(value))
        return value[:at] + dice.choice([[], [mutated_value(dice, value[at])], value * 30]) + value[at + 1 :]
    if isinstance(value, str) and dice.random() < 0.5:
        at = dice.randrange(len(value) + 1)
        return value[:at] + dice.choice(["", " ", ":", "/", "\n", "\u0000", "é", "A" * 300]) + value[at + dice.randrange(3) :]
    return dice.choice(ODD)


def mutated_bytes(dice, data):
    """The bytes with some of them changed, doubled or gone."""
    at = dice.randrange(len(data) + 1)
    length = dice.randrange(8)
    return dice.choice([
        data[:at], data[:at] + data[at + length :], data[:at] + dice.randbytes(length) + data[at + length :],
        data[:at] + data, data + data, b"[" * 2000 + data, b"\xef\xbb\xbf" + data,
    ])


def mutated_target(dice, target):
    at = dice.randrange(1, len(target) + 1)
    piece = dice.choice(["", "/", "//", "?", "&", "=", "%", "%00", "%2F", "%ff", "%F0%9F%90%88", ":", "..", "x" * 3000, "%25", "+"])
    return target[:at] + piece + target[at + dice.randrange(4) :]


def mutant(dice, method, target, body):
    if dice.random() < 0.1:
        method = dice.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"])
    if dice.random() < (0.3 if body is not None else 0.8):
        target = mutated_target(dice, target)
    if body is not None and dice.random() < 0.8:
        body = mutated_value(dice, body)
    sent = b"" if body is None and dice.random() < 0.8 else json.dumps(body).encode()
    return method, target, mutated_bytes(dice, sent) if dice.random() < 0.2 else sent


def test_no_mutated_request_is_a_failure_of_the_service(hearth, raw):
    dice = random.Random(SEED)
    before = {image["name"] for image in hearth.client().list_microvm_images()["items"]}
    hearth.create_image("mutant", NOWHERE)
    wholes = templates(hearth, hearth.arn("mutant"))
    seen = {}
    for number in range(MUTATIONS):
        method, target, body = mutant(dice, *dice.choice(wholes))
        what = f"seed {SEED}, number {number}: {method} {target[:300]} {body[:300]!r}"
        headers = raw.signed(method, target, body)
        if dice.random() < 0.05:
            name = dice.choice(list(headers))
            headers[name] = headers[name][: dice.randrange(len(headers[name]) + 1)] + dice.choice(["", "x", ";", "=", ","])
        answer = raw.send(method, target, body, headers)
        assert answer.status < 500, (what, answer)
        if answer.status >= 300 and method != "HEAD":
            assert answer.kind and isinstance(answer.json, dict), (what, answer)
            assert "__type" not in answer.json, (what, answer)
        seen[answer.kind] = seen.get(answer.kind, 0) + 1
    reached = {"ValidationException", "SerializationException", "ResourceNotFoundException", "UnknownOperationException", None}
    assert reached <= set(seen), (SEED, seen)
    assert raw("GET", IMAGES).status == 200
    for image in hearth.client().list_microvm_images()["items"]:
        if image["name"] not in before and image["state"] != "DELETING":
            hearth.await_image(image["name"])
            hearth.delete_image(image["name"])


def test_any_sequence_of_requests_leaves_images_in_documented_states(hearth, raw):
    dice = random.Random(SEED)
    names, last = ["sequence-a", "sequence-b"], {}
    request = {key: specification(hearth)[key] for key in ("baseImageArn", "buildRoleArn", "codeArtifact")}
    for step in range(400):
        name = dice.choice(names)
        target = f"{IMAGES}/{hearth.arn(name)}"
        version = dice.choice(["1.0", "2.0", "3", "9.0"])
        operation, method, path, body = dice.choice([
            ("CreateMicrovmImage", "POST", IMAGES, {**request, "name": name}),
            ("CreateMicrovmImage", "POST", IMAGES, {**request, "name": name, "clientToken": dice.choice("ab")}),
            ("UpdateMicrovmImage", "PUT", target, request),
            ("UpdateMicrovmImage", "PUT", target, {**request, "baseImageVersion": dice.choice(["0", "7"])}),
            ("DeleteMicrovmImage", "DELETE", target, None),
            ("DeleteMicrovmImageVersion", "DELETE", f"{target}/versions/{version}", None),
            ("UpdateMicrovmImageVersion", "PATCH", f"{target}/versions/{version}", {"status": dice.choice(["ACTIVE", "INACTIVE"])}),
            ("GetMicrovmImageVersion", "GET", f"{target}/versions/{version}", None),
            ("RunMicrovm", "POST", MICROVMS, {"imageIdentifier": hearth.arn(name)}),
            ("TagResource", "POST", f"/2017-03-31/tags/{hearth.arn(name)}", {"Tags": {"step": str(step)}}),
        ])
        answer = raw(method, path, body)
        where = f"seed {SEED}, step {step}: {operation} {answer}"
        assert not model.check("lambda-microvms", operation, answer.status, answer.headers, answer.body), where
        assert answer.status < 500, where
        check_image(raw, target, last, where)
    for name in names:
        if hearth.image_exists(name):
            hearth.await_image(name)
            hearth.delete_image(name)


def check_image(raw, target, last, where):
    """What is shown of an image fits what was shown before and itself."""
    answer = raw("GET", target)
    versions = raw("GET", f"{target}/versions")
    if answer.status == 404 or versions.status == 404:
        last.pop(target, None)
        return
    image = answer.json
    former = last.get(target)
    if former is not None and former["id"] == image["id"]:
        assert image["state"] in LATER[former["state"]], (where, former, image)
    assert image["state"] in LATER, (where, image)
    last[target] = image
    items = versions.json["items"]
    numbers = [float(version["imageVersion"]) for version in items]
    assert numbers and numbers == sorted(set(numbers), reverse=True), (where, numbers)
    for version in items:
        assert version["state"] in ("PENDING", "IN_PROGRESS", "FAILED"), (where, version)
        assert version["status"] == "INACTIVE", (where, version)
    assert image["latestActiveImageVersion"] is None


def test_what_is_no_http_is_refused_and_hurts_nobody(hearth, raw):
    address, port = raw.host.split(":")
    lines = [
        b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n", b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
    for line in lines:
        with socket.create_connection((address, int(port)), timeout=30) as plain:
            with raw.context.wrap_socket(plain, server_hostname=address) as tls:
                try:
                    tls.sendall(line)
                    tls.settimeout(30)
                    answer = tls.recv(200)
                except (ConnectionError, ssl.SSLError):
                    answer = b""
        assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 505")), (line[:60], answer)
    assert raw("GET", IMAGES).status == 200
