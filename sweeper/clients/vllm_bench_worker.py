"""Runs vLLM's own serving benchmark, one load point after another, in one warm process.

This file is run by path with the interpreter of the engine's environment, so it imports nothing of the
sweeper and is written for any Python that vLLM runs on. Importing the benchmark takes many seconds; it is
done once, while the engine itself is still starting, or once for all engines (``processes.keeper``).

Protocol, one JSON object a line, on the two file descriptors given as arguments:
  reads  {"id": 1, "api_key": "...", "args": ["--backend", "openai", ...]}
  writes {"ready": true} once, then for each run
         {"id": 1, "ok": true, "cpu_wait_s": 0.01, "uncounted": 0, "erred": 0, "first_error": null} or
         {"id": 1, "ok": false, "error": "..."}
``erred`` are the answers that the benchmark took for complete and in whose stream the server sent an error,
whatever followed; ``first_error`` is what the first one said. ``uncounted`` are the others whose tokens the
server did not count: its count is the last thing in a stream, so that one which broke off has none.
The benchmark's result goes to the file that its own arguments name, its printed output to our log.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from contextvars import ContextVar
from pathlib import Path
from typing import Any

# How an answer ends that the server gave up. Source: FinishReason in vllm/v1/engine of 0.32.0.
_GIVEN_UP = ("abort", "error")
_LONGEST_ERROR = 300


def main() -> None:
    """Import the benchmark, say so, and run what is asked for until the requests end."""
    # Our own folder comes first on the path and holds modules with common names.
    sys.path.pop(0)
    requests, replies = int(sys.argv[1]), int(sys.argv[2])
    try:
        benchmark = load()
    except BaseException as exc:
        traceback.print_exc()
        os.write(replies, (json.dumps({"ready": False, "error": _text(exc)}) + "\n").encode())
        return
    serve(benchmark, requests, replies)


def load() -> Any:
    """Import the benchmark and return its module."""
    from vllm.benchmarks import serve as benchmark

    return benchmark


def serve(benchmark: Any, requests_fd: int, replies_fd: int) -> None:
    """Say that the benchmark is imported, and run it for each request until they end."""
    requests = os.fdopen(requests_fd, encoding="utf-8")
    replies = os.fdopen(replies_fd, "w", encoding="utf-8", buffering=1)
    watch = _Watch(benchmark)
    replies.write(json.dumps({"ready": True}) + "\n")
    for line in requests:
        task = json.loads(line)
        try:
            waited_s = _cpu_wait_s()
            watch.reset()
            _run(benchmark, task)
            reply = {"id": task["id"], "ok": True, "cpu_wait_s": _since(waited_s), **watch.told()}
        except KeyboardInterrupt:
            return
        except BaseException as exc:  # a wrong argument ends in SystemExit
            traceback.print_exc()
            reply = {"id": task["id"], "ok": False, "error": _text(exc)}
        sys.stdout.flush()
        replies.write(json.dumps(reply) + "\n")


class _Watch:
    """Counts answers that broke off: with an error of the server in them, or without its count of tokens.

    Source: async_request_openai_completions, and the same for chat, in vllm/benchmarks/lib of 0.32.0
    (endpoint_request_func.py): success means that one message with a choice came; an error in the stream, or
    its early end, changes nothing.
    """

    def __init__(self, serve: Any) -> None:
        self.reset()
        functions = getattr(serve, "ASYNC_REQUEST_FUNCS", {})
        for backend in ("openai", "openai-chat"):
            if backend in functions:
                _watch_messages(functions[backend].__globals__)
                functions[backend] = self._watched(functions[backend])

    def reset(self) -> None:
        self.uncounted = self.erred = 0
        self.first_error: str | None = None

    def told(self) -> dict[str, Any]:
        return {"uncounted": self.uncounted, "erred": self.erred, "first_error": self.first_error}

    def _watched(self, request: Any) -> Any:
        async def watched(*args: Any, **kwargs: Any) -> Any:
            errors: list[str] = []
            _ERRORS.set(errors)
            output = await request(*args, **kwargs)
            if output.success and errors:
                self.erred += 1
                self.first_error = self.first_error or errors[0]
            elif output.success and not output.output_tokens:
                self.uncounted += 1
            return output

        return watched


_ERRORS: ContextVar[list[str] | None] = ContextVar("errors", default=None)
"""Takes the errors in the stream being read; a request runs in a task (so a context) of its own, or alone."""


class _WatchedJson:
    """Stands for the module json where the benchmark reads streams, and looks at what it reads."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def loads(self, *args: Any, **kwargs: Any) -> Any:
        message = self._module.loads(*args, **kwargs)
        error = error_in(message)
        errors = None if error is None else _ERRORS.get()
        if error is not None and errors is not None:
            errors.append(error)
        return message


def _watch_messages(names: dict[str, Any]) -> None:
    """Look at all messages that the functions of a module read, given its names."""
    if "json" in names and not isinstance(names["json"], _WatchedJson):
        names["json"] = _WatchedJson(names["json"])


def error_in(message: Any) -> str | None:
    """Return what a message of a stream says of an error; None where it is a part of an answer.

    Source: create_streaming_error_response of vLLM: an object under "error"; in early releases a message
    that is itself the error, as "object" says.
    """
    if not isinstance(message, dict):
        return None
    if message.get("error") is not None:
        return str(message["error"])[:_LONGEST_ERROR]
    if message.get("object") == "error":
        return str(message.get("message"))[:_LONGEST_ERROR]
    for choice in message.get("choices") or ():
        if isinstance(choice, dict) and choice.get("finish_reason") in _GIVEN_UP:
            return f"an answer that ended by {choice['finish_reason']!r}"
    return None


def _run(benchmark: Any, task: Any) -> None:
    # Read by the benchmark for each request; it travels by pipe so that no command line shows it.
    os.environ["OPENAI_API_KEY"] = task["api_key"]
    parser = _parser()
    benchmark.add_cli_args(parser)
    # By itself it ends the process, and what was wrong would stand in the log alone.
    parser.error = _refuse
    args = parser.parse_args(task["args"])
    if hasattr(benchmark, "main_async"):
        asyncio.run(benchmark.main_async(args))
    else:  # before 0.10.2
        benchmark.main(args)


def _refuse(message: str) -> None:
    raise ValueError(f"the benchmark does not take its arguments: {message}")


def _parser() -> Any:
    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:  # before 0.11.1
        from vllm.utils import FlexibleArgumentParser
    return FlexibleArgumentParser()


def _cpu_wait_s() -> float | None:
    """How long this thread, which runs the benchmark's event loop, has waited for a core so far.

    A client without a core reads late what arrived in time, and its latencies are its own.
    Source: second field of /proc/<pid>/schedstat, nanoseconds (Documentation/scheduler/sched-stats.rst).
    """
    try:
        return int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None


def _since(before_s: float | None) -> float | None:
    now_s = _cpu_wait_s()
    return None if before_s is None or now_s is None else now_s - before_s


def _text(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}"


if __name__ == "__main__":
    main()
