"""Runs the application as a process and talks to it. `python3 -m unittest` in this directory."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import unittest

HOOKS = "/aws/lambda-microvms/runtime/v1/"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class CodeInterpreter(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.port, cls.hooks_port = free_port(), free_port()
        env = dict(os.environ, PORT=str(cls.port), HOOKS_PORT=str(cls.hooks_port))
        main = os.path.join(os.path.dirname(os.path.abspath(__file__)), "app", "main.py")
        cls.process = subprocess.Popen([sys.executable, main], env=env, stdout=subprocess.DEVNULL)
        while cls.process.poll() is None:
            try:
                if cls.call("POST", HOOKS + "ready", port=cls.hooks_port)[0] == 200:
                    return
            except ConnectionRefusedError:
                pass
            time.sleep(0.05)
        raise RuntimeError("the application ended")

    @classmethod
    def tearDownClass(cls):
        cls.process.terminate()
        assert cls.process.wait() == 0

    @classmethod
    def call(cls, method, path, body=None, headers={}, port=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or cls.port)
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        status, value = response.status, json.loads(response.read())
        connection.close()
        return status, value

    def run_code(self, code):
        status, value = self.call("POST", "/run", body=code)
        self.assertEqual(status, 200)
        return value

    def test_state_lasts_between_requests(self):
        self.assertEqual(self.run_code("x = 41\nprint('hi')"), {"stdout": "hi\n", "result": None, "error": None})
        self.assertEqual(self.run_code("x += 1\nx")["result"], "42")

    def test_a_warm_up_leaves_the_session_alone(self):
        self.run_code("kept = 1")
        self.assertEqual(self.call("POST", HOOKS + "validate", port=self.hooks_port)[0], 200)
        self.assertEqual(self.run_code("kept")["result"], "1")

    def test_code_arrives_as_json_or_as_chunks(self):
        headers = {"Content-Type": "application/json"}
        self.assertEqual(self.call("POST", "/run", '{"code": "\'a\' * 3"}', headers)[1]["result"], "'aaa'")
        self.assertEqual(self.call("POST", "/run", iter([b"1 ", b"+ 1"]))[1]["result"], "2")

    def test_an_error_is_a_traceback_of_the_posted_code_alone(self):
        error = self.run_code("def f():\n    return 1 / 0\nf()")["error"]
        self.assertIn("return 1 / 0", error)
        self.assertIn("ZeroDivisionError", error)
        self.assertNotIn("interpreter.py", error)
        self.assertIn("SyntaxError", self.run_code("1 +")["error"])

    def test_exit_does_not_end_the_server(self):
        self.assertIn("SystemExit", self.run_code("raise SystemExit(1)")["error"])
        self.assertEqual(self.call("GET", "/health")[1]["status"], "ok")

    def test_what_a_session_defines_can_be_pickled(self):
        self.run_code("import pickle, dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int")
        self.assertEqual(self.run_code("pickle.loads(pickle.dumps(P(1)))")["result"], "P(x=1)")

    def test_hooks_are_noted_with_the_payload(self):
        body = json.dumps({"microvmId": "microvm-1", "runHookPayload": "tenant-a"})
        for hook, sent in (("run", body), ("suspend", None), ("resume", None)):
            self.assertEqual(self.call("POST", HOOKS + hook, sent, port=self.hooks_port)[0], 200)
        seen = self.call("GET", "/events")[1]
        self.assertEqual([e["hook"] for e in seen["events"]][-3:], ["run", "suspend", "resume"])
        self.assertEqual(seen["payload"], "tenant-a")

    def test_bad_requests_are_answered(self):
        self.assertEqual(self.call("GET", "/nowhere")[0], 404)
        self.assertEqual(self.call("GET", "/run")[0], 405)
        self.assertEqual(self.call("POST", "/run", "[]", {"Content-Type": "application/json"})[0], 400)
        self.assertEqual(self.call("POST", "/run", b"\xff")[0], 400)


if __name__ == "__main__":
    unittest.main()
