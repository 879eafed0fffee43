"""The hub over HTTP: a thin shell around the functions that do the work.

A refusal is a status and ``{"error": "one sentence"}``.  A 2xx for an item or an answer means that
it is on disk.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mentoring.access import Guard
from mentoring.agenda import MAX_LEASE
from mentoring.hub import Hub
from mentoring.metrics import Metrics, Timed
from mentoring.problems import Busy, NotAcceptable, NotFound, RefusalError, TooLarge

__all__ = ["application"]

BODY_S = 60.0
"""Within so long a body must have come; a slower sender holds a place that others need."""
AT_ONCE = 8
"""Items taken in at the same time."""
_JSON_BYTES = 1024 * 1024
_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/ahead.js": ("ahead.js", "text/javascript; charset=utf-8"),
    "/outbox.js": ("outbox.js", "text/javascript; charset=utf-8"),
    "/stage.js": ("stage.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

log = logging.getLogger(__name__)


def application(hub: Hub, *, token: str, at_once: int = AT_ONCE, body_s: float = BODY_S) -> Guard:
    """The ASGI application of a hub, behind its token.

    Args:
        hub: Stays the caller's, who closes it.
        token: Asked of every call under ``/v1``.
        at_once: Items taken in at the same time; one more is told to come again.
        body_s: A body that takes longer is refused.
    """
    metrics = Metrics()
    app = FastAPI(
        title="edge-sdk mentoring hub", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json"
    )
    _tell_errors(app)
    _serve_page(app)
    _serve_items(app, hub, metrics, at_once=at_once, body_s=body_s)
    _serve_operators(app, hub, metrics, body_s=body_s)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        hub.agenda.open()
        return {"status": "ok"}

    @app.get("/metrics")
    def metrics_text() -> Response:
        metrics.open.set(hub.agenda.open())
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Guard(Timed(app, metrics), token=token)


def _serve_items(app: FastAPI, hub: Hub, metrics: Metrics, *, at_once: int, body_s: float) -> None:
    coming = anyio.CapacityLimiter(at_once)

    @app.put("/v1/items/{sha256}", status_code=201)
    async def put_item(sha256: str, request: Request) -> JSONResponse:
        try:
            coming.acquire_on_behalf_of_nowait(request)
        except anyio.WouldBlock as error:
            metrics.items.labels("busy").inc()
            raise Busy(
                f"{at_once} items are coming in already; send it again later", retry_after_s=1
            ) from error
        try:
            done = await _take_in(hub, sha256, request, body_s)
        except RefusalError as refusal:
            metrics.items.labels("refused").inc()
            raise refusal
        finally:
            coming.release_on_behalf_of(request)
        metrics.items.labels(done).inc()
        if done == "new":
            metrics.fsync_s.observe(hub.store.fsync_s)
            metrics.bytes.inc(hub.store.path_of(sha256).stat().st_size)
        return JSONResponse({"item": sha256, "status": done}, 201 if done == "new" else 200)

    @app.api_route("/v1/items/{sha256}", methods=["GET", "HEAD"])
    def get_item(sha256: str) -> FileResponse:
        path = hub.store.path_of(sha256)
        if not path.is_file():
            raise NotFound(f"there is no item {sha256} here")
        return FileResponse(path, media_type="application/octet-stream", headers=_for_ever(sha256))

    @app.post("/v1/have")
    async def have(request: Request) -> dict[str, list[str]]:
        asked = await _json_list(request, "digests", body_s)
        if not all(isinstance(digest, str) for digest in asked):
            raise NotAcceptable("the list holds something else than digests; send them as text")
        return {"missing": await run_in_threadpool(hub.store.missing, asked)}

    @app.get("/v1/pictures/{sha256}")
    def picture(sha256: str) -> Response:
        data, kind = hub.store.read_part(sha256, "frame")
        return Response(data, media_type=kind, headers=_for_ever(sha256))


def _serve_operators(app: FastAPI, hub: Hub, metrics: Metrics, *, body_s: float) -> None:
    @lru_cache(maxsize=MAX_LEASE)
    def classes_of(item: str) -> list[str]:
        """What the model that asks tells apart, in order of their names: what an operator may say instead."""
        try:
            return sorted(hub.store.header_of(item).thresholds)
        except NotFound:
            return []  # the page leaves out what has no picture any more

    @app.get("/v1/next")
    def next_questions(
        lease: Annotated[int, Query(ge=1, le=MAX_LEASE)] = 1,
        holder: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    ) -> JSONResponse:
        found = hub.agenda.next(lease, holder=holder)
        body = {
            "holder": found.holder,
            "until": found.until.isoformat(),
            "lease_s": hub.agenda.lease_s,
            "open": found.open,
            "elsewhere": found.elsewhere,
            "questions": [
                {**question.as_json(), "classes": classes_of(question.item)} for question in found.questions
            ],
        }
        return JSONResponse(body, headers={"Cache-Control": "no-store"})

    @app.post("/v1/release")
    def release(holder: Annotated[str, Query(min_length=1, max_length=200)]) -> dict[str, int]:
        return {"frames": hub.agenda.release(holder)}

    @app.post("/v1/answers")
    async def take_answers(request: Request) -> JSONResponse:
        given = await _json_list(request, "answers", body_s)
        done = await run_in_threadpool(hub.answers.record, given)
        for outcome in done:
            metrics.answers.labels({201: "new", 200: "known"}.get(outcome.status, "refused")).inc()
        refused = [outcome for outcome in done if outcome.error]
        # a caller that reads the status alone must not take a refusal for success
        status = 422 if refused else 201 if any(outcome.status == 201 for outcome in done) else 200
        body: dict[str, Any] = {"answers": [asdict(outcome) for outcome in done]}
        return JSONResponse({**body, "error": refused[0].error} if refused else body, status)

    @app.get("/v1/counts")
    def counts() -> JSONResponse:
        body = {**hub.answers.counts(), "open": hub.agenda.open(), "items": hub.store.count()}
        return JSONResponse(body, headers={"Cache-Control": "no-store"})

    @app.get("/v1/exports/{mark}")
    def export(mark: str) -> StreamingResponse:
        if mark != "newest" and not (mark.isascii() and mark.isdigit() and len(mark) < 19):
            raise NotAcceptable(f"{mark[:80]!r} is no mark; give the number of an answer, or newest")
        found = hub.exports.at(None if mark == "newest" else int(mark))
        name = f"mentored-{found.summary.mark}.tar"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Mark": str(found.summary.mark)}
        return StreamingResponse(found.tar(), media_type="application/x-tar", headers=headers)


async def _take_in(hub: Hub, sha256: str, request: Request, body_s: float) -> str:
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > hub.store.max_item_bytes:
        raise TooLarge(f"the item has {said} bytes; the hub takes at most {hub.store.max_item_bytes}")
    with hub.store.receive(sha256) as arrival:
        try:
            with anyio.fail_after(body_s):
                async for piece in request.stream():
                    if piece:
                        await run_in_threadpool(arrival.write, piece)
        except TimeoutError as error:
            raise HTTPException(408, f"the item did not come within {body_s:g} s; send it again") from error
        return await run_in_threadpool(arrival.finish)


async def _json_list(request: Request, of: str, body_s: float) -> list[Any]:
    data = bytearray()
    try:
        with anyio.fail_after(body_s):
            async for piece in request.stream():
                data += piece
                if len(data) > _JSON_BYTES:
                    raise TooLarge(f"the list has more than {_JSON_BYTES} bytes; send it in several")
    except TimeoutError as error:
        raise HTTPException(408, f"the list did not come within {body_s:g} s; send it again") from error
    try:
        value = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise NotAcceptable(f"the body is not JSON; send a list of {of}") from error
    if not isinstance(value, list):
        raise NotAcceptable(f"the body is no list; send a list of {of}")
    return value


def _for_ever(sha256: str) -> dict[str, str]:
    # named by its content, so it never changes; private, because a proxy has not checked the token
    return {"Cache-Control": "private, max-age=31536000, immutable", "ETag": f'"{sha256}"'}


def _serve_page(app: FastAPI) -> None:
    for route, (name, kind) in _FILES.items():
        data = (_PAGE / name).read_bytes()
        app.add_api_route(route, _file(data, kind), methods=["GET"], include_in_schema=False)


def _file(data: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def serve() -> Response:
        return Response(data, media_type=kind, headers={"Cache-Control": "no-cache"})

    return serve


def _tell_errors(app: FastAPI) -> None:
    def told(status: int, sentence: str, retry_after_s: int | None = None) -> JSONResponse:
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        return JSONResponse({"error": sentence}, status, headers)

    @app.exception_handler(RefusalError)
    def refused(_: Request, error: RefusalError) -> JSONResponse:
        return told(error.status, str(error), error.retry_after_s)

    @app.exception_handler(HTTPException)
    def no_route(request: Request, error: HTTPException) -> JSONResponse:
        sentences = {
            404: f"there is nothing at {request.url.path}; see /v1/openapi.json",
            405: f"{request.method} is not for {request.url.path}; see /v1/openapi.json",
        }
        return told(error.status_code, sentences.get(error.status_code, str(error.detail)))

    @app.exception_handler(RequestValidationError)
    def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        wanted = str(first["msg"])
        given = json.dumps(first.get("input"), default=str)
        return told(422, f"{first['loc'][-1]} is {given[:80]}; {wanted[0].lower()}{wanted[1:]}")

    @app.exception_handler(ClientDisconnect)
    def gone(_: Request, __: ClientDisconnect) -> PlainTextResponse:
        return PlainTextResponse("", 499)  # nobody reads it; the log does

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> JSONResponse:
        log.error("request failed", extra={"path": request.url.path}, exc_info=error)
        return told(500, "the hub failed inside; its log says why")
