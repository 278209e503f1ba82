"""One Python session that remembers what it ran."""

import ast
import contextlib
import io
import linecache
import sys
import threading
import traceback
import types


# Standard output is the whole process's, whatever session runs.
ONE_AT_A_TIME = threading.Lock()


class Interpreter:
    """Runs one piece of code at a time in one namespace that lasts as long as the process."""

    def __init__(self):
        self.runs = 0
        # A module of its own under the name `__main__`, so that pickle, dataclasses and type
        # hints find what the session defines.
        self._session = types.ModuleType("__main__")
        sys.modules["__main__"] = self._session

    def run(self, code):
        """Runs `code`; answers what it printed, the `repr` of its last expression, its traceback."""
        with ONE_AT_A_TIME:
            self.runs += 1
            name = f"<run {self.runs}>"
            out, value, error = io.StringIO(), None, None
            with contextlib.redirect_stdout(out):
                try:
                    value = self._evaluate(code, name)
                    result = None if value is None else repr(value)
                except BaseException:  # SystemExit too: `exit()` must not end the server
                    result, error = None, trace(name)
            return {"stdout": out.getvalue(), "result": result, "error": error}

    def _evaluate(self, code, name):
        # Lets tracebacks quote the lines of this run.
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        names = self._session.__dict__
        exec(compile(tree, name, "exec"), names)
        if last is None:
            return None
        return eval(compile(ast.Expression(last.value), name, "eval"), names)


def trace(name):
    """The current exception's traceback from the first frame of the posted code on."""
    kind, error, frame = sys.exc_info()
    while frame is not None and frame.tb_frame.f_code.co_filename != name:
        frame = frame.tb_next
    return "".join(traceback.format_exception(kind, error, frame))
