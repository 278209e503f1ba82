"""Who may enter an endpoint, and what it says to those who may not (spec section 18.3)."""


def test_without_a_token_or_with_garbage_nobody_enters(microvm):
    for token in ["", "garbage", "a.b.c.d.e"]:
        status, _, body = microvm.request(token=token)
        assert (status, body) == (403, b"Request missing authentication")


def test_a_token_opens_its_own_ports_only(microvm):
    status, _, body = microvm.request("GET", "/health", port=8080, token=microvm.token(9000))
    assert (status, body) == (403, b"Access to port denied")
    assert microvm.request("GET", "/health", token=microvm.token(8080))[0] == 200


def test_a_token_of_another_microvm_is_refused(hearth, image, microvm):
    other = hearth.run(image)
    status, _, body = microvm.request(token=other.token(8080))
    assert (status, body) == (403, b"Token authentication failed")
    other.terminate()


def test_a_granted_port_without_a_listener_is_a_bad_gateway(microvm):
    status, _, body = microvm.request(port=4711)
    assert (status, body) == (502, b"")


def test_malformed_ports_are_refused(microvm):
    for port in ["banana", "0", "70000"]:
        assert microvm.request(headers={"X-aws-proxy-port": port}, token=microvm.token())[0] == 400
