"""The page and the HTTP API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from paripassu.analysis.report.figures import styles
from paripassu.analysis.report.templates import templates
from paripassu.core.digits import Digit
from paripassu.core.version import __version__
from paripassu.frameworks import registry
from paripassu.prediction.answering import Images
from paripassu.serve import schema
from paripassu.serve.batching import Answer, Batcher, NotReadyError, ask_all
from paripassu.serve.guard import read_body, refuse
from paripassu.serve.questions import RequestError, from_json_body, from_png_body

FOLDER = Path(__file__).parent
COLOURS = 4  # of the page
JSON, PNG = b"application/json", b"image/png"
FILES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": schema.Problem, "description": "The body is not JSON."},
    403: {"model": schema.Problem, "description": "A page of another site asks."},
    408: {"model": schema.Problem, "description": "The body came too slowly."},
    413: {"model": schema.Problem, "description": "The body is too large."},
    415: {"model": schema.Problem, "description": "Neither JSON nor PNG."},
    422: {"model": schema.Problem, "description": "Not an image of the right shape."},
    503: {
        "model": schema.Problem,
        "description": "A model starts again, or too much waits: ask again later.",
        "headers": {
            "Retry-After": {"description": "seconds", "schema": {"type": "integer"}}
        },
    },
}


def make_app(batchers: Sequence[Batcher], address: str) -> FastAPI:
    """The application, without its guard; examples name the page's `address`."""
    app = FastAPI(
        title="paripassu serve",
        version=__version__,
        description="The same image, answered by every model.",
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
        telemetry={
            "auto_configure": False,
            "tracing": False,
            "metrics": False,
            "logs": False,
        },
    )
    _add_api(app, batchers)
    models = [model_of(batcher) for batcher in batchers]
    together = len({id(batcher.served.source) for batcher in batchers}) == 1
    told = {
        "models": models,
        "hues": hues(models),
        "together": together,
        "lead": lead(models, together),
    }
    pages = {
        "/": _render("page.html", **told),
        "/docs": _render("docs.html", api=described(app.openapi()), address=address),
    }
    for path, content in pages.items():
        _add_text(app, path, "text/html; charset=utf-8", content)
    for name, kind in FILES.items():
        _add_text(app, f"/{name}", kind, (FOLDER / name).read_bytes())
    return app


def hues(models: Sequence[schema.Model]) -> list[int]:
    """The colours of frameworks; of models where a framework has several, any."""
    names = [model.framework for model in models]
    if len(set(names)) < len(names):
        return [place % COLOURS for place in range(len(names))]
    known = styles(names)
    return [known[name] % COLOURS for name in names]


def lead(models: Sequence[schema.Model], together: bool) -> str:
    """What answers, in a sentence; `together`: one network in several frameworks."""
    *titles, last = [model.title for model in models]
    named = f"{', '.join(titles)} and {last}" if titles else last
    if not together:
        return f"{len(models)} networks, each in its own framework: {named}."
    first, trained = models[0], ""
    if first.trained_by:
        trained = f", trained in {registry.find(first.trained_by).title}"
    same = "the same " if titles else ""
    return (
        f"One network{trained}: {same}{first.parameters:,} weights, answered by "
        f"{named}."
    )


def _render(name: str, **values: Any) -> bytes:
    return templates(FOLDER).get_template(name).render(values).encode()


def _add_text(app: FastAPI, path: str, kind: str, content: bytes) -> None:
    async def text() -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    app.add_api_route(path, text, methods=["GET", "HEAD"], include_in_schema=False)


def _add_api(app: FastAPI, batchers: Sequence[Batcher]) -> None:
    by_name = {batcher.served.name: batcher for batcher in batchers}

    @app.post(
        "/predict",
        summary="Ask what an image shows",
        response_model=schema.Predictions,
        response_description="The answers.",
        responses=PROBLEMS,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": schema.Question.model_json_schema()},
                    "image/png": {"schema": {"type": "string", "format": "binary"}},
                },
            }
        },
    )
    async def predict(
        request: Request,
        model: Annotated[
            list[str] | None, Query(description="Only these; default: all.")
        ] = None,
    ) -> Response:
        """Send images as JSON, or a PNG picture; every model answers.

        JSON images are taken as they are. Of a PNG picture the ink is found, scaled
        to 20x20 and put in the middle of 28x28, as MNIST's digits were made.
        """
        headers = dict(request.scope["headers"])
        try:
            chosen = [_find(name, by_name) for name in model or []] or batchers
            kind = _kind_of(headers)
            body = await read_body(headers, request.receive)
        except ConnectionError:
            return Response(status_code=400)  # nobody reads it
        except RequestError as refusal:
            return _Refusal(refusal)
        try:
            images, digit = await _read(kind, body)
            answers = await ask_all(chosen, images)
        except RequestError as refusal:
            return _json({"detail": str(refusal)}, refusal.status)
        except NotReadyError as reason:
            response = _json({"detail": str(reason)}, 503)
            response.headers["Retry-After"] = str(reason.seconds)
            return response
        return _json(answered(chosen, answers, digit))

    @app.get(
        "/models",
        summary="What answers",
        response_model=schema.Models,
        response_description="The models.",
    )
    async def models() -> Response:
        """List the models, in the order of the answers."""
        return _json({"models": [model_of(x).model_dump() for x in batchers]})

    @app.get(
        "/health",
        summary="Whether every model answers",
        response_model=schema.Health,
        response_description="All are ready.",
        responses={503: {"model": schema.Health, "description": "One is not."}},
    )
    async def health() -> Response:
        """For monitors: 200 if every model is ready, else 503."""
        statuses = {name: batcher.status for name, batcher in by_name.items()}
        well = set(statuses.values()) == {"ready"}
        found = {"status": "ok" if well else "unavailable", "models": statuses}
        return _json(found, 200 if well else 503)


class _Refusal(Response):
    """A refusal that may come before the whole body has."""

    def __init__(self, refusal: RequestError) -> None:
        super().__init__(status_code=refusal.status)
        self._refusal = refusal

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        await refuse(self._refusal, receive, send)


def _find(name: str, by_name: dict[str, Batcher]) -> Batcher:
    if name not in by_name:
        raise RequestError(
            422, f"no model {name[:100]!r}; expected one of {', '.join(by_name)}."
        )
    return by_name[name]


def _kind_of(headers: dict[bytes, bytes]) -> bytes:
    """What a body is, of the two that can be answered."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind not in (JSON, PNG):
        came = kind.decode("latin-1")[:100] or "none"
        raise RequestError(
            415, f"expected Content-Type application/json or image/png, got {came}."
        )
    return kind


async def _read(kind: bytes, body: bytes) -> tuple[Images, Digit | None]:
    """The images in a body, and of a picture what was found in it."""
    if kind == JSON:
        return from_json_body(body), None
    digit = await asyncio.to_thread(from_png_body, body)
    return digit.image[None], digit


def answered(
    chosen: Sequence[Batcher], answers: Sequence[Answer], digit: Digit | None
) -> dict[str, Any]:
    """What `schema.Predictions` describes.

    Of each that was chosen there are probabilities `(N, classes)` and seconds; `digit`
    is what was found in a picture, None for JSON.
    """
    names = [batcher.served.name for batcher in chosen]
    shares = np.stack([probabilities for probabilities, _ in answers])
    digits = shares.argmax(axis=2)
    gaps = np.ptp(shares.astype(np.float64), axis=0).max(axis=1)
    found: dict[str, Any] = {
        "predictions": [
            {
                "answers": [
                    {"model": name, "digit": best, "probabilities": probabilities}
                    for name, best, probabilities in zip(
                        names, digits[:, i].tolist(), shares[:, i].tolist(), strict=True
                    )
                ],
                "agree": bool((digits[:, i] == digits[0, i]).all()),
                "largest_difference": float(gaps[i]),
            }
            for i in range(shares.shape[1])
        ],
        "milliseconds": {
            name: round(1000 * seconds, 3)
            for name, (_, seconds) in zip(names, answers, strict=True)
        },
    }
    if digit:
        found["image"] = digit.image.tolist()
        found["doubts"] = list(digit.doubts.values())
    return found


def model_of(batcher: Batcher) -> schema.Model:
    """What is told of a model."""
    served = batcher.served
    source, framework = served.source, registry.find(served.framework)
    accuracy = source.notes.get("test_accuracy")
    return schema.Model(
        name=served.name,
        title=served.title,
        framework=framework.name,
        version=framework.version,
        source="/".join(source.path.resolve().parts[-2:]),
        trained_by=source.framework,
        recipe=source.recipe.name,
        network=source.recipe.network,
        classes=source.recipe.architecture.num_classes,
        parameters=sum(array.size for array in source.weights.values()),
        test_accuracy=float(accuracy) if accuracy else None,
        status=batcher.status,
        restarts=batcher.restarts,
    )


def _json(value: Any, status: int = 200) -> Response:
    content = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    headers = {"Cache-Control": "no-store"}
    return Response(content, status, headers, "application/json")


def described(document: dict[str, Any]) -> dict[str, Any]:
    """What the page on the API shows of an OpenAPI document."""
    operations = [
        {
            "id": f"{method}{path.replace('/', '-')}",
            "method": method.upper(),
            "path": path,
            "summary": operation["summary"],
            "description": operation["description"].split("\n\n"),
            "parameters": operation.get("parameters", []),
            "bodies": list(operation.get("requestBody", {}).get("content", {})),
            "responses": [
                (
                    code,
                    x["description"],
                    _kind(x["content"]["application/json"]["schema"]),
                )
                for code, x in operation["responses"].items()
            ],
        }
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    shapes = [
        {
            "name": name,
            "about": shape["description"],
            "fields": [
                (field, _kind(x), x.get("description", ""))
                for field, x in shape["properties"].items()
            ],
        }
        for name, shape in document["components"]["schemas"].items()
    ]
    return {"operations": operations, "shapes": shapes}


def _kind(shape: dict[str, Any]) -> str:
    """A JSON schema in few words: "list of Answer", "number or null"."""
    if "$ref" in shape:
        return str(shape["$ref"]).rpartition("/")[2]
    if "anyOf" in shape:
        return " or ".join(_kind(x) for x in shape["anyOf"])
    if shape["type"] == "array":
        return f"list of {_kind(shape['items'])}"
    if "additionalProperties" in shape:
        return f"object of {_kind(shape['additionalProperties'])}"
    return str(shape["type"])
