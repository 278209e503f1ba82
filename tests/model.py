"""Whether answers are what botocore's service models promise: members, types, nulls, statuses and error shapes."""

import datetime
import functools
import json
import re

import botocore.session

# On the wire although the model does not know them (spec section 4.6); the last is ours.
UNMODELLED = {"id", "buildPhaseOverrides", "roleConfiguration", "versionStateTimeBucket", "terminationReasonCode", "vmm"}
# The guide knows more states of a managed image version than the model.
MORE_VALUES = {"EXPIRING", "EXPIRED"}
# Errors that any operation may give before it is reached.
COMMON = {
    "SerializationException": 400,
    "MalformedQueryStringException": 400,
    "MissingAuthenticationTokenException": 403,
    "IncompleteSignatureException": 403,
    "InvalidSignatureException": 403,
    "UnrecognizedClientException": 403,
    "ExpiredTokenException": 403,
    "UnknownOperationException": 404,
    "RequestTimeoutException": 408,
    "RequestEntityTooLargeException": 413,
    # Constraints and permissions of lambda-core, whose model names neither (spec sections 3.3 and 35, line 107).
    "ValidationException": 400,
    "AccessDeniedException": 403,
}


@functools.cache
def service_model(service="lambda-microvms"):
    return botocore.session.get_session().get_service_model(service)


def watch(client, service):
    """From now on every answer to this client is checked when it arrives."""
    if service in ("lambda-microvms", "lambda-core"):
        client.meta.events.register(f"response-received.{service}", functools.partial(received, service))


def received(service, event_name, response_dict=None, **_):
    if response_dict is not None:
        operation = event_name.rsplit(".", 1)[1]
        problems = check(service, operation, response_dict["status_code"], response_dict["headers"], response_dict["body"])
        assert not problems, f"{operation}: {problems} in {response_dict['body']!r}"


def check(service, operation, status, headers, body):
    """What is wrong with an answer; nothing, if all is well."""
    model = service_model(service).operation_model(operation)
    headers = {name.lower(): value for name, value in headers.items()}
    problems = [] if re.fullmatch(r"[0-9a-f-]{36}", headers.get("x-amzn-requestid", "")) else ["no x-amzn-requestid"]
    if status >= 300:
        return problems + error_problems(model, status, headers, json.loads(body))
    if status != model.http["responseCode"]:
        problems.append(f"status {status}")
    if status == 204:
        return problems + (["a body"] if body else [])
    nulls = service == "lambda-microvms" and model.http["requestUri"].startswith("/2025-09-09")
    if model.output_shape is None:
        return problems + ([] if json.loads(body) == {} else ["members where there are none"])
    return problems + shape_problems(model.output_shape, json.loads(body), "", nulls)


def error_problems(model, status, headers, body):
    kind = headers.get("x-amzn-errortype")
    problems = ["__type in the body"] if "__type" in body else []
    if kind in COMMON:
        return problems + ([] if status == COMMON[kind] else [f"{kind} with status {status}"])
    shape = next((shape for shape in model.error_shapes if shape.name == kind), None)
    if shape is None:
        return problems + [f"{kind} is no error of this operation"]
    if shape.metadata["error"]["httpStatusCode"] != status:
        problems.append(f"{kind} with status {status}")
    known = {name for name, member in shape.members.items() if "location" not in member.serialization}
    return problems + [f"unknown member {name}" for name in body if name not in known | {"Message"}]


def shape_problems(shape, value, path, nulls):
    kind = shape.type_name
    if kind == "structure":
        return structure_problems(shape, value, path, nulls)
    if kind == "list":
        if not isinstance(value, list):
            return [f"{path}: no list"]
        return [p for i, item in enumerate(value) for p in shape_problems(shape.member, item, f"{path}[{i}]", nulls)]
    if kind == "map":
        if not isinstance(value, dict):
            return [f"{path}: no map"]
        return [p for key, item in value.items() for p in shape_problems(shape.value, item, f"{path}.{key}", nulls)]
    if kind == "timestamp":
        return [] if is_timestamp(value, nulls) else [f"{path}: no timestamp: {value!r}"]
    wanted = {"string": str, "integer": int, "long": int, "boolean": bool}[kind]
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        return [f"{path}: {value!r} is no {kind}"]
    values = getattr(shape, "enum", None)
    return [f"{path}: {value!r} is none of {values}"] if values and value not in {*values, *MORE_VALUES} else []


def structure_problems(shape, value, path, nulls):
    if not isinstance(value, dict):
        return [f"{path}: no structure"]
    is_union = getattr(shape, "is_tagged_union", False)
    problems = [f"{path}.{name}: unmodelled" for name in value if name not in shape.members and name not in UNMODELLED]
    for name, member in shape.members.items():
        if value.get(name) is not None:
            problems += shape_problems(member, value[name], f"{path}.{name}", nulls)
        elif name in shape.required_members:
            problems.append(f"{path}.{name}: missing")
        elif nulls and not is_union and name not in value:
            problems.append(f"{path}.{name}: not even null")
    if is_union and len(value) != 1:
        problems.append(f"{path}: {len(value)} members of a union")
    return problems


def is_timestamp(value, as_number):
    if as_number:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        return datetime.datetime.fromisoformat(value.replace("Z", "+00:00")).tzinfo is not None
    except (AttributeError, ValueError):
        return False
