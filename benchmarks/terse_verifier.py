"""A verifier that knows the terse calculator, behind a URL: it answers the questions of the critic "first_error" without a mistake.

The tiny policy cannot read a question in words, so that in `benchmarks.agent_r` it cannot judge itself as a language model would. This
stands in its place, as any model behind a URL can (`roles: {verifier: {url: ...}}`): an HTTP server in a thread of this process that
speaks as much of OpenAI's chat protocol as a judge needs. A call is Good if it is one of the calls that lead to the result, Bad if it is
another one or a wrong answer, and Uncertain if it is no call at all (a revision thought).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from agentloop.model.tiny_game import OPERATIONS

MODEL = "terse-verifier"
_EXPRESSION = re.compile(r"saw first:\n> \(*(\d+)(.*)")
_LATEST = re.compile(r"The latest action, step \d+:\n> (.*)")
_OPERATION = re.compile(r"([+*-])(\d+)")


def judgement(question: str) -> str:
    """ "Good", "Bad" or "Uncertain" of the latest action in a question of the critic "first_error".

    Raises:
        ValueError: It is no such question about a terse calculator.
    """
    task, latest = _EXPRESSION.search(question), _LATEST.search(question)
    if task is None or latest is None:
        raise ValueError(f"no question about a step of a terse calculator: {question[:200]!r}")
    number, calls = int(task[1]), set()
    for sign, operand in _OPERATION.findall(task[2]):
        name, apply = OPERATIONS[sign]
        calls.add(f"{name}({number},{operand})")
        number = apply(number, int(operand))
    said = latest[1].strip()
    if said in calls or said == str(number):
        return "Good"
    return "Bad" if re.fullmatch(r"-?\d+|(add|sub|mul)\(-?\d+,-?\d+\)", said) else "Uncertain"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer({"data": [{"id": MODEL}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": f"Judgement: {judgement(body['messages'][-1]['content'])}"}
        self._answer({"choices": [{"message": message, "finish_reason": "stop"}]})

    def _answer(self, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is logged."""


@contextmanager
def serving(port: int = 0) -> Iterator[str]:
    """The verifier's address while it serves; port 0 takes a free one."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
