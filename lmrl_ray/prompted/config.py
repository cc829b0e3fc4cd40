"""How a prompted language model is asked: `--set api.KEY=VALUE` of `lmrl eval api:MODEL TASK`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field

from algos.settings import Settings
from lmrl_ray.config import ConfigError

URL_VARIABLE = "OPENAI_BASE_URL"


class PromptedConfig(Settings):
    """What is asked and how. Fields in `HOW` change no episode's distribution, only how it is fetched."""

    base_url: str | None = Field(None, description=f"the endpoint, ends in /v1; {URL_VARIABLE} by default")
    key_variable: str = Field("OPENAI_API_KEY", description="environment variable that holds the key")
    temperature: float | None = Field(1.0, ge=0, description="null leaves it to the server")
    max_tokens: int | None = Field(1024, ge=1, description="of a reply; null leaves it to the server")
    response_format: Literal["text", "json_object"] = Field(
        "text", description="json_object where the server can force JSON"
    )
    extra_body: dict[str, Any] = Field(default_factory=dict, description="more fields of each request")
    instructions: Path | None = Field(None, description="text file in place of the task's own rules")
    examples: int = Field(2, ge=0, description="episodes of the task's data set in the prompt")
    data: Path | None = Field(None, description="Parquet file of the examples; None builds the task's own")
    example_turns: int = Field(3, ge=1, description="turns that are shown of each of them")
    history: int | None = Field(
        None, ge=1, description="segments of the episode that it sees; the task's window"
    )
    reasks: int = Field(1, ge=0, description="times it is asked again after a reply without an action")
    retries: int = Field(6, ge=0, description="of a request, with growing pauses (429, 5xx, no connection)")
    timeout_s: float = Field(300.0, gt=0, description="longest wait for one reply")
    concurrency: int = Field(8, ge=1, description="episodes in play at a time")
    input_price: float | None = Field(None, ge=0, description="of a million prompt tokens")
    output_price: float | None = Field(None, ge=0, description="of a million completion tokens")


HOW = frozenset({"key_variable", "retries", "timeout_s", "concurrency", "input_price", "output_price"})


class Endpoint(NamedTuple):
    url: str
    key: str


def find_endpoint(config: PromptedConfig) -> Endpoint:
    """Where the model is, from the options and the environment. ConfigError names what is missing."""
    url = config.base_url or os.environ.get(URL_VARIABLE)
    if not url:
        raise ConfigError(
            f"no endpoint: give --base-url (e.g. http://localhost:8000/v1 of `transformers serve` or vLLM, "
            f"or https://api.openai.com/v1), or set {URL_VARIABLE}"
        )
    if not _is_address(url):
        raise ConfigError(f"endpoint: found {url!r}, but it is no address like http://localhost:8000/v1")
    key = os.environ.get(config.key_variable, "").strip()
    if not key.isascii():
        raise ConfigError(f"{config.key_variable}: holds no key: keys are plain ASCII")
    if not key:
        raise ConfigError(
            f"no key for {url}: set {config.key_variable}; any text will do for a server that asks for none, "
            f"e.g. {config.key_variable}=none"
        )
    return Endpoint(url, key)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, or of brackets
        return False
