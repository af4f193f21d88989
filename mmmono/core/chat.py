"""Ask a language model behind any endpoint that speaks OpenAI's protocol."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from mmmono.core.errors import ConfigError, ModelError
from mmmono.core.extras import need
from mmmono.core.lines import append_shared_lines, read_lines

if TYPE_CHECKING:
    import httpx
    from openai import APIStatusError, OpenAI

CHECK = "Reply with one word: yes."
TAKEN_BY_MOST = ("max_tokens", "temperature")  # parameters that models which think before they reply refuse
THOUGHTS = 4096  # tokens for the thoughts of models that count them with their reply
MALFORMED = 599  # unassigned status; clients retry every status from 500 on


@dataclass(eq=False)
class ChatModel:
    """A language model behind an endpoint that speaks OpenAI's protocol.

    Attributes:
        model: name of the model at the endpoint.
        key_variable: environment variable with the API key.
        base_url_variable: environment variable with the endpoint's URL.
        base_url: URL; if that variable is set, its value.
        timeout: timeout of one reply in seconds.
        attempts: maximum number of attempts per reply.
        workers: number of concurrent requests.
        gives: what a reply is, for messages.

    Raises:
        ConfigError: a setting is out of range, the key is not set, or the package `openai` is missing.
    """

    model: str
    key_variable: str
    base_url_variable: str
    base_url: str
    timeout: float = 60.0
    attempts: int = 6
    workers: int = 8
    gives: str = "answer"
    _client: OpenAI = field(init=False, repr=False)
    _answered: bool = field(init=False, repr=False, default=False)
    _without: set[str] = field(init=False, repr=False, default_factory=set)  # parameters that the model does not take
    _thinks: bool = field(init=False, repr=False, default=False)  # before it replies, with tokens of the reply

    def __post_init__(self) -> None:
        self.base_url = os.environ.get(self.base_url_variable) or self.base_url
        if self.attempts < 1 or self.workers < 1:
            raise ConfigError(f"judge.attempts={self.attempts} and judge.workers={self.workers} must be at least 1")
        self._client = self._connect(os.environ.get(self.key_variable, ""))

    def _connect(self, key: str) -> OpenAI:
        """Make a client, which by itself retries whatever `ask` does not blame on the settings.

        These are timeouts, rate limits, and errors of server and connection, with exponential backoff or after the
        delay that the server names; and, by `_mark_malformed`, replies that are no chat completions.
        """
        if not key:
            raise ConfigError(
                f"the judge needs a key: set the environment variable {self.key_variable}, or leave judge= out"
            )
        need("a judge behind an endpoint (judge=)", "openai")
        from openai import DefaultHttpxClient, OpenAI

        return OpenAI(
            api_key=key,
            base_url=self.base_url,
            timeout=self.timeout,
            max_retries=self.attempts - 1,
            http_client=DefaultHttpxClient(event_hooks={"response": [_mark_malformed]}),
        )

    def identity(self) -> dict[str, Any]:
        """Model and endpoint, which determine the replies."""
        return {"model": self.model, "url": self.base_url}

    def replies(self, messages: Sequence[str], max_tokens: int = 16) -> Iterator[str]:
        """Yield the replies to messages, in order; `workers` of them are asked for at a time, and none after one has failed.

        Raises:
            ConfigError, ModelError: see `ask`.
        """
        failed = Event()

        def ask(message: str) -> str:
            if failed.is_set():
                raise CancelledError  # of a later message than the one that failed, whose error ends the replies
            try:
                return self.ask(message, max_tokens)
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(self.workers) as pool:
            yield from pool.map(ask, messages)

    def check(self) -> None:
        """Send a short message, unless one was answered already. Raises like `ask`, and ConfigError if it is refused."""
        if not self._answered:
            self._answers()

    def _answers(self) -> None:
        import openai

        try:
            self._reply(CHECK)
        except openai.BadRequestError as error:
            raise self._refused(error) from error

    def ask(self, message: str, max_tokens: int = 16) -> str:
        """Return the model's reply to a message, at temperature 0 if the model takes a temperature.

        It is empty if the endpoint refuses this very message, as content filters do and as it may be too long, but still
        answers another one. Thoughts are no part of it: a model whose tokens end before its reply begins is given `THOUGHTS`
        more from then on.

        Raises:
            ConfigError: the endpoint refuses the key, or the model: any message, as some do once there is no credit left.
            ModelError: the endpoint does not answer, or violates the protocol.
        """
        import openai

        try:
            return self._reply(message, max_tokens)
        except openai.BadRequestError:
            self._answers()
            return ""

    def _reply(self, message: str, max_tokens: int = 16) -> str:
        """Return the reply to a message. Raises like `ask`, and BadRequestError if the endpoint refuses it."""
        import openai

        without = set(self._without)
        tokens = max_tokens + (THOUGHTS if self._thinks or "max_tokens" in without else 0)
        try:
            reply = self._client.chat.completions.with_raw_response.create(
                model=self.model, messages=[{"role": "user", "content": message}], **_parameters(tokens, without)
            )
            text, ended = completion(reply.text)
        except openai.BadRequestError as error:
            if error.param not in TAKEN_BY_MOST or error.param in without:
                raise
            self._without.add(error.param)
            return self._reply(message, max_tokens)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ConfigError(
                f"{self.base_url} refuses the key in {self.key_variable} (status {error.status_code}): set another"
            ) from error
        except openai.NotFoundError as error:
            raise self._refused(error) from error
        except openai.APITimeoutError as error:
            raise self._none("it was too slow") from error
        except openai.APIConnectionError as error:
            raise self._none("nothing answers there") from error
        except openai.APIStatusError as error:
            if error.status_code == MALFORMED:
                raise self._none("the reply is no chat completion") from error
            details = f": {error.message[:200]}" if error.status_code < 500 else ""
            raise self._none(f"status {error.status_code}{details}") from error
        self._answered = True
        if not (text or ended) and tokens == max_tokens:
            self._thinks = True
            return self._reply(message, max_tokens)
        return text

    def _refused(self, error: APIStatusError) -> ConfigError:
        return ConfigError(
            f"{self.base_url} refuses judge.model={self.model} (status {error.status_code}): {error.message[:200]}"
        )

    def _none(self, reason: str) -> ModelError:
        return ModelError(
            f"judge {self.model} at {self.base_url} gave no {self.gives} in {self.attempts} attempts: "
            f"{' '.join(reason.split())}; run the same command again to go on, raise judge.timeout, or lower judge.workers"
        )


class KeptReplies:
    """What was replied to messages, kept in a JSON-lines file as soon as it is there; None keeps it in memory alone."""

    def __init__(self, file: Path | None, name: str) -> None:
        """Read the file, if it is there; `name` is what a line calls the reply."""
        self._file, self._name = file, name
        self._known = {line["key"]: line[name] for line in (read_lines(file) if file else [])}

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    def keep(self, key: str, reply: object) -> None:
        """Keep a reply."""
        self._known[key] = reply
        if self._file:
            append_shared_lines(self._file, [{"key": key, self._name: reply}])


def digest_of(content: object) -> str:
    """Digest of whatever JSON can say."""
    return sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


def _parameters(tokens: int, without: Set[str]) -> dict[str, Any]:
    """Parameters of a request, without those of `TAKEN_BY_MOST` that the model does not take."""
    limit = {"max_completion_tokens" if "max_tokens" in without else "max_tokens": tokens}
    return limit if "temperature" in without else {"temperature": 0, **limit}


def completion(body: str) -> tuple[str, bool]:
    """Return the text of the first choice of a chat completion, and whether it has an end.

    Servers that do not part thoughts from the reply send them within it, between <think> and </think>.

    Args:
        body: the chat completion as JSON.

    Returns:
        The text without thoughts, and False if it ends because the tokens did.

    Raises:
        ValueError: it is no chat completion.
    """
    try:
        choice = json.loads(body)["choices"][0]
        content, reason = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"no chat completion: {body[:200]}") from error
    if not isinstance(content, str | None):
        raise ValueError(f"the content of a chat completion is no text: {body[:200]}")
    text = re.sub(r"^.*</think>|^\s*<think>.*", "", content or "", flags=re.DOTALL)
    return text.strip(), reason != "length"


def _mark_malformed(response: httpx.Response) -> None:
    """Give a successful response that is no chat completion the status MALFORMED, so that the client retries it.

    Args:
        response: a response of httpx, or of httpx2 under newer versions of `openai`.
    """
    if response.is_success:
        response.read()
        try:
            completion(response.text)
        except ValueError:
            response.status_code = MALFORMED
