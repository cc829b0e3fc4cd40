"""A simulator behind an endpoint, against a small server of our own that speaks chat completions."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from envs.registry import get_task
from lmrl_ray.simulators import SimulatorError, loading


class Server(ThreadingHTTPServer):
    """Answers with `reply(request)`, after as many errors 500 as `failures` says."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        self.failures = 0
        self.status = 200
        self.reply = lambda request: "Yes."
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers["Authorization"], body))
        status = self.server.status
        if self.server.failures:
            self.server.failures -= 1
            status = 500
        message = {"role": "assistant", "content": self.server.reply(body) if status == 200 else None}
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        }
        payload = json.dumps(answer if status == 200 else {"error": {"message": "not today"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        return


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "the key")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    loading.load.cache_clear()
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    loading.load.cache_clear()


def make(server, task="twenty-questions", **env):
    made = get_task(task).make(simulator="api:gpt-test", base_url=server.url, **env)
    made.reset(seed=0, options={"task_id": 10})
    return made


def test_an_endpoint_is_asked_with_the_rules_and_the_question(server):
    env = make(server)
    assert env.step("Is it alive?\n")[0] == "Yes.\n"
    ((path, key, body),) = server.requests
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer the key", "gpt-test")
    system, user = body["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert "exactly one of these lines" in system["content"]
    assert user["content"].splitlines()[1:3] == ["object: (Cat)", "question: Is it alive?"]
    assert body["temperature"] == 0.0


def test_an_endpoint_s_episodes_say_api(server):
    spec = get_task("twenty-questions")
    assert spec.play(make(server), spec.baseline("random"), 0).simulator == "api"


def test_what_it_says_is_filtered_like_any_other_answer(server):
    server.reply = lambda request: "It is a cat, obviously."
    assert make(server).step("Is it alive?\n")[0] == "I can't answer that.\n"
    server.reply = lambda request: "\n  Yes.\nBecause cats are."
    assert make(server).step("Is it alive?\n")[0] == "Yes.\n"


def test_a_buyer_is_drawn_by_the_episode_s_seed(server):
    server.reply = lambda request: f"Hm {request['seed'] % 7}."
    first, second = make(server, "car-dealer"), make(server, "car-dealer")
    assert first.step("Hello!\n") == second.step("Hello!\n")
    assert server.requests[0][2]["temperature"] == 1.0


def test_a_server_s_fault_is_tried_again(server, monkeypatch):
    server.failures = 1
    assert make(server).step("Is it alive?\n")[0] == "Yes.\n"
    assert len(server.requests) == 2


def test_a_refusal_is_an_error_with_the_endpoint_and_the_model(server):
    server.status = 401
    with pytest.raises(
        SimulatorError, match=r"'api:gpt-test' at http://127.0.0.1:\d+/v1.*not today"
    ) as raised:
        make(server).step("Is it alive?\n")
    assert "the key" not in str(raised.value)


def test_a_missing_key_is_an_error_that_names_the_variable(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(SimulatorError, match="OPENAI_API_KEY is not set"):
        make(server)


def test_a_missing_endpoint_is_an_error_that_says_where_to_give_it(server, monkeypatch):
    with pytest.raises(SimulatorError, match=r"no endpoint; give --set env\.base_url=URL"):
        get_task("twenty-questions").make(simulator="api:gpt-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert get_task("twenty-questions").make(simulator="api:gpt-test").simulator == "api"
