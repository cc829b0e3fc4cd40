"""A simulator behind any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

import os
from typing import Any

from envs.answering import Request
from lmrl_ray.simulators import SimulatorError, load

_KEY = "OPENAI_API_KEY"
_URL = "OPENAI_BASE_URL"
_RETRIES = 3
"""After a lost connection, a rate limit or a server's fault; the client waits longer each time, up to 8 s."""
_TIMEOUT_S = 60.0
"""With all retries it is less than `resources.timeout_s`, after which the actor is taken for dead."""


class EndpointModel:
    """A `TextModel` that an endpoint answers for.

    Args:
        model: its name there.
        base_url: of the endpoint, up to "/v1"; None for OPENAI_BASE_URL.

    Raises SimulatorError without an endpoint or OPENAI_API_KEY. Nothing is sent before the first request.
    """

    kind = "api"

    def __init__(self, model: str, base_url: str | None) -> None:
        url, key = base_url or os.environ.get(_URL), os.environ.get(_KEY)
        if not url:
            raise SimulatorError(
                f"simulator 'api:{model}': no endpoint; give --set env.base_url=URL (e.g. "
                f"http://localhost:8000/v1 or https://api.openai.com/v1), or set {_URL}"
            )
        if not key:
            raise SimulatorError(
                f"simulator 'api:{model}': {_KEY} is not set; export the endpoint's key "
                f"(any text for a local server that checks none), on every machine that plays"
            )
        import openai

        self._model = model
        self._arguments = (f"api:{model}", base_url)
        self._error = openai.OpenAIError
        self._client = openai.OpenAI(api_key=key, base_url=url, max_retries=_RETRIES, timeout=_TIMEOUT_S)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, here or in another process, is the client that is made there."""
        return load, self._arguments

    def complete(self, request: Request) -> str:
        """The first line that is not empty. SimulatorError when the endpoint refuses, or retries run out."""
        try:
            answer = self._client.chat.completions.create(
                model=self._model,
                messages=[
                    {"role": "system", "content": request.instruction},
                    {"role": "user", "content": request.prompt},
                ],
                max_tokens=request.max_tokens,
                temperature=0.0 if request.seed is None else 1.0,
                seed=request.seed,
            )
        except self._error as error:
            raise SimulatorError(
                f"simulator 'api:{self._model}' at {self._client.base_url}: {type(error).__name__}: {error} "
                f"(endpoint: env.base_url; key: {_KEY})"
            ) from error
        text = answer.choices[0].message.content if answer.choices else None
        return next((line.strip() for line in (text or "").splitlines() if line.strip()), "")
