"""A prompted model behind a real server: transformers' own, with a model that is made here."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from envs import get_task
from envs.core import ScriptedPolicy
from lmrl_ray.evaluate import evaluate_scripted
from lmrl_ray.prompted.client import ApiError
from lmrl_ray.prompted.config import PromptedConfig
from lmrl_ray.prompted.evaluate import evaluate_prompted

pytestmark = pytest.mark.slow

WORDLE = get_task("wordle")
REPLY = '{"thought": "as always", "action": "a b o u t"}'
USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
TEMPLATE = (
    "{% for m in messages %}<|{{ 'assistant' if m.role == 'assistant' else 'user' }}|>"
    "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class AlwaysAbout(ScriptedPolicy):
    name = "always"

    def act(self, observation):
        return "a b o u t\n"


def save_model_that_always_says(reply: str, folder: Path) -> None:
    """A Llama whose next token depends on the last one alone: after <|assistant|> the reply, then the end.

    Its attention and MLP write nothing, so the last embedding is what the head sees; the head's rows of the
    two tokens point along the embeddings that they follow.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from algos.models import train_tokenizer

    tokenizer = train_tokenizer([WORDLE.instructions], 400)
    tokenizer.add_special_tokens({"eos_token": END, "extra_special_tokens": [USER, ASSISTANT]})
    tokenizer.add_tokens([reply])
    tokenizer.chat_template = TEMPLATE
    assistant, said, end = tokenizer.convert_tokens_to_ids([ASSISTANT, reply, END])
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8192,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with torch.no_grad():
        layer, embeddings, head = model.model.layers[0], model.model.embed_tokens.weight, model.lm_head.weight
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        head.zero_()
        head[said] = 10 * embeddings[assistant] / embeddings[assistant].norm()
        head[end] = 10 * embeddings[said] / embeddings[said].norm()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`transformers serve` on a free port; yields the address and the model's name."""
    folder = tmp_path_factory.mktemp("served") / "model"
    save_model_that_always_says(REPLY, folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = Path(sys.executable).with_name("transformers")
    log = (folder.parent / "log").open("w+")
    process = subprocess.Popen(
        [command, "serve", folder, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        wait_until_healthy(process, f"http://127.0.0.1:{port}/health", Path(log.name))
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def wait_until_healthy(process: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server has ended: {log.read_text()[-3000:]}"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError(f"the server does not answer: {log.read_text()[-3000:]}")


@pytest.fixture
def evaluate(monkeypatch, server, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "none")

    def run(episodes=4, model=None, **config):
        return evaluate_prompted(
            WORDLE,
            model or server[1],
            PromptedConfig(base_url=server[0], retries=1, **config),
            env={},
            episodes=episodes,
            seed=0,
            out=tmp_path,
            on_progress=lambda _: None,
        )

    return run


def test_a_served_model_scores_as_the_same_player_in_our_process(evaluate):
    found = evaluate(input_price=1.0, output_price=2.0)
    expected = evaluate_scripted(WORDLE, AlwaysAbout(), "always", episodes=4, seed=0).score
    assert found.score.row() | {"policy": "always"} == expected.row()
    requests = round(4 * expected.mean_length)
    assert found.usage.requests == requests
    assert (found.usage.reasked, found.usage.unanswered, found.usage.uncounted) == (0, 0, 0)
    # Two tokens a reply: the sentence, which is one, and the end.
    assert found.usage.completion_tokens == 2 * requests
    assert found.usage.prompt_tokens > 400 * requests
    assert found.cost == (found.usage.prompt_tokens + 2.0 * found.usage.completion_tokens) / 1e6


def test_more_episodes_ask_for_the_missing_ones_alone(evaluate):
    first = evaluate(episodes=2)
    more = evaluate(episodes=4)
    assert more.record == first.record
    lines = more.record.read_text().splitlines()
    assert len(lines) == 1 + 4
    assert more.score == evaluate(episodes=4, concurrency=1).score


def test_a_model_that_the_server_does_not_have_is_an_error(evaluate):
    with pytest.raises(ApiError, match=r"answers 400: .*pinned"):
        evaluate(model="another")
