"""A prompted model at work, behind a server that the test holds in its hands."""

import json
import socket
import threading
import time
from pathlib import Path

import pytest
from fake_server import Answer, acts, fails, says, serving

from envs import get_task
from envs.maze.baselines import OptimalFullPolicy
from lmrl_ray.config import ConfigError
from lmrl_ray.evaluate import evaluate_baseline
from lmrl_ray.prompted.client import ApiError, Usage
from lmrl_ray.prompted.config import PromptedConfig, find_endpoint
from lmrl_ray.prompted.evaluate import evaluate_prompted

MAZE = get_task("maze-fo")
SMALL = {"layout": "umaze"}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def evaluate(tmp_path):
    """Evaluate "fake" at a server, on the small maze unless told otherwise."""

    def run(url, task="maze-fo", episodes=6, seed=0, env=SMALL, progress=None, **config):
        settings = {"base_url": url, "retries": 0, "examples": 0, **config}
        return evaluate_prompted(
            get_task(task),
            "fake",
            PromptedConfig(**settings),
            env=env,
            episodes=episodes,
            seed=seed,
            out=tmp_path,
            on_progress=progress or (lambda _: None),
        )

    return run


def best_move(env=None):
    """A model that reads the latest observation and knows the maze."""
    policy = OptimalFullPolicy()
    policy.begin(MAZE.make(**(env or {})), "", None)
    return lambda request: acts(policy.act(request["messages"][-1]["content"] + "\n"))


def test_a_model_that_knows_the_way_gets_the_best_score(evaluate):
    with serving(best_move()) as server:
        found = evaluate(server.url, episodes=25, env={})
    score, best = found.score, evaluate_baseline(MAZE, "optimal", episodes=25, seed=0)
    assert score.policy == "api:fake"
    assert score.raw_return == pytest.approx(-6.84)
    assert (score.raw_return, score.ci95, score.success_rate) == (best.raw_return, best.ci95, 1.0)
    assert (score.invalid_rate, score.cut_rate, score.failed) == (0.0, 0.0, 0)
    moves = round(25 * score.mean_length)
    assert found.usage == Usage(requests=moves, prompt_tokens=10 * moves, completion_tokens=3 * moves)
    assert len(server.requests) == moves
    assert set(server.keys) == {"Bearer secret"}


def test_a_request_says_what_was_set(evaluate):
    with serving(best_move(SMALL)) as server:
        evaluate(
            server.url,
            episodes=1,
            temperature=0.25,
            max_tokens=99,
            response_format="json_object",
            extra_body={"top_k": 3},
        )
    request = server.requests[0]
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("fake", 0.25, 99)
    assert (request["response_format"], request["top_k"]) == ({"type": "json_object"}, 3)
    with serving(best_move(SMALL)) as server:
        evaluate(server.url, episodes=1, temperature=None, max_tokens=None)
    assert set(server.requests[0]) == {"model", "messages"}


def test_the_cost_follows_from_the_prices(evaluate):
    with serving(best_move(SMALL)) as server:
        found = evaluate(server.url, input_price=2.0, output_price=10.0)
    requests = found.usage.requests
    assert found.cost == pytest.approx(requests * (10 * 2.0 + 3 * 10.0) / 1e6)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}])
def test_no_cost_is_made_up_where_the_server_counts_nothing(evaluate, usage):
    def answer(request):
        found = best_move(SMALL)(request)
        found.body["usage"] = usage
        return found

    with serving(answer) as server:
        found = evaluate(server.url, input_price=2.0, output_price=10.0)
    assert found.usage.uncounted == found.usage.requests > 0
    assert found.cost is None


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_request_is_repeated_while_the_server_is_busy(evaluate, status):
    turn = threading.Lock()
    seen = {}

    def answer(request):
        text = json.dumps(request["messages"])
        with turn:
            seen[text] = seen.get(text, 0) + 1
            first = seen[text] <= 2
        return fails(status) if first else best_move(SMALL)(request)

    with serving(answer) as server:
        found = evaluate(server.url, retries=3, episodes=3, concurrency=1)
    assert found.score.success_rate == 1.0
    assert len(server.requests) > found.usage.requests


def test_a_server_that_stays_busy_ends_the_evaluation(evaluate):
    with serving(lambda _: fails(429, "slow down")) as server:
        with pytest.raises(ApiError, match=r"answers 429: .*slow down"):
            evaluate(server.url, retries=2, concurrency=1)
        assert len(server.requests) == 3


def test_a_reply_without_an_action_is_asked_again_with_the_legal_ones(evaluate):
    def answer(request):
        if "legal actions" in request["messages"][-1]["content"]:
            return best_move(SMALL)({"messages": request["messages"][:-2]})
        return says("I would rather not say.")

    with serving(answer) as server:
        found = evaluate(server.url)
    assert found.score.success_rate == 1.0
    assert found.score.invalid_rate == 0.0
    assert found.usage.reasked == found.usage.requests / 2
    assert found.usage.unanswered == 0


def test_a_model_that_never_answers_in_form_plays_empty_lines_and_it_shows(evaluate):
    with serving(lambda _: says("Hm.")) as server:
        found = evaluate(server.url, task="wordle", episodes=2, env={})
    assert found.score.raw_return == -6.0
    assert found.score.invalid_rate == 1.0
    assert found.usage == Usage(24, 12, 12, prompt_tokens=240, completion_tokens=72)


def test_an_illegal_action_is_left_to_the_simulator_after_one_more_try(evaluate):
    with serving(lambda _: acts("jump")) as server:
        found = evaluate(server.url, episodes=1)
    assert found.score.raw_return == 100 * -4.0 - 1.0
    assert (found.usage.reasked, found.usage.unanswered) == (101, 0)


def test_without_content_there_is_no_action(evaluate):
    with serving(lambda _: says(None, finish="length")) as server:
        found = evaluate(server.url, task="wordle", episodes=1, env={})
    assert found.score.cut_rate == 1.0
    assert found.usage.unanswered == 6


def test_finished_episodes_are_not_played_again(evaluate):
    with serving(best_move(SMALL)) as server:
        whole = evaluate(server.url, seed=3, concurrency=1)
        asked = len(server.requests)
        again = evaluate(server.url, seed=3)
        assert len(server.requests) == asked
        assert again == whole
        more, counted = evaluate(server.url, seed=3, episodes=8, concurrency=2), len(server.requests)
    assert more.record == whole.record
    assert more.score.episodes == 8
    assert more.usage.requests == counted


def test_an_evaluation_that_broke_goes_on_where_it_was(evaluate):
    left = 5

    def answer(request):
        nonlocal left
        left -= 1
        return best_move(SMALL)(request) if left >= 0 else fails(400, "out of credit")

    with serving(answer) as server:
        with pytest.raises(ApiError, match=r"answers 400: .*out of credit"):
            evaluate(server.url, concurrency=1)
        played, left, progress = len(server.requests), 1000, []
        found = evaluate(server.url, concurrency=1, progress=progress.append)
        again = evaluate(server.url)
        kept = progress[0]
        assert 0 < kept < 6
        assert progress[1:] == [1] * (6 - kept)
    lines = [json.loads(line) for line in found.record.read_text().splitlines()]
    assert sorted(line["index"] for line in lines if "index" in line) == list(range(6))
    # What the first call has paid for without finishing it is told, too; the request that was refused is not.
    assert found.usage.requests == len(server.requests) - 1
    assert again.usage == found.usage
    # Only what was asked for an episode that had not ended is asked for again.
    assert len(server.requests) < played + sum(line["usage"]["requests"] for line in lines if "index" in line)
    with serving(best_move(SMALL)) as server:
        straight = evaluate(server.url, concurrency=1)
    assert straight.score == found.score
    assert straight.record != found.record  # another address is another endpoint


def test_a_line_that_a_crash_has_torn_is_cut_off(evaluate):
    with serving(best_move(SMALL)) as server:
        whole = evaluate(server.url)
        content = whole.record.read_bytes()
        whole.record.write_bytes(content[:-40])
        asked = len(server.requests)
        again = evaluate(server.url)
        assert len(server.requests) > asked
    assert again.score == whole.score
    assert len(again.record.read_text().splitlines()) == 7


def test_a_damaged_record_is_an_error_that_names_the_line(evaluate):
    with serving(best_move(SMALL)) as server:
        record = evaluate(server.url).record
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join([*lines[:2], "nonsense\n", *lines[3:]]))
        with pytest.raises(ConfigError, match="line 3 is no episode"):
            evaluate(server.url)


def test_other_settings_are_another_record(evaluate):
    changes = ({}, {"temperature": 0.5}, {"seed": 1}, {"env": {"feedback": "standard"}}, {"examples": 1})
    with serving(lambda _: acts("about")) as server:
        options = {"task": "wordle", "env": {}, "episodes": 1}
        records = {evaluate(server.url, **{**options, **change}).record for change in changes}
    assert len(records) == len(changes)


@pytest.mark.parametrize("change", [{"concurrency": 2}, {"retries": 5}, {"input_price": 1.0}])
def test_how_it_is_fetched_is_not_what_is_measured(evaluate, change):
    with serving(best_move(SMALL)) as server:
        assert evaluate(server.url, **change).record == evaluate(server.url).record


def test_two_evaluations_at_a_time_do_not_share_a_record(evaluate):
    waiting, go = threading.Event(), threading.Event()

    def answer(request):
        waiting.set()
        go.wait(10)
        return best_move(SMALL)(request)

    with serving(answer) as server:
        first = threading.Thread(target=evaluate, args=(server.url,))
        first.start()
        assert waiting.wait(10)
        try:
            with pytest.raises(ConfigError, match="another process is at this evaluation"):
                evaluate(server.url)
        finally:
            go.set()
            first.join()


@pytest.mark.parametrize("concurrency", [1, 3])
def test_as_many_episodes_are_in_play_as_was_asked_for(evaluate, concurrency):
    def answer(request):
        time.sleep(0.02)
        return best_move(SMALL)(request)

    with serving(answer) as server:
        evaluate(server.url, concurrency=concurrency)
    assert server.most_at_a_time == concurrency


def test_a_simulator_that_raises_fails_its_episode_and_is_tried_again(evaluate, toy, tmp_path):
    rules = tmp_path / "rules.txt"
    rules.write_text("Name the animal.")
    with serving(lambda _: acts("ant")) as server:
        env = {"raises_in": [1]}
        found = evaluate(server.url, task="toy", episodes=5, env=env, instructions=rules)
        asked = len(server.requests)
        again = evaluate(server.url, task="toy", episodes=5, env=env, instructions=rules)
        assert len(server.requests) == asked + 2  # the episode that failed, up to where it does
    assert (found.score.episodes, found.score.failed) == (4, 1)
    assert again.score == found.score
    assert (found.usage.requests, again.usage.requests) == (asked, asked + 2)


def test_an_unreachable_server_is_an_error_and_no_score(evaluate, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(ApiError, match=r"cannot be reached .* is the server running"):
            evaluate(url)


def test_a_server_that_takes_too_long_is_not_called_unreachable(evaluate):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(ApiError, match=r"did not answer within 0\.2 s; raise api\.timeout_s"):
            evaluate(url, timeout_s=0.2)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (fails(401, "wrong key"), "refuses the key: .*wrong key"),
        (fails(404, "no such model"), "answers 404: .*no such model"),
        (Answer("<html>hello</html>"), "does not answer as an OpenAI-compatible server"),
        (Answer({"hello": "world"}), "does not answer as an OpenAI-compatible server"),
        (Answer({"choices": []}), "does not answer as an OpenAI-compatible server"),
        (Answer({"choices": 5}), "does not answer as an OpenAI-compatible server"),
        (Answer({"choices": [{"message": "north"}]}), "does not answer as an OpenAI-compatible server"),
        (Answer({"choices": [None]}), "does not answer as an OpenAI-compatible server"),
        (Answer({"choices": [{"text": "north"}]}), "does not answer as an OpenAI-compatible server"),
        (
            Answer({"choices": [{"message": {"content": [{"type": "text", "text": "north"}]}}]}),
            "does not answer as an OpenAI-compatible server",
        ),
    ],
)
def test_what_is_no_answer_is_never_played(evaluate, answer, message):
    with serving(lambda _: answer) as server, pytest.raises(ApiError, match=message):
        evaluate(server.url)


def test_an_endpoint_and_a_key_are_asked_for_by_name(monkeypatch):
    with pytest.raises(ConfigError, match=r"give --base-url .* or set OPENAI_BASE_URL"):
        find_endpoint(PromptedConfig())
    monkeypatch.setenv("OPENAI_BASE_URL", "http://here/v1")
    assert find_endpoint(PromptedConfig()) == ("http://here/v1", "secret")
    assert find_endpoint(PromptedConfig(base_url="http://there/v1")).url == "http://there/v1"
    for url in ("localhost:8000/v1", "http://localhost:99999999/v1", "http://[::1/v1", "http:///v1"):
        with pytest.raises(ConfigError, match=r"but it is no address like http://localhost"):
            find_endpoint(PromptedConfig(base_url=url))
    monkeypatch.setenv("OPENAI_API_KEY", "schlüssel")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY: holds no key"):
        find_endpoint(PromptedConfig())
    monkeypatch.setenv("OPENAI_API_KEY", " secret\n")
    assert find_endpoint(PromptedConfig()).key == "secret"
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="set OPENAI_API_KEY; any text will do"):
        find_endpoint(PromptedConfig())
    with pytest.raises(ConfigError, match="set MY_KEY"):
        find_endpoint(PromptedConfig(key_variable="MY_KEY"))


def test_a_task_without_rules_cannot_be_told(evaluate, toy):
    with (
        serving(lambda _: acts("ant")) as server,
        pytest.raises(ConfigError, match="toy has no `instructions`"),
    ):
        evaluate(server.url, task="toy", env={})


def test_the_command_prints_the_model_beside_the_baselines(lmrl, tmp_path):
    with serving(best_move(SMALL)) as server:
        command = ("eval", "api:fake", "maze-fo", "--base-url", server.url, "--out", tmp_path)
        options = ("--episodes", 6, "--set", "env.layout=umaze", "--input-price", 1, "--output-price", 2)
        rows = lmrl(*command, *options, "--json").json
        printed = lmrl(*command, *options)
    assert [r["policy"] for r in rows] == ["random", "behaviour", "optimal", "api:fake"]
    assert rows[3]["raw_return"] == rows[2]["raw_return"]
    assert rows[3]["ci95"] is not None
    assert rows[3]["cost"] == pytest.approx(rows[3]["usage"]["requests"] * 16 / 1e6)
    assert Path(rows[3]["record"]).is_relative_to(tmp_path)
    assert "api:fake" in printed.stdout
    assert "cost 0.0" in printed.stdout
    assert "without --set env.*" in printed.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--set", "api.temprature=1"), "Did you mean api.temperature"),
        (("--set", "training.steps=1"), "here it is api.NAME=VALUE or env.NAME=VALUE"),
        (("--decoding", "greedy"), "--decoding"),
        (("--episodes", 0), "expected at least 1"),
    ],
)
def test_a_bad_option_is_one_clear_line(lmrl, more, message, tmp_path):
    answer = lmrl("eval", "api:fake", "maze-fo", "--base-url", "http://nowhere/v1", "--out", tmp_path, *more)
    assert answer.code == 1
    assert message in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_endpoint_is_for_a_prompted_model_alone(lmrl, tmp_path):
    answer = lmrl("eval", tmp_path, "maze-fo", "--base-url", "http://nowhere/v1")
    assert answer.code == 2
    assert "api:MODEL" in answer.stderr
