"""Every constraint that botocore's model puts on every member of every request, broken one at a time. The daemon's own
tables have no say here: what it must refuse comes from the model. No MicroVM is started."""

import urllib.parse

import pytest

import model

ROLE = "arn:aws:iam::000000000001:role/build"
# A value that satisfies each member whose pattern is more than "no spaces".
EXAMPLES = {"buildRoleArn": ROLE, "executionRoleArn": ROLE, "kmsKeyIdentifier": "alias/k", "name": "n", "logGroup": "g"}
OPERATIONS = model.service_model().operation_names


def example(shape, name="x"):
    kind = shape.type_name
    if kind == "string":
        if getattr(shape, "enum", None):
            return shape.enum[0]
        if name == "Resource":
            return "arn:aws:lambda:us-east-1:000000000001:microvm-image:x"
        return EXAMPLES.get(name, "x" * max(1, shape.metadata.get("min", 1)))
    if kind in ("integer", "long"):
        return max(1, shape.metadata.get("min", 1))
    if kind == "boolean":
        return True
    if kind == "list":
        return [example(shape.member)] * max(1, shape.metadata.get("min", 0))
    if kind == "map":
        return {example(shape.key): example(shape.value)}
    if getattr(shape, "is_tagged_union", False):
        name, member = next(iter(shape.members.items()))
        return {name: example(member, name)}
    return {name: example(member, name) for name, member in shape.members.items() if name in shape.required_members}


def broken(shape, name):
    """Values that break exactly one thing, each with a part of the message."""
    limits, kind = shape.metadata, shape.type_name
    good = example(shape, name)
    if kind == "string":
        if getattr(shape, "enum", None):
            yield "NO_SUCH_VALUE", "enum value set"
        if limits.get("min", 0) > 0:
            yield good[: limits["min"] - 1], f"length greater than or equal to {limits['min']}"
        if "max" in limits:
            yield good + "x" * (limits["max"] + 1 - len(good)), f"length less than or equal to {limits['max']}"
        if "pattern" in limits:
            yield ("a:b" if name == "logStream" else "not \t this!" + "!" * 20), "regular expression pattern"
    elif kind in ("integer", "long"):
        if "min" in limits:
            yield limits["min"] - 1, f"value greater than or equal to {limits['min']}"
        if "max" in limits:
            yield limits["max"] + 1, f"value less than or equal to {limits['max']}"
    elif kind == "list":
        if limits.get("min", 0) > 0:
            yield [], "length greater than or equal to"
        if "max" in limits:
            yield [example(shape.member)] * (limits["max"] + 1), "length less than or equal to"
        for value, words in broken(shape.member, name):
            yield [value], words
    elif kind == "map":
        if "max" in limits:
            yield {f"k{i}": example(shape.value) for i in range(limits["max"] + 1)}, "length less than or equal to"
        for value, words in broken(shape.key, name):
            yield {value: example(shape.value)}, words
        for value, words in broken(shape.value, name):
            yield {"k": value}, words
    elif kind == "structure":
        union = getattr(shape, "is_tagged_union", False)
        for inner, member in shape.members.items():
            whole = {} if union else example(shape)
            if inner in shape.required_members:
                yield {key: value for key, value in whole.items() if key != inner}, "must not be null"
            for value, words in broken(member, inner):
                yield {**whole, inner: value}, words


def sent(raw, operation, members):
    """The operation with these members, each in its place; the answer."""
    target, query, body = operation.http["requestUri"], [], {}
    for name, value in members.items():
        place = operation.input_shape.members[name].serialization
        if place.get("location") == "uri":
            target = target.replace("{%s}" % place.get("name", name), urllib.parse.quote(str(value), safe=""))
        elif place.get("location") == "querystring":
            values = value if isinstance(value, list) else [value]
            query += [f"{place.get('name', name)}={urllib.parse.quote(str(item), safe='')}" for item in values]
        else:
            body[name] = value
    target += "?" + "&".join(query) if query else ""
    return raw(operation.http["method"], target, body if operation.http["method"] != "GET" else None)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_constraint_of_an_operation_is_enforced_and_named(hearth, raw, name):
    operation = model.service_model().operation_model(name)
    shape = operation.input_shape
    required = {member: example(shape.members[member], member) for member in shape.required_members}
    for member, member_shape in shape.members.items():
        in_path = member_shape.serialization.get("location") == "uri"
        path = member[0].lower() + member[1:]
        cases = list(broken(member_shape, member))
        if member in shape.required_members and not in_path:
            cases.append((None, "must not be null"))
        for value, words in cases:
            if in_path and value == "":
                continue
            members = {**required, member: value}
            if value is None:
                del members[member]
            answer = sent(raw, operation, members)
            where = f"{name}.{member} = {str(value)[:80]!r}"
            assert (answer.status, answer.kind) == (400, "ValidationException"), (where, answer)
            assert words in answer.message and f"'{path}" in answer.message, (where, answer.message)
            assert not model.check("lambda-microvms", name, answer.status, answer.headers, answer.body), where


@pytest.mark.parametrize("name", OPERATIONS)
def test_all_violations_of_a_request_are_in_one_message(hearth, raw, name):
    shape = model.service_model().operation_model(name).input_shape
    members, named = {}, []
    for member, member_shape in shape.members.items():
        value = next((value for value, _ in broken(member_shape, member) if value != ""), None)
        if value is not None:
            members[member] = value
            named.append(f"'{member[0].lower()}{member[1:]}")
        elif member in shape.required_members:
            members[member] = example(member_shape, member)
    assert named, "every operation has a constraint"
    message = sent(raw, model.service_model().operation_model(name), members).message
    assert all(f" at {path}" in message for path in named), message[:300]
    count = message.count(" failed to satisfy constraint: ")
    plural = "s" if count > 1 else ""
    assert message.startswith(f"{count} validation error{plural} detected: ")
