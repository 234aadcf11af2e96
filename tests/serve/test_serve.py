"""The server: its answers, bad input, dying workers, its end; over real HTTP."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from helpers import (
    PATIENCE,
    TESTS,
    break_module,
    hide_module,
    needs_both,
    run_paripassu,
    skip_without,
    type_here,
    wait_for,
)
from PIL import Image
from serving import JSON, PNG, Later, Server

from paripassu.core import datasets
from paripassu.core.digits import read_picture, to_digit
from paripassu.core.errors import UserError
from paripassu.frameworks.registry import FRAMEWORKS, asked_by_default
from paripassu.serve.server import choose

INSTALLED = [x.name for x in asked_by_default() if not x.problem]
BLACK = [[0] * 28 for _ in range(28)]
ROW = [0] * 28


def image_of(mnist: datasets.ImageData, number: int = 0) -> list[list[int]]:
    rows: list[list[int]] = mnist.test_images[..., 0][number].tolist()
    return rows


def png_of(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def digit_png(mnist: datasets.ImageData, number: int = 0) -> bytes:
    """A test digit, large, white on black."""
    picture = Image.fromarray(mnist.test_images[..., 0][number])
    return png_of(picture.resize((280, 280), Image.Resampling.BICUBIC))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    checked = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checked)


def png_file(width: int, height: int, *parts: bytes) -> bytes:
    """A grey PNG file of 8 bits; nothing in it need be true."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(parts) + end


# ---- what it serves


@pytest.mark.parametrize(
    ("frameworks", "expected"),
    [
        (["pytorch", "tensorflow"], [0, 1]),
        (["jax", "tensorflow"], [2, 1]),
        (["pytorch", "pytorch", "jax"], [0, 1, 2]),
    ],
)
def test_a_framework_has_its_colour(frameworks: list[str], expected: list[int]) -> None:
    pytest.importorskip("fastapi")
    from paripassu.serve import app, schema

    models = [schema.Model.model_construct(framework=name) for name in frameworks]
    assert app.hues(models) == expected


def test_models_and_health(served: Server) -> None:
    models = served.get("/models")["models"]
    assert [x["name"] for x in models] == INSTALLED
    for model in models:
        assert model["recipe"] == model["network"] == "keras-example"
        assert model["parameters"] == 34_826
        assert model["classes"] == 10
        assert model["trained_by"] == INSTALLED[0]
        assert model["status"] == "ready"
        assert model["test_accuracy"] > 0.9
    assert served.get("/health") == {
        "status": "ok",
        "models": dict.fromkeys(INSTALLED, "ready"),
    }


def test_one_model_is_answered_by_those_that_are_named(trained: Path) -> None:
    assert [x.framework for x in choose([trained])] == INSTALLED
    named = list(reversed(INSTALLED))
    assert [x.framework for x in choose([trained], named)] == named
    with pytest.raises(UserError, match="no framework 'abc'"):
        choose([trained], ["abc"])
    with pytest.raises(UserError, match="each of several is answered by its own"):
        choose([trained, trained], named)


@skip_without("jax")
def test_what_trained_a_model_answers_too(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, run := tmp_path / "run")
    made = run / "run.json"
    made.write_text(json.dumps({**json.loads(made.read_text()), "framework": "jax"}))
    assert [x.framework for x in choose([run])] == [*INSTALLED, "jax"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/openapi.json", "application/json"),
        ("/nowhere", "application/json"),
    ],
)
def test_every_response_has_the_security_headers(
    path: str, kind: str, served: Server
) -> None:
    status, headers, body = served.request("GET", path)
    assert status == (404 if path == "/nowhere" else 200)
    assert headers["content-type"] == kind
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    if kind.startswith("text/html"):
        addresses = re.findall(r'(?:src|href)="([^"]*)"', body.decode())
        assert addresses
        assert all(re.match(r"/|#", x) for x in addresses)
        assert " style=" not in body.decode()
        assert " on" not in re.sub(r">[^<]*<", "", body.decode())


def test_the_api_is_described(served: Server) -> None:
    document = served.get("/openapi.json")
    assert set(document["paths"]) == {"/predict", "/models", "/health"}
    operation = document["paths"]["/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", "image/png"}
    assert set(operation["responses"]) == {
        "200", "400", "403", "408", "413", "415", "422", "503"
    }  # fmt: skip
    page = served.request("GET", "/docs")[2].decode()
    assert "POST /predict" in page
    assert "<script" not in page
    for name in document["components"]["schemas"]:
        assert f'id="{name}"' in page


def test_a_digit_is_answered_by_every_framework(
    served: Server, mnist: datasets.ImageData
) -> None:
    answer = served.predict({"image": image_of(mnist)})
    (prediction,) = answer["predictions"]
    assert [x["model"] for x in prediction["answers"]] == INSTALLED
    assert set(answer["milliseconds"]) == set(INSTALLED)
    assert "image" not in answer
    shares = np.array([x["probabilities"] for x in prediction["answers"]])
    assert shares.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert prediction["largest_difference"] == np.ptp(shares, axis=0).max()
    assert prediction["largest_difference"] < 1e-5
    assert prediction["agree"]
    for found in prediction["answers"]:
        assert found["digit"] == mnist.test_labels[0] == np.argmax(shares[0])


def test_many_images_at_once(served: Server, mnist: datasets.ImageData) -> None:
    images = mnist.test_images[..., 0][:200].tolist()
    answer = served.predict({"image": images[0], "images": images[1:]})
    digits = [[x["digit"] for x in p["answers"]] for p in answer["predictions"]]
    assert len(digits) == 200
    right = (mnist.test_labels[:200] == np.array(digits).T).mean(axis=1)
    assert right == pytest.approx(right[0])
    assert right[0] > 0.9
    alone = served.predict({"images": [images[150]]})["predictions"][0]
    together = answer["predictions"][150]
    assert [x["digit"] for x in alone["answers"]] == digits[150]
    assert alone["answers"][0]["probabilities"] == pytest.approx(
        together["answers"][0]["probabilities"], abs=1e-5
    )


def test_requests_that_wait_together_get_their_own_answers(
    served: Server, mnist: datasets.ImageData
) -> None:
    images = mnist.test_images[..., 0][:60].tolist()
    alone = served.predict({"images": images})["predictions"]
    large = Later(served, {"images": (images * 5)[:256]})
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda x: served.predict({"image": x}), images))
    status, many = large.answer()
    assert status == 200
    assert len(many["predictions"]) == 256
    for expected, found in zip(alone, answers, strict=True):
        (prediction,) = found["predictions"]
        for left, right in zip(expected["answers"], prediction["answers"], strict=True):
            assert left["probabilities"] == pytest.approx(
                right["probabilities"], abs=1e-5
            )


def test_one_model_alone(served: Server) -> None:
    name = INSTALLED[-1]
    answer = served.predict({"image": BLACK}, f"?model={name}")
    (prediction,) = answer["predictions"]
    assert [x["model"] for x in prediction["answers"]] == [name]
    assert prediction["largest_difference"] == 0
    status, _, body = served.request("POST", "/predict?model=theano", b"{}", JSON)
    assert status == 422
    assert INSTALLED[0] in json.loads(body)["detail"]


def test_fractions_are_rounded(served: Server, mnist: datasets.ImageData) -> None:
    image = mnist.test_images[..., 0][0].astype(float)
    exact = served.predict({"image": image.tolist()})["predictions"]
    moved = served.predict({"image": np.clip(image + 0.3, 0, 255).tolist()})
    assert moved["predictions"][0]["answers"] == exact[0]["answers"]


def test_a_picture_is_made_like_mnist(
    served: Server, mnist: datasets.ImageData
) -> None:
    body = digit_png(mnist)
    status, _, content = served.request("POST", "/predict", body, PNG)
    assert status == 200
    answer = json.loads(content)
    seen = to_digit(read_picture(body))
    assert seen
    assert answer["image"] == seen.image.tolist()
    assert answer["doubts"] == []
    (prediction,) = answer["predictions"]
    assert {x["digit"] for x in prediction["answers"]} == {7}
    same = served.predict({"image": answer["image"]})["predictions"][0]
    assert same["answers"] == prediction["answers"]
    wide = Image.new("L", (280, 280), "white")
    wide.paste("black", (20, 130, 260, 150))
    answer = json.loads(served.request("POST", "/predict", png_of(wide), PNG)[2])
    assert "times as wide as high" in answer["doubts"][0]


# ---- bad input

OTHER = Image.new("RGB", (28, 28), "white")
BAD: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "no content type": (b"{}", {}, 415, "got none"),
    "another content type": (b"1", {"Content-Type": "text/csv"}, 415, "text/csv"),
    "form": (
        b"image=1", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "form"
    ),
    "compressed": (
        zlib.compress(b"{}"), {**JSON, "Content-Encoding": "deflate"}, 415, "Encoding"
    ),
    "empty": (b"", JSON, 400, "not JSON"),
    "cut off": (b'{"image": [[0, 0', JSON, 400, "not JSON"),
    "not UTF-8": (b'{"image": "\xff\xfe"}', JSON, 400, "not JSON"),
    "NaN": (b'{"image": [[NaN]]}', JSON, 400, "NaN"),
    "Infinity": (b'{"image": [[-Infinity]]}', JSON, 400, "Infinity"),
    "deep": (b"[" * 100_000, JSON, 400, "recursion"),
    "deep, closed": (b"[" * 150 + b"]" * 150, JSON, 422, "a list"),
    "deep image": (
        b'{"image":' + b"[" * 150 + b"]" * 150 + b"}", JSON, 422, "28 rows"
    ),
    "many digits": (b'{"image": ' + b"9" * 9000 + b"}", JSON, 400, "number"),
    "no image": (b"{}", JSON, 422, "no image"),
    "null": (b'{"image": null}', JSON, 422, "null"),
    "text": (b'{"image": "7"}', JSON, 422, "text"),
    "another key": (b'{"picture": []}', JSON, 422, "picture"),
    "images is no list": (b'{"images": 7}', JSON, 422, "a number"),
    "no images": (b'{"images": []}', JSON, 422, "no image"),
    "27 rows": (json.dumps({"image": BLACK[1:]}).encode(), JSON, 422, "27 rows"),
    "ragged": (
        json.dumps({"image": [*BLACK[1:], ROW[1:]]}).encode(), JSON, 422, "27 in row 27"
    ),
    "a row is text": (
        json.dumps({"image": [*BLACK[1:], "x" * 28]}).encode(), JSON, 422, "text"
    ),
    "a pixel is text": (
        json.dumps({"image": [*BLACK[1:], [*ROW[1:], "1"]]}).encode(), JSON, 422, "text"
    ),
    "a long text and many short ones": (
        json.dumps({"image": [["x" * 10**5] + [""] * 27] * 28}).encode(),
        JSON, 422, "text in row 0",
    ),
    "a pixel is true": (
        json.dumps({"image": [[True] * 28] * 28}).encode(), JSON, 422, "true"
    ),
    "a pixel is null": (
        json.dumps({"image": [[None] * 28] * 28}).encode(), JSON, 422, "null"
    ),
    "second image": (
        json.dumps({"images": [BLACK, BLACK[1:]]}).encode(), JSON, 422, "images[1]"
    ),
    "negative": (
        json.dumps({"image": [*BLACK[1:], [*ROW[1:], -1]]}).encode(),
        JSON, 422, "got -1 in row 27, column 27",
    ),
    "256": (json.dumps({"image": [[256] * 28] * 28}).encode(), JSON, 422, "got 256"),
    "larger than a float": (
        json.dumps({"image": [[0] * 28] * 28}).replace("0", "1e999", 1).encode(),
        JSON, 422, "inf",
    ),
    "larger than an integer": (
        json.dumps({"image": [[10**30] * 28] * 28}).encode(), JSON, 422, "too large"
    ),
    "0 to 1": (
        json.dumps({"image": [[0.5] * 28] * 28}).encode(), JSON, 422, "by 255"
    ),
    "257 images": (json.dumps({"images": [BLACK] * 257}).encode(), JSON, 413, "256"),
    "not PNG": (b"GIF89a" + bytes(100), PNG, 422, "something else"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(100), PNG, 422, "something else"),
    "empty PNG": (b"", PNG, 422, "something else"),
    "PNG cut in its header": (png_of(OTHER)[:20], PNG, 422, "PNG"),
    "PNG cut in its pixels": (
        png_of(Image.effect_noise((300, 300), 99))[:5000], PNG, 422, "the picture: "
    ),
    "PNG with wrong pixels": (
        png_file(28, 28, chunk(b"IDAT", b"no zlib")), PNG, 422, "the picture: "
    ),
    "PNG without ink": (png_of(OTHER), PNG, 422, "no ink"),
    "PNG without pixels": (png_file(28, 28), PNG, 422, "the picture: "),
    "PNG of no size": (png_file(0, 0, chunk(b"IDAT", b"")), PNG, 422, "the picture: "),
    "PNG bomb": (
        png_file(30_000, 30_000, chunk(b"IDAT", zlib.compress(bytes(10**7)))),
        PNG, 413, "pixels",
    ),
    "PNG whose text is a bomb": (
        png_file(
            28, 28,
            *[chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**24)))] * 9,
            chunk(b"IDAT", zlib.compress(bytes(29 * 28))),
        ),
        PNG, 422, "the picture: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_the_server_goes_on(name: str, served: Server) -> None:
    body, headers, expected, word = BAD[name]
    status, found, answer = served.request("POST", "/predict", body, headers)
    assert (status, found["content-type"]) == (expected, "application/json")
    detail = json.loads(answer)["detail"]
    assert word in detail
    assert len(detail) < 400
    assert "object at 0x" not in detail
    assert served.predict({"image": BLACK})["predictions"]


def test_a_connection_outlives_bad_input(served: Server) -> None:
    with contextlib.closing(served.connect()) as connection:
        start = time.monotonic()
        for body, expected in [(b"{}", 422), (b"{", 400), (b'{"image": 1}', 422)] * 3:
            connection.request("POST", "/predict", body, JSON)
            response = connection.getresponse()
            assert response.status == expected
            assert not response.will_close
            response.read()
        assert time.monotonic() - start < 5


def test_wrong_methods_are_refused(served: Server) -> None:
    for method, path in [("GET", "/predict"), ("POST", "/models"), ("PUT", "/")]:
        status, headers, _ = served.request(method, path)
        assert status == 405
        assert headers["allow"]


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            content += part
    return content


def raw(served: Server, content: bytes) -> bytes:
    with socket.create_connection((served.host, served.port), PATIENCE) as connection:
        connection.sendall(content)
        return read_all(connection)


def head(served: Server, *lines: str) -> bytes:
    host = f"Host: {served.host}:{served.port}"
    first = "POST /predict HTTP/1.1"
    kind = "Content-Type: application/json"
    return "\r\n".join([first, host, kind, *lines, "", ""]).encode()


def test_a_body_of_100_megabytes_is_refused_before_it_comes(served: Server) -> None:
    heads = [
        head(served, f"Content-Length: {10**8}", *more)
        for more in ([], ["Expect: 100-continue"])
    ]
    with ThreadPoolExecutor() as pool:
        for answer in pool.map(lambda x: raw(served, x), heads):
            assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_without_end_is_refused_while_it_comes(served: Server) -> None:
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    sent = 0
    with socket.create_connection((served.host, served.port), PATIENCE) as connection:
        connection.sendall(head(served, "Transfer-Encoding: chunked"))
        with contextlib.suppress(ConnectionError):
            for _ in range(1600):  # 100 MB
                connection.sendall(piece)
                sent += len(piece)
        assert b" 413 " in read_all(connection)[:20]
    assert sent < 40_000_000
    assert psutil.Process(served.process.pid).memory_info().rss < 600e6


def test_what_is_not_http_is_refused(served: Server) -> None:
    assert raw(served, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").startswith(
        b"HTTP/1.1 400 "
    )
    assert raw(served, head(served, f"X: {'y' * 200_000}")).startswith(b"HTTP/1.1 4")
    lengths = ["Content-Length: 5", "Transfer-Encoding: chunked"]
    both = head(served, *lengths, "Connection: close")
    assert raw(served, both + b"0\r\n\r\n")[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 422")
    assert served.predict({"image": BLACK})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:{}", 200),
        ("LOCALHOST:{}", 200),
        ("127.0.0.1:{}", 200),
        ("[::1]:{}", 200),
        ("evil.example:{}", 421),
        ("localhost.evil.example:{}", 421),
        ("127.0.0.1", 421),
        ("127.0.0.1:1", 421),
        ("", 421),
    ],
)
def test_foreign_names_are_turned_away(
    host: str, expected: int, served: Server
) -> None:
    """A page whose own name points to 127.0.0.1 must not reach us."""
    headers = {"Host": host.format(served.port)}
    status, found, _ = served.request("GET", "/models", headers=headers)
    assert status == expected
    assert "content-security-policy" in found
    status, _, _ = served.request(
        "POST", "/predict", json.dumps({"image": BLACK}).encode(), {**JSON, **headers}
    )
    assert status == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Origin": "http://127.0.0.1:{}"}, 200),
        ({"Origin": "http://127.0.0.1:{}", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "http://localhost:{}"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_other_sites_may_not_ask(
    headers: dict[str, str], expected: int, served: Server
) -> None:
    sent = {name: text.format(served.port) for name, text in headers.items()}
    body = json.dumps({"image": BLACK}).encode()
    status, _, _ = served.request("POST", "/predict", body, {**JSON, **sent})
    assert status == expected


# ---- slow clients


def until_closed(served: Server, begin: bytes, drip: bytes) -> tuple[float, bytes]:
    """Send a byte now and then; seconds until the server has had enough."""
    start = time.monotonic()
    with socket.create_connection((served.host, served.port), PATIENCE) as connection:
        connection.sendall(begin)
        connection.settimeout(0.5)
        answer = b""
        while time.monotonic() - start < 60:
            try:
                part = connection.recv(65536)
            except TimeoutError:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(drip)
                continue
            except ConnectionResetError:
                break
            if not part:
                break
            answer += part
        return time.monotonic() - start, answer


@pytest.mark.slow
def test_slow_clients_are_not_waited_for(served: Server) -> None:
    slow = {
        "header": (b"POST /predict HTTP/1.1\r\n", b"X: y\r\n"),
        "second header": (
            b"GET /health HTTP/1.1\r\nHost: %s:%d\r\n\r\nGET /"
            % (str(served.host).encode(), served.port),
            b"a",
        ),
        "body": (head(served, "Content-Length: 1000"), b" "),
    }
    with ThreadPoolExecutor(3) as pool:
        found = dict(
            zip(slow, pool.map(lambda x: until_closed(served, *x), slow.values()),
                strict=True)
        )  # fmt: skip
        assert served.predict({"image": BLACK})
    assert found["header"][0] < 15
    assert found["header"][1].startswith(b"HTTP/1.1 408 ")
    assert found["second header"][0] < 45
    assert found["second header"][1].startswith(b"HTTP/1.1 200 ")
    assert found["body"][0] < 20
    assert found["body"][1].startswith(b"HTTP/1.1 408 ")


def test_connections_that_say_nothing_do_not_keep_others_out(served: Server) -> None:
    place = (served.host, served.port)
    with contextlib.ExitStack() as stack:
        for count in (100, 450):
            for _ in range(count):
                stack.enter_context(socket.create_connection(place, PATIENCE))
            status, _, _ = served.request("GET", "/health")
            assert status == 200


# ---- too much at once, and workers that die


@contextlib.contextmanager
def stopped(worker: psutil.Process) -> Iterator[None]:
    """A process that is alive and does nothing."""
    worker.suspend()
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.resume()


def test_a_full_queue_says_so_and_keeps_what_waits(served: Server) -> None:
    question = {"images": [BLACK] * 256}
    with stopped(served.worker(INSTALLED[0])):
        # None is waited for: on a busy machine they come to the queue in their time.
        asked = [Later(served, question) for _ in range(8)]
        refused = wait_for(lambda: [x for x in asked if x.refused], "a full queue", 8)
        assert refused[0].retry_after >= 1
        assert "waiting" in refused[0].answer()[1]["detail"]
        assert served.get("/models")
    answers = [later.answer() for later in asked]
    assert {status for status, _ in answers} == {200, 503}
    assert sum(status == 200 for status, _ in answers) >= 3


def test_a_killed_worker_comes_back(served: Server) -> None:
    name = INSTALLED[0]
    body = json.dumps({"image": BLACK}).encode()
    before = {x["name"]: x["restarts"] for x in served.get("/models")["models"]}
    served.worker(name).kill()

    def refused() -> Any:
        status, headers, answer = served.request("POST", "/predict", body, JSON)
        return status == 503 and (headers, answer)

    headers, answer = wait_for(refused, "503", 5)
    assert 1 <= int(headers["retry-after"]) <= 60
    assert FRAMEWORKS[name].title in json.loads(answer)["detail"]
    status, _, answer = served.request("GET", "/health")
    assert status == 503
    assert json.loads(answer)["models"][name] == "restarting"
    for other in INSTALLED[1:]:
        assert served.predict({"image": BLACK}, f"?model={other}")
    served.wait_until_well()
    assert served.predict({"image": BLACK})
    after = {x["name"]: x["restarts"] for x in served.get("/models")["models"]}
    assert after == {**before, name: before[name] + 1}
    assert f"{FRAMEWORKS[name].title} starts again" in served.errors


@pytest.mark.slow
def test_a_worker_killed_with_requests_on_their_way(served: Server) -> None:
    worker = served.worker(INSTALLED[0])
    with stopped(worker):
        waiting = [Later(served, {"image": BLACK}) for _ in range(5)]
        time.sleep(0.5)
        worker.kill()
    for later in waiting:
        status, answer = later.answer()
        assert status == 503
        assert "restarting" in answer["detail"]
    served.wait_until_well()


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(served: Server) -> None:
    worker = served.worker(INSTALLED[0])
    with stopped(worker):
        waiting = [Later(served, {"image": BLACK}) for _ in range(3)]
        for later in waiting:
            status, _ = later.answer()
            assert status == 503
        Later(served, {"image": BLACK}).answer()
        served.wait_until_well()
        assert served.worker(INSTALLED[0]).pid != worker.pid
    assert "is stuck and is killed" in served.errors


# ---- its end


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


def test_sigterm_answers_what_is_asked_and_leaves_nothing(
    trained: Path, tmp_path: Path
) -> None:
    with Server("--model", trained, log=tmp_path / "log") as server:
        workers = server.workers()
        assert len(workers) == len(INSTALLED)
        idle = server.connect()
        idle.request("GET", "/health")
        idle.getresponse().read()
        with stopped(server.worker(INSTALLED[0])):
            waiting = [Later(server, {"image": BLACK}) for _ in range(3)]
            time.sleep(0.5)
            server.process.terminate()
            time.sleep(0.5)
            with pytest.raises(ConnectionError):
                server.get("/health")
        for later in waiting:
            assert later.answer()[0] == 200
        assert server.process.wait(PATIENCE) == 0
        assert gone(workers, 1)
        idle.close()
        assert server.errors == ""


@pytest.mark.slow
def test_sigint_while_frameworks_start(trained: Path, tmp_path: Path) -> None:
    with Server("--model", trained, log=tmp_path / "log", ready=False) as server:
        workers = wait_for(server.workers, "a worker")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE) in (0, 130)
        assert gone(workers, 5)
        assert "Traceback" not in server.errors


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_server(trained: Path, tmp_path: Path) -> None:
    with Server("--model", trained, log=tmp_path / "log") as server:
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        assert gone(workers, 30)


# ---- its start


def test_a_port_in_use_is_said(served: Server, trained: Path) -> None:
    result = type_here("serve", "--model", trained, "--port", served.port)
    assert result.returncode == 2
    assert f"port {served.port} of 127.0.0.1 is in use" in result.stderr
    assert f"--port {served.port + 1}" in result.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--model", "nowhere"], "nowhere does not exist"),
        (["--model", str(TESTS / "conftest.py")], "expected a run's folder"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["--host", "192.0.2.1"], "is no address of this machine"),
    ],
)
def test_what_cannot_be_served_is_said(
    options: list[str], word: str, trained: Path
) -> None:
    model = [] if "--model" in options else ["--model", trained]
    result = type_here("serve", *model, *options)
    assert result.returncode == 2
    assert word in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("module", ["fastapi", "uvicorn"])
def test_a_missing_extra_is_said(module: str, tmp_path: Path) -> None:
    path = hide_module(tmp_path, module)
    result = run_paripassu("serve", "--model", "x", path=path)
    assert result.returncode == 2
    assert f"needs {module}. Type: pip install {module}" in result.stderr


@pytest.mark.slow
@needs_both
def test_a_framework_that_cannot_start_ends_the_server(
    trained: Path, tmp_path: Path
) -> None:
    path = break_module(tmp_path, "tensorflow")
    result = run_paripassu("serve", "--model", trained, "--port", 0, path=path)
    assert result.returncode == 1
    assert "broken on purpose" in result.stderr
    assert result.stdout == ""


@pytest.mark.slow
@needs_both
def test_two_models_each_by_its_own_framework(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.keras"
    made = type_here("convert", trained, "--to", "tensorflow", "--out", other)
    assert made.returncode == 0, made.stderr
    with Server("--model", trained, "--model", other, log=tmp_path / "log") as server:
        found = [(x["name"], x["source"]) for x in server.get("/models")["models"]]
        assert found == [
            ("pytorch", "/".join(trained.parts[-2:])),
            ("tensorflow", "/".join(other.parts[-2:])),
        ]
        page = server.request("GET", "/")[2].decode()
        assert "2 networks, each in its own framework" in page
    with Server("--model", trained, "--model", trained, log=tmp_path / "log") as server:
        names = [x["name"] for x in server.get("/models")["models"]]
        assert names == ["pytorch-1", "pytorch-2"]
        (prediction,) = server.predict({"image": BLACK})["predictions"]
        assert prediction["largest_difference"] < 1e-6


@pytest.mark.slow
def test_an_address_that_others_reach_is_said(trained: Path, tmp_path: Path) -> None:
    options = ["--model", trained, "--host", "0.0.0.0"]
    with Server(*options, log=tmp_path / "log") as server:
        assert "others on the network can reach it" in server.errors
        assert server.url.endswith(f":{server.port}/")
        server.host = "127.0.0.1"
        headers = {"Host": "some.name.example"}
        assert server.request("GET", "/models", headers=headers)[0] == 200
        foreign = {**headers, **JSON, "Origin": "http://other.example"}
        assert server.request("POST", "/predict", b"{}", foreign)[0] == 403


# ---- the load test itself


def test_load_is_measured(served: Server) -> None:
    script = TESTS.parent / "benchmarks" / "serve_load.py"
    words = ["--url", served.url, "--rate", "50", "--seconds", "1", "--json"]
    result = subprocess.run(
        [sys.executable, str(script), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    found = json.loads(result.stdout)
    assert found["errors"] == {}
    assert found["requests"] == found["answers"] == 50
    times = [found["milliseconds"][name] for name in ("p50", "p95", "p99", "max")]
    assert times == sorted(times)
    assert result.returncode == (0 if found["milliseconds"]["p99"] < 100 else 1)
    assert min(found["right"].values()) > 0.8
