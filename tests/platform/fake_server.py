"""A small HTTP server that speaks just enough of the OpenAI protocol, and says what the test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]
AT_ONCE = {"retry-after-ms": "1"}


@dataclass
class Answer:
    body: dict[str, Any] | str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def says(text: str | None, *, finish: str = "stop", prompt: int = 10, completion: int = 3) -> Answer:
    """A chat completion."""
    return Answer(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "fake",
            "choices": [
                {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
            ],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
        }
    )


def acts(action: str) -> Answer:
    return says(json.dumps({"thought": "why not", "action": action}))


def fails(status: int, message: str = "no") -> Answer:
    return Answer({"error": {"message": message}}, status, AT_ONCE)


class FakeServer:
    """Answers with `answer(request)`; keeps the requests, and how many were in work at a time."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.keys: list[str | None] = []
        self.most_at_a_time = 0
        self.url = ""
        self._lock = threading.Lock()
        self._now = 0

    def handle(self, request: Request, key: str | None) -> Answer:
        with self._lock:
            self.requests.append(request)
            self.keys.append(key)
            self._now += 1
            self.most_at_a_time = max(self.most_at_a_time, self._now)
        try:
            return self.answer(request)
        finally:
            with self._lock:
                self._now -= 1


@contextmanager
def serving(answer: Callable[[Request], Answer]) -> Iterator[FakeServer]:
    fake = FakeServer(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one packet: two would wait for each other's acknowledgement

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = fake.handle(request, self.headers.get("authorization"))
            is_text = isinstance(found.body, str)
            content = (found.body if is_text else json.dumps(found.body)).encode()
            self.send_response(found.status if self.path == "/v1/chat/completions" else 404)
            self.send_header("content-type", "text/html" if is_text else "application/json")
            self.send_header("content-length", str(len(content)))
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            return  # a client that gave up is no news

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
