"""Reading remote bytes from a server that fails."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmmono.core.errors import BrokenPartError, ConfigError, DataError
from mmmono.data.hub import resolve
from mmmono.data.remote import RemoteFile
from mmmono.data.remote_settings import RemoteSettings
from tests.data.flaky_server import Fault, FlakyServer, flaky_server

QUICK = RemoteSettings(timeout=0.5, retries=3, pause=0.01, longest_pause=0.05)
DATA = random.Random(0).randbytes(300_000)


@pytest.fixture
def server() -> Iterator[FlakyServer]:
    with flaky_server() as served:
        served.files["/f.tar"] = DATA
        yield served


def read(server: FlakyServer, token: str | None = None, quick: RemoteSettings = QUICK) -> bytes:
    with RemoteFile(f"{server.url}/f.tar", token, quick).open() as stream:
        return stream.read()


@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
@pytest.mark.parametrize("ranged", [True, False], ids=["ranges", "no ranges"])
def test_whole_files_in_any_framing(server: FlakyServer, framing: str, ranged: bool) -> None:
    server.framing, server.ranged = framing, ranged
    assert read(server) == DATA
    with RemoteFile(f"{server.url}/f.tar", None, QUICK).open(1000) as stream:
        assert stream.read() == DATA[1000:]
    assert RemoteFile(f"{server.url}/f.tar", None, QUICK).read(70_000, 80_000) == DATA[70_000:80_000]


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
@pytest.mark.parametrize(
    ("how", "after"),
    [(how, after) for how in ("fin", "rst") for after in (0, 1, 4096, 100_000, len(DATA) - 1)] + [("stall", 100_000)],
)
def test_a_transfer_that_breaks_off_is_resumed_where_it_stopped(
    server: FlakyServer, framing: str, how: str, after: int
) -> None:
    server.framing = framing
    server.faults = [Fault(after=after, how=how, seconds=0.8 if how == "stall" else 0)]
    assert read(server) == DATA
    received = sum(request.sent for request in server.requests)
    assert received <= len(DATA) + 300_000 * (how == "rst")  # a reset loses what the client had not taken yet
    if how == "fin" and after:
        assert server.requests[1].byte_range == f"bytes={after}-"


def test_servers_without_ranges_send_the_beginning_again(server: FlakyServer) -> None:
    server.ranged = False
    server.faults = [Fault(after=100_000), Fault(after=200_000)]
    assert read(server) == DATA


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_busy_servers_are_asked_again(server: FlakyServer, status: int) -> None:
    server.faults = [Fault(status), Fault(status)]
    assert read(server) == DATA
    server.faults = [Fault(status) for _ in range(9)]
    with pytest.raises(BrokenPartError, match=f"f.tar answers {status} .*4 times in a row"):
        read(server)


@pytest.mark.parametrize("value", ["1", "date"])
def test_retry_after_is_obeyed(server: FlakyServer, value: str) -> None:
    server.faults = [
        Fault(429, {"Retry-After": formatdate(time.time() + 2, usegmt=True) if value == "date" else value})
    ]
    start = time.monotonic()
    assert read(server, quick=RemoteSettings(timeout=5, retries=1, pause=0.01)) == DATA
    assert 0.9 < time.monotonic() - start < 5


@pytest.mark.parametrize("how", ["fin", "rst", "silent"])
def test_breaking_off_for_ever_ends_in_one_line(server: FlakyServer, how: str) -> None:
    server.faults = [Fault(after=0, how=how) for _ in range(9)]
    with pytest.raises(BrokenPartError, match=r"f\.tar broke off at byte 0.* 4 times in a row") as raised:
        read(server)
    assert "\n" not in str(raised.value)


def test_attempts_count_only_in_a_row(server: FlakyServer) -> None:
    server.faults = [Fault(after=20_000) for _ in range(12)]
    assert read(server) == DATA


@pytest.mark.parametrize("status", [401, 403, 404, 410, 400])
def test_refusals_end_at_once(server: FlakyServer, status: int) -> None:
    server.faults = [Fault(status)]
    with pytest.raises(DataError, match=rf"127\.0\.0\.1.*f\.tar answers {status}") as raised:
        read(server)
    assert len(server.requests) == 1
    assert "HF_TOKEN" not in str(raised.value)


def test_a_file_that_is_replaced_meanwhile_is_not_mixed(server: FlakyServer) -> None:
    file = RemoteFile(f"{server.url}/f.tar", None, QUICK)
    server.faults = [Fault(after=100_000)]
    with file.open() as stream:
        assert stream.read(50_000) == DATA[:50_000]
        server.files["/f.tar"] = DATA[::-1]
        with pytest.raises(BrokenPartError, match="replaced"):
            stream.read()


def test_ranges_beyond_the_end_are_an_error(server: FlakyServer) -> None:
    with pytest.raises(BrokenPartError, match="changed"):
        RemoteFile(f"{server.url}/f.tar", None, QUICK).read(len(DATA) - 10, len(DATA) + 10)
    with pytest.raises(BrokenPartError):
        RemoteFile(f"{server.url}/f.tar", None, QUICK).read(len(DATA) + 10, len(DATA) + 20)


def test_a_host_that_is_not_there_is_reported_soon() -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match=r"cannot reach http://127\.0\.0\.1:9/f\.tar \(.*refused"):
        RemoteFile("http://127.0.0.1:9/f.tar?Signature=secret").open().read(1)
    assert time.monotonic() - start < 5
    with pytest.raises(DataError, match="cannot reach"):
        RemoteFile("http://no-such-host.invalid/f.tar", None, QUICK).open().read(1)


def test_redirects_never_carry_credentials_to_another_host(
    server: FlakyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with flaky_server() as cdn:
        cdn.files["/signed.tar"] = DATA
        cdn.strict = True
        server.redirects["/f.tar"] = f"{cdn.url.replace('127.0.0.1', 'localhost')}/signed.tar?sig=abc"
        server.token = "secret"
        assert read(server, "secret") == DATA
        server.redirects["/f.tar"] = f"{cdn.url}/signed.tar"  # another port of the same host
        assert read(server, "secret") == DATA
        assert [request.authorization for request in server.requests] == ["Bearer secret"] * 2
        assert {request.authorization for request in cdn.requests} == {None}
        server.redirects["/f.tar"] = f"{server.url}/real.tar"  # the same host
        server.files["/real.tar"] = DATA
        assert read(server, "secret") == DATA


def test_the_hubs_token_goes_to_the_hub_alone(server: FlakyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert read(server) == DATA
    assert server.requests[-1].authorization is None
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    assert read(server) == DATA
    assert server.requests[-1].authorization == "Bearer hf_secret"


def test_the_stored_login_is_used(server: FlakyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "token").write_text("hf_stored\n")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.token = "hf_stored"
    assert read(server) == DATA


def test_refusals_of_the_hub_name_the_remedy(server: FlakyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")
    url = f"{server.url}/datasets/pixparse/cc3m-wds/resolve/main/x.tar"
    server.token = "hf_right"

    def refusal() -> str:
        with pytest.raises(DataError, match="401") as raised:
            RemoteFile(url, None, QUICK).open().read(1)
        return str(raised.value)

    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not take this token" in refusal()
    server.extra = {"X-Error-Code": "GatedRepo"}
    assert f"ask for access at {server.url}/datasets/pixparse/cc3m-wds" in refusal()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("mmmono.data.remote.hub_token", lambda: None)
    assert "set HF_TOKEN or run 'hf auth login'" in refusal()


def test_hub_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert resolve("hf://datasets/a/b@v1/c d.tar") == "https://mirror.example/datasets/a/b/resolve/v1/c%20d.tar"
    assert resolve("hf://a/b/c.tar") == "https://mirror.example/a/b/resolve/main/c.tar"
    with pytest.raises(ConfigError, match="hf://datasets/<owner>"):
        resolve("hf://datasets/a")


def test_ranges_share_connections_and_signed_addresses(server: FlakyServer) -> None:
    with flaky_server() as cdn:
        cdn.files["/signed.tar"] = DATA
        server.redirects["/f.tar"] = f"{cdn.url}/signed.tar?sig=1"
        file = RemoteFile(f"{server.url}/f.tar", None, QUICK)
        for start in range(0, 100_000, 10_000):
            assert file.read(start, start + 100) == DATA[start : start + 100]
        assert (len(server.requests), len(cdn.requests), cdn.connections) == (1, 10, 1)
        assert sum(request.sent for request in cdn.requests) == 1000
        cdn.faults = [Fault(403)]  # the signature has expired: the address is asked for again
        assert file.read(5, 10) == DATA[5:10]
        assert len(server.requests) == 2


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(0, 60_000),
    cuts=st.lists(st.tuples(st.integers(0, 60_000), st.sampled_from(["fin", "rst"])), max_size=3),
    framing=st.sampled_from(["length", "chunked", "none"]),
    ranged=st.booleans(),
    start=st.integers(0, 60_000),
)
def test_any_few_faults_give_the_same_bytes(
    server: FlakyServer, size: int, cuts: list[tuple[int, str]], framing: str, ranged: bool, start: int
) -> None:
    if framing == "none":  # a lost tail of unannounced length is told from the end by asking again, if ranges are known
        cuts = [(after, "rst" if after >= size else how) for after, how in cuts]
        if not ranged:  # an answer that ends twice at the same byte is the whole file, as far as anybody can tell
            cuts = list(dict(cuts).items())
    data = DATA[:size]
    server.files["/f.tar"], server.framing, server.ranged = data, framing, ranged
    server.faults = [Fault(after=after, how=how) for after, how in cuts]
    start = min(start, size)
    # A kept connection that an earlier example has broken may cost an attempt more than there are faults.
    with RemoteFile(f"{server.url}/f.tar", None, replace(QUICK, retries=5)).open(start) as stream:
        assert stream.read() == data[start:]
