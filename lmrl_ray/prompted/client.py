"""One request to an OpenAI-compatible endpoint. The `openai` client retries with growing pauses.

Whatever goes wrong for good is an `ApiError`: a missing answer must never be played as an action.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lmrl_ray.prompted.config import Endpoint, PromptedConfig
from lmrl_ray.prompted.prompt import Message


class ApiError(RuntimeError):
    """The endpoint gave no usable answer: what it said, and what to do."""


@dataclass(frozen=True)
class Usage:
    """What was asked for, in requests and tokens."""

    requests: int = 0
    reasked: int = 0
    """Requests that repeat one because the reply held no action."""
    unanswered: int = 0
    """Actions for which no reply held one: an empty line was played."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    """Requests for which the server told no tokens."""

    def __add__(self, other: Usage) -> Usage:
        theirs = asdict(other)
        return Usage(**{name: value + theirs[name] for name, value in asdict(self).items()})

    def beyond(self, other: Usage) -> Usage:
        """What there is more of than in `other`."""
        theirs = asdict(other)
        return Usage(**{name: max(value - theirs[name], 0) for name, value in asdict(self).items()})

    def cost(self, config: PromptedConfig) -> float | None:
        """In the currency of the prices; None without them, or where tokens were not counted."""
        if config.input_price is None or config.output_price is None or self.uncounted:
            return None
        spent = self.prompt_tokens * config.input_price + self.completion_tokens * config.output_price
        return spent / 1e6


@dataclass(frozen=True)
class Reply:
    text: str
    cut: bool
    """It reached the limit of tokens."""
    usage: Usage


class ChatClient:
    """Asks one model."""

    def __init__(self, endpoint: Endpoint, model: str, config: PromptedConfig) -> None:
        from openai import AsyncOpenAI

        self.spent = Usage()
        """Requests that were answered and their tokens, whatever became of the episodes they were for."""
        self._url, self._timeout_s = endpoint.url, config.timeout_s
        self._client = AsyncOpenAI(
            base_url=endpoint.url,
            api_key=endpoint.key,
            max_retries=config.retries,
            timeout=config.timeout_s,
        )
        self._request: dict[str, Any] = {"model": model}
        if config.temperature is not None:
            self._request["temperature"] = config.temperature
        if config.max_tokens is not None:
            self._request["max_tokens"] = config.max_tokens
        if config.response_format != "text":
            self._request["response_format"] = {"type": config.response_format}
        if config.extra_body:
            self._request["extra_body"] = config.extra_body

    async def ask(self, messages: Sequence[Message]) -> Reply:
        """The model's reply. ApiError when there is none after all retries."""
        import openai

        request: dict[str, Any] = {"messages": messages, **self._request}
        try:
            answer = await self._client.chat.completions.create(**request)
        except openai.APITimeoutError as error:
            raise ApiError(
                f"{self._url} did not answer within {self._timeout_s:g} s; raise api.timeout_s, or lower "
                f"--concurrency or api.max_tokens"
            ) from error
        except openai.APIConnectionError as error:
            raise ApiError(
                f"{self._url} cannot be reached ({error.__cause__ or error}); is the server running, and "
                f"does the address end in /v1?"
            ) from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ApiError(f"{self._url} refuses the key: {error}") from error
        except openai.APIStatusError as error:
            said = " ".join(error.response.text.split())[:300]
            raise ApiError(f"{self._url} answers {error.status_code}: {said}") from error
        except (openai.OpenAIError, json.JSONDecodeError) as error:
            raise ApiError(f"{self._url} does not answer as an OpenAI-compatible server: {error}") from error
        self.spent += _usage(answer)
        return _reply(answer, self._url)

    async def close(self) -> None:
        await self._client.close()


def _reply(answer: Any, url: str) -> Reply:
    """What a server says is not checked by the client: any field may be missing or of another type."""
    choices = getattr(answer, "choices", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(first, "message", None)
    text = getattr(message, "content", None) or ""
    if not hasattr(message, "content") or not isinstance(text, str):
        raise ApiError(f"{url} does not answer as an OpenAI-compatible server: {str(answer)[:200]!r}")
    return Reply(text, getattr(first, "finish_reason", None) == "length", _usage(answer))


def _usage(answer: Any) -> Usage:
    told = getattr(answer, "usage", None)
    prompt, completion = (getattr(told, f"{part}_tokens", None) for part in ("prompt", "completion"))
    if not (isinstance(prompt, int) and isinstance(completion, int)):
        return Usage(requests=1, uncounted=1)
    return Usage(1, prompt_tokens=prompt, completion_tokens=completion)
