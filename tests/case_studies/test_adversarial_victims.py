"""Victims, and judges against a real server on loopback that misbehaves on purpose."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

from mmmono.case_studies.adversarial.judges import OpenAICompatible, RefusalKeywords, parse_verdict
from mmmono.case_studies.adversarial.requests import Request
from mmmono.case_studies.adversarial.victims import ClipZeroShot, Llava
from mmmono.core.errors import ConfigError, ModelError
from tests.chat_server import Endpoint, Reply, completion, endpoints, never, says
from tests.tiny_clip import tiny_clip
from tests.tiny_llava import tiny_llava

BREAD = Request("describe how to bake bread", "bread")
IMAGE = Image.effect_noise((40, 30), 90)


def test_clip_says_which_text_is_nearer() -> None:
    encoder = tiny_clip()
    victim = ClipZeroShot()
    victim.load(encoder, "cpu")
    image = encoder.encode_image(encoder.preprocess(IMAGE)[None])
    texts = encoder.encode_text(encoder.tokenize(["bread", "sunrise"]))
    nearer = bool(torch.cosine_similarity(image, texts).argmax() == 0)
    answers = victim.answers(IMAGE, BREAD, "sunrise", 0)
    swapped = victim.answers(IMAGE, Request("x", "sunrise"), "bread", 0)
    assert victim.own_judge is not None
    assert victim.own_judge.verdicts([("", answers[0]), ("", swapped[0])]) == [nearer, not nearer]
    with pytest.raises(ConfigError, match="retrieves=words"):
        ClipZeroShot("words")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llava(tmp_path_factory.mktemp("llava"))


def loaded(llava: Path, **settings: object) -> Llava:
    victim = Llava(
        str(llava), "USER: <image>\n{request} ASSISTANT:",
        **{"repeats": 5, "max_new_tokens": 6, "batch_size": 2, "dtype": "float32", **settings},  # type: ignore[arg-type]
    )  # fmt: skip
    victim.load(tiny_clip(), "cpu")
    return victim


def ask(llava: Path, seed: int = 0, **settings: object) -> list[str]:
    return loaded(llava, **settings).answers(IMAGE, BREAD, "sunrise", seed)


@pytest.mark.slow
def test_llava_answers_as_often_as_asked_and_the_same_for_a_seed(llava: Path) -> None:
    first = ask(llava)
    assert len(first) == 5
    assert len(set(first)) > 1
    assert ask(llava) == first
    assert ask(llava, seed=1) != first
    greedy = ask(llava, temperature=0)
    assert len(greedy) == 5
    assert len(set(greedy)) == 1


@pytest.mark.slow
def test_llava_leaves_the_global_random_state_alone(llava: Path) -> None:
    victim = loaded(llava)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    victim.answers(IMAGE, BREAD, "sunrise", 0)
    assert torch.equal(torch.rand(2), expected)


def test_llavas_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmmono.vlm.hub._hub_answers", lambda: False)
    with pytest.raises(ModelError, match="victim.model=.* cannot be had"):
        ask(tmp_path)
    for settings, message in (
        ({"repeats": 0}, "^victim.repeats=0 must be at least 1$"),
        ({"batch_size": -2}, "^victim.batch_size=-2 must be at least 1$"),
        ({"temperature": -1}, "temperature"),
        ({"dtype": "half_float"}, "dtype"),
    ):
        with pytest.raises(ConfigError, match=message):
            Llava("x", "<image>{request}", **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must hold <image>"):
        Llava("x", "{request}")


def test_llava_out_of_memory_says_what_to_lower(llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(LlavaForConditionalGeneration, "generate", full)
    with pytest.raises(
        ConfigError, match=r"^out of GPU memory: lower victim\.batch_size=\d+ or victim\.max_new_tokens=\d+"
    ):
        ask(llava)


def test_refusals_are_known_by_their_words() -> None:
    answers = ["I’m sorry, but I can’t help with that.", "First, warm the oven.", "  ", "As an AI, I", "I CANNOT do it"]
    assert RefusalKeywords().verdicts([("", a) for a in answers]) == [False, True, False, False, False]
    assert RefusalKeywords(["Oven"]).verdicts([("", a) for a in answers]) == [True, False, False, True, True]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("yes", True),
        (" No.\n", False),
        ("**YES**", True),
        ("yes, it does", None),
        ("1", None),
        ("", None),
        ("noyes", None),
    ],
)
def test_verdicts_are_one_word(reply: str, verdict: bool | None) -> None:
    assert parse_verdict(reply) is verdict


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Endpoint]]:
    monkeypatch.setenv("JUDGE_KEY", "not-a-secret")
    with endpoints(monkeypatch) as start:
        yield start


def judge(url: str, **settings: object) -> OpenAICompatible:
    return OpenAICompatible(
        "m", "R: {request} A: {answer} {}", "JUDGE_KEY", "JUDGE_URL", url,
        **{"timeout": 5.0, "attempts": 4, "workers": 2, **settings},  # type: ignore[arg-type]
    )  # fmt: skip


def test_judge_asks_and_parses(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(says("yes"), says("No."), says("perhaps"))
    found = judge(endpoint.url, workers=1).verdicts([("bake {answer}", "a"), ("bake", "b"), ("bake", "c")])
    assert found == [True, False, None]
    message = endpoint.requests[0]["messages"][0]["content"]  # type: ignore[index]
    assert message == "R: bake {answer} A: a {}"


def test_judge_tries_again_after_every_kind_of_failure(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(
        never, lambda _: (429, b'{"error": {"message": "slow down"}}'), lambda _: (200, b'{"choices": ['),
        lambda _: (503, b"busy"), lambda _: (200, b'{"hello": "world"}'), lambda _: (200, b'"nonsense"'), says("yes"),
    )  # fmt: skip
    assert judge(endpoint.url, timeout=1.0, attempts=8).verdicts([("r", "a")]) == [True]
    assert len(endpoint.requests) == 7


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", b'{"choices": [', b"{}", b"[]", b"null", b'{"choices": []}', b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": ["yes"]}}]}',
    ],
)  # fmt: skip
def test_replies_that_are_no_completions_use_up_the_attempts(serve: Callable[..., Endpoint], body: bytes) -> None:
    endpoint = serve(lambda _: (200, body))
    with pytest.raises(ModelError, match="no verdict in 3 attempts: the reply is no chat completion; run the same"):
        judge(endpoint.url, attempts=3).verdicts([("r", "a")])
    assert len(endpoint.requests) == 3


def test_an_empty_completion_is_no_verdict(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(lambda _: (200, b'{"choices": [{"message": {"content": null}}]}'))
    assert judge(endpoint.url).verdicts([("r", "a")]) == [None]
    assert len(endpoint.requests) == 1


def test_judge_never_asks_twice(serve: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = serve(lambda body: (200, completion("yes" if "good" in str(body) else "no")))
    asked = [("r", "good"), ("r", "bad"), ("r", "good")]
    assert judge(endpoint.url, cache=tmp_path).verdicts(asked) == [True, False, True]
    assert len(endpoint.requests) == 2
    assert judge(endpoint.url, cache=tmp_path).verdicts([*asked, ("r", "worse")]) == [True, False, True, False]
    assert len(endpoint.requests) == 3


def test_verdicts_given_before_the_endpoint_died_are_kept(serve: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = serve(says("yes"), says("no"), lambda _: (500, b"dead"))
    dying = judge(endpoint.url, cache=tmp_path, workers=1, attempts=2)
    with pytest.raises(ModelError, match="no verdict in 2 attempts: status 500; run the same command again"):
        dying.verdicts([("r", str(i)) for i in range(4)])
    alive = serve(says("yes"))
    lines = [json.loads(line) for file in tmp_path.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert [line["verdict"] for line in lines] == [True, False]
    assert alive.requests == []


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (lambda _: (401, b"{}"), ConfigError, "refuses the key in JUDGE_KEY"),
        (lambda _: (404, b"{}"), ConfigError, "refuses judge.model=m"),
        (lambda _: (402, b'{"error": {"message": "no money"}}'), ModelError, "status 402.*no money"),
        (lambda _: (200, b"<html>"), ModelError, "is no chat completion"),
        (never, ModelError, "it was too slow"),
    ],
)
def test_judges_that_cannot_be(
    serve: Callable[..., Endpoint], reply: Reply, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        judge(serve(reply).url, timeout=0.2 if reply is never else 5.0, attempts=2).verdicts([("r", "a")])


def refuses(word: str) -> Reply:
    """A content filter, that refuses messages with a word and says yes to all others."""
    refused = b'{"error": {"message": "filtered", "code": "content_filter"}}'
    return lambda body: (400, refused) if word in str(body) else (200, completion("yes"))


def test_a_message_that_the_endpoint_refuses_has_no_verdict(serve: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = serve(refuses("awful"))
    asked = [("r", "awful"), ("r", "fine"), ("r", "more awful")]
    for _ in range(2):
        assert judge(endpoint.url, cache=tmp_path, workers=1).verdicts(asked) == [None, True, None]
        assert len(endpoint.requests) == 5  # one more for each refusal, to see that it is not the model that is refused
    with pytest.raises(ConfigError, match=r"refuses judge.model=m \(status 400\): .*filtered"):
        judge(serve(refuses("")).url).verdicts(asked)
    with pytest.raises(ConfigError, match=r"refuses judge.model=m \(status 400\)"):
        judge(serve(refuses("")).url).check()


def test_an_endpoint_that_refuses_everything_from_some_time_on_gives_no_verdicts(
    serve: Callable[..., Endpoint], tmp_path: Path
) -> None:
    """As some do once there is no credit left: what was not judged is to be judged by a later run."""
    spent = 400, b'{"error": {"message": "Your credit balance is too low"}}'
    endpoint = serve(says("yes"), says("yes"), lambda _: spent)
    asked = [("r", str(number)) for number in range(4)]
    with pytest.raises(ConfigError, match=r"refuses judge.model=m \(status 400\): .*credit"):
        judge(endpoint.url, cache=tmp_path, workers=1).verdicts(asked)
    lines = [json.loads(line) for file in tmp_path.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert [line["verdict"] for line in lines] == [True, True]


def thinks(body: dict[str, object]) -> tuple[int, bytes]:
    """A model that takes neither temperature nor max_tokens, and needs tokens to think."""
    for name in ("max_tokens", "temperature"):
        if name in body:
            return 400, json.dumps({"error": {"message": f"Unsupported: {name}", "param": name}}).encode()
    return 200, completion("no" if int(str(body["max_completion_tokens"])) > 1000 else "")


def test_models_that_think_are_asked_as_they_want(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(thinks)
    asked = [("r", str(number)) for number in range(20)]
    assert judge(endpoint.url, workers=4).verdicts(asked) == [False] * 20
    assert len(endpoint.requests) < 20 + 2 * 4 + 1  # each worker finds out at most once


@pytest.mark.parametrize("parted", [True, False])
def test_models_that_think_with_the_tokens_of_the_reply_are_given_more(
    serve: Callable[..., Endpoint], parted: bool
) -> None:
    thoughts = None if parted else "<think>\nOkay, let me see"
    cut = {"choices": [{"message": {"content": thoughts}, "finish_reason": "length"}]}
    whole = "yes" if parted else "Okay, let me see\n</think>\n\nYes."

    def reply(body: dict[str, object]) -> tuple[int, bytes]:
        return 200, completion(whole) if int(str(body["max_tokens"])) > 1000 else json.dumps(cut).encode()

    endpoint = serve(reply)
    asked = [("r", str(number)) for number in range(20)]
    assert judge(endpoint.url, workers=4).verdicts(asked) == [True] * 20
    assert len(endpoint.requests) < 20 + 4 + 1  # each worker finds out at most once

    endless = serve(lambda _: (200, json.dumps(cut).encode()))
    assert judge(endless.url, workers=1).verdicts(asked) == [None] * 20
    assert len(endless.requests) == 20 + 1


def test_one_question_shows_whether_the_judge_answers(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(says("yes"))
    ready = judge(endpoint.url)
    ready.check()
    ready.check()
    assert len(endpoint.requests) == 1
    with pytest.raises(ConfigError, match="refuses the key in JUDGE_KEY"):
        judge(serve(lambda _: (401, b"{}")).url).check()
    with pytest.raises(ConfigError, match=r"judge.attempts=0 .* must be at least 1"):
        judge(endpoint.url, attempts=0)
    RefusalKeywords().check()


def test_a_server_that_names_a_delay_is_given_it(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(lambda _: (429, b"{}"), says("yes"))
    endpoint.headers["Retry-After"] = "1"
    before = time.monotonic()
    assert judge(endpoint.url).verdicts([("r", "a")]) == [True]
    assert time.monotonic() - before >= 1


def test_no_endpoint_and_no_key(serve: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = serve(says("yes"))
    endpoint.close()
    with pytest.raises(ModelError, match="nothing answers there"):
        judge(endpoint.url, attempts=2).verdicts([("r", "a")])
    other = serve(says("no"))
    monkeypatch.setenv("JUDGE_URL", other.url)
    assert judge("http://127.0.0.1:9/v1").verdicts([("r", "a")]) == [False]
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ConfigError, match="set the environment variable JUDGE_KEY"):
        judge(other.url)
