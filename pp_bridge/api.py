"""The HTTP interface: its requests, its answers and the page."""

import asyncio
import re
import reprlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    StreamingResponse,
)
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

import pp_env
from pp_bridge.catalog import DatasetCatalog, OutsideRootError
from pp_bridge.messages import BridgeCommand, Reply, StartRequest, name_fields
from pp_bridge.metrics import StatusCollector
from pp_bridge.reports import Reports
from pp_bridge.security import RequestFilter, TokenCheck
from pp_bridge.shared_state import SharedState
from pp_bridge.webrtc import LiveStream, OfferError
from pp_recorder.command_line import suggest
from pp_recorder.dataset.reader import DatasetError

ALIAS = "/v1/sim/bridge"  # a second prefix of every path

_PAGE = Path(__file__).with_name("page.html")
_HUNG_AFTER = 600.0  # s without a tick of the simulator's loop
_MAX_OFFER_LENGTH = 65_536  # characters
_READERS = 4  # threads that read datasets; the simulator needs the processors, too
_STATIC = ("/", ALIAS, f"{ALIAS}/")

_BOUNDARY = "picture"
_MJPEG = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' data:; media-src 'self'; connect-src 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)

# HTTP status of each reason for which the simulator's process refuses a command.
_STATUS_OF = {"invalid": 422, "conflict": 409, "storage": 507, "unavailable": 503}

SendCommand = Callable[[BridgeCommand], Awaitable[Reply]]
T = TypeVar("T")

_repr = reprlib.Repr()  # of what a client sent: at most a few levels and items
_repr.maxstring = _repr.maxother = _repr.maxlong = 100


def _whole_number(value: Any) -> Any:
    """Let only digits pass for an integer in a URL, not 1.0, 1_0 or a number without end."""
    if isinstance(value, str) and not re.fullmatch("-?[0-9]{1,15}", value):
        raise ValueError("expected a whole number of at most 15 digits")
    return value


_Integer = Annotated[int, BeforeValidator(_whole_number)]


class ErrorDetail(BaseModel):
    """The reason for which a request was refused."""

    detail: str


class Status(BaseModel):
    """State of the service and of its newest collection."""

    model_config = ConfigDict(extra="ignore")

    state: Literal["starting", "idle", "collecting"]
    outcome: Literal["complete", "stopped", "failed", "interrupted"] | None = Field(
        None, description="How the newest collection ended; null while one runs"
    )
    last_error: str | None = None
    cameras: list[str] = Field([], description="What the live view shows, in this order")
    request: StartRequest | None = Field(None, description="The newest collection")
    episodes: int = Field(0, description="Finished and safe on disk")
    frames: int = Field(0, description="Of the finished episodes")
    frame: int = Field(0, description="Of the current episode")
    frames_per_episode: int = 0
    attempts: int = 0
    successes: int = 0
    success_rate: float | None = None
    failures: dict[str, int] = Field({}, description="How often each reason ended an attempt")
    frames_per_second: float | None = None
    eta_seconds: float | None = None
    dropped: list[str] = Field([], description="Messages about what resuming has removed")


class Health(BaseModel):
    """State of a working service."""

    status: Literal["ok"] = "ok"
    state: Literal["starting", "idle", "collecting"]
    version: str = pp_env.__version__


class DatasetSummary(BaseModel):
    """A dataset."""

    name: str
    episodes: int = Field(description="As info.json says")
    frames: int
    error: str | None = Field(None, description="The reason why it can't be read")


class EpisodeSummary(BaseModel):
    """An episode of a dataset."""

    episode: int
    length_s: float
    success: bool | None = Field(description="null in a dataset of another program")
    task: str
    cameras: list[str]


class SessionDescription(BaseModel):
    """A WebRTC session description."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["offer", "answer"]
    sdp: str = Field(max_length=_MAX_OFFER_LENGTH)


class SessionRequest(BaseModel):
    """The token to store in a cookie."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: str = Field(max_length=1000)


def make_app(shared_state: SharedState, token: str | None, local_only: bool) -> FastAPI:
    """Return an application with the page, the live view, the access checks and the errors.

    Args:
        shared_state: Source of images and status.
        token: Secret that requests must carry; None accepts all requests.
        local_only: Whether to refuse requests to any host name but a loopback one.
    """
    live = LiveStream(shared_state)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await live.close()
        await app.state.at_end.aclose()

    app = FastAPI(
        title="FrankaPickPlace bridge",
        version=pp_env.__version__,
        description=f"Start, watch and stop a collection. Every path is also below `{ALIAS}`.",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.at_end = AsyncExitStack()
    app.exception_handler(RequestValidationError)(_explain_invalid)
    app.exception_handler(400)(_explain_unreadable_body)
    app.add_middleware(RequestFilter, local_only=local_only, static=_STATIC)
    _include_routes(app, _open_routes(shared_state, token))
    _include_routes(app, _live_routes(shared_state, live), _checks(token))
    return app


def add_collection(
    app: FastAPI,
    shared_state: SharedState,
    token: str | None,
    catalog: DatasetCatalog,
    send_command: SendCommand,
    scene: Mapping[str, Any],
) -> None:
    """Add the routes of collections, datasets and metrics.

    Args:
        app: From `make_app`.
        shared_state: Source of the status.
        token: As in `make_app`.
        catalog: The datasets.
        send_command: Sends a command to the simulator's process and returns its reply.
        scene: Defaults of a request that are the service's own.
    """
    reports, checks = Reports(catalog.without_paths), _checks(token)
    app.state.at_end.callback(catalog.close)
    app.state.at_end.push_async_callback(reports.close)

    @app.exception_handler(HTTPException)
    async def hide_paths(request: Request, error: HTTPException) -> Response:
        error.detail = name_fields(catalog.without_paths(str(error.detail)))
        return await http_exception_handler(request, error)

    _include_routes(app, _collect_routes(shared_state, catalog, send_command), checks)
    _include_routes(app, _dataset_routes(catalog, reports), checks)
    _include_routes(app, _metrics_routes(shared_state), checks)
    _document_defaults(app, scene)


def _document_defaults(app: FastAPI, scene: Mapping[str, Any]) -> None:
    """Let the document tell the defaults of this service; the page fills its form in by them."""
    general = app.openapi

    def openapi() -> dict[str, Any]:
        document = general()
        fields = document["components"]["schemas"]["StartRequest"]["properties"]
        for name, value in scene.items():
            fields[name]["default"] = value
        return document

    app.openapi = openapi


def _checks(token: str | None) -> list[Any]:
    """Return the dependencies of what needs the token, if there is one."""
    return [] if token is None else [Depends(TokenCheck(token))]


# Whatever answers at once is asynchronous, so that it shares no threads with what takes its time.


def _open_routes(shared_state: SharedState, token: str | None) -> APIRouter:
    routes, html = APIRouter(), _PAGE.read_text(encoding="utf-8")

    @routes.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": _CONTENT_SECURITY_POLICY})

    @routes.get("/healthz", responses={503: {"model": ErrorDetail}})
    async def health() -> Health:
        """Return 200 if the service works; needs no token."""
        silence, state = shared_state.seconds_since_status(), shared_state.status()["state"]
        if silence > _HUNG_AFTER and state != "starting":
            raise HTTPException(503, f"the simulator has not moved for {silence:.0f} s")
        return Health(state=state)

    @routes.post("/session", status_code=204, responses=_errors(401))
    async def begin_session(session: SessionRequest, response: Response) -> None:
        """Store the token in a cookie, with which a browser can load images and videos."""
        if token is not None:
            TokenCheck(token).set_cookie(session.token, response)

    return routes


def _live_routes(shared_state: SharedState, live: LiveStream) -> APIRouter:
    routes = APIRouter(prefix="/live", tags=["live view"])

    @routes.get("/cameras")
    async def cameras() -> list[str]:
        """Return the names of the cameras, in the order of the videos in an offer."""
        return list(shared_state.cameras)

    @routes.post("/offer", responses=_errors(422))
    async def offer(description: SessionDescription) -> SessionDescription:
        """Answer a WebRTC offer to receive one video per camera."""
        try:
            return SessionDescription(type="answer", sdp=await live.answer(description.sdp))
        except OfferError as error:
            raise HTTPException(422, str(error)) from None

    @routes.get(
        "/{camera}.mjpeg",
        response_class=StreamingResponse,
        responses={200: {"content": {_MJPEG: {}}}, **_errors(404)},
    )
    async def jpegs(camera: str) -> StreamingResponse:
        """Stream a camera as JPEGs without end, for networks that block WebRTC."""
        if camera not in shared_state.cameras:
            raise HTTPException(
                404, f"the cameras are {list(shared_state.cameras)}, got {camera!r}"
            )
        return StreamingResponse(_multipart(live.jpegs(camera)), media_type=_MJPEG)

    return routes


def _collect_routes(
    shared_state: SharedState, catalog: DatasetCatalog, send_command: SendCommand
) -> APIRouter:
    routes = APIRouter(prefix="/collect", tags=["collection"])

    def describe(status: dict[str, Any]) -> Status:
        found = Status(**status, cameras=list(shared_state.cameras))
        if found.last_error is not None:
            found.last_error = name_fields(catalog.without_paths(found.last_error))
        found.dropped = [catalog.without_paths(text) for text in found.dropped]
        return found

    async def carry_out(client: Request, command: BridgeCommand) -> Status:
        reply = await _while_connected(client, send_command(command))
        if reply.reason is not None:
            raise HTTPException(_STATUS_OF[reply.reason], reply.detail)
        return describe(reply.status)

    @routes.get("/status")
    async def status() -> Status:
        """Return the state of the service and of its newest collection."""
        return describe(shared_state.status())

    @routes.post("/start", status_code=202, responses=_errors(409, 422, 503, 507))
    async def start(request: StartRequest, client: Request) -> Status:
        """Start a collection; only one runs at a time."""
        try:
            output = await asyncio.to_thread(catalog.locate, request.output_dir)
        except OutsideRootError as error:
            raise HTTPException(422, str(error)) from None
        request = request.model_copy(update={"output_dir": output.name})
        return await carry_out(client, BridgeCommand("start", request))

    @routes.post("/stop", responses=_errors(409, 503))
    async def stop(client: Request) -> Status:
        """Stop the collection; it drops the current episode and keeps all finished ones."""
        return await carry_out(client, BridgeCommand("stop"))

    return routes


def _dataset_routes(catalog: DatasetCatalog, reports: Reports) -> APIRouter:
    routes = APIRouter(prefix="/datasets", tags=["datasets"])
    readers = ThreadPoolExecutor(_READERS, "reader")

    async def read(client: Request, function: Callable[..., T], *args: Any) -> T:
        with _not_found():
            work = asyncio.get_running_loop().run_in_executor(readers, partial(function, *args))
            return await _while_connected(client, work)

    @routes.get("", responses=_errors(507), response_model_exclude_none=True)
    def datasets() -> list[DatasetSummary]:
        """List all datasets in the root folder, also those that can't be read."""
        try:
            return [DatasetSummary(**summary) for summary in catalog.summaries()]
        except OSError as error:
            raise HTTPException(507, f"the root can't be read: {error}") from None

    @routes.get("/{name}/episodes", responses=_errors(404))
    async def episodes(
        client: Request, name: str, last: Annotated[_Integer, Query(ge=1, le=100)] = 6
    ) -> list[EpisodeSummary]:
        """List the newest episodes of a dataset, the newest first."""
        found = await read(client, catalog.episodes, name, last)
        return [EpisodeSummary(**summary) for summary in found]

    @routes.get("/{name}/report", responses=_errors(404), response_model=dict[str, Any])
    async def report(client: Request, name: str) -> Response:
        """Return the report of pp-inspect; slow, because it decodes every image."""
        root, version = await read(client, catalog.version, name)
        with _not_found():
            found = await _while_connected(client, reports.get(root, version))
        return Response(found, media_type="application/json")

    @routes.get(
        "/{name}/episodes/{episode}/{camera}.mp4",
        response_class=FileResponse,
        responses={200: {"content": {"video/mp4": {}}}, **_errors(404)},
    )
    async def video(client: Request, name: str, episode: _Integer, camera: str) -> FileResponse:
        """Return the video of an episode."""
        path = await read(client, catalog.video, name, episode, camera)
        return FileResponse(path, media_type="video/mp4")

    @routes.get(
        "/{name}/episodes/{episode}/{camera}.jpg",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **_errors(404)},
    )
    async def thumbnail(client: Request, name: str, episode: _Integer, camera: str) -> Response:
        """Return an image from the middle of an episode as a JPEG."""
        jpeg = await read(client, catalog.thumbnail, name, episode, camera)
        return Response(jpeg, media_type="image/jpeg")

    return routes


def _metrics_routes(shared_state: SharedState) -> APIRouter:
    routes = APIRouter()
    registry = CollectorRegistry()
    registry.register(StatusCollector(shared_state))

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        """Return the metrics for Prometheus."""
        return generate_latest(registry).decode()

    return routes


def _include_routes(app: FastAPI, routes: APIRouter, dependencies: Sequence[Any] = ()) -> None:
    """Add routes with and without the prefix `ALIAS`, which the documentation leaves out."""
    refusals = _errors(*([401] if dependencies else []), 403, 413, 422)
    app.include_router(routes, dependencies=dependencies, responses=refusals)
    app.include_router(routes, prefix=ALIAS, dependencies=dependencies, include_in_schema=False)


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Document the error statuses of a route."""
    return {code: {"model": ErrorDetail} for code in codes}


async def _while_connected(client: Request, work: Awaitable[T]) -> T:
    """Return the result of work that ends with the connection, unless it has begun in a thread."""
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_has_left(client))
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(503, "the client has left")  # it goes nowhere
        return task.result()
    finally:
        left.cancel()
        task.cancel()


async def _has_left(client: Request) -> None:
    """Wait for a client to disconnect."""
    while (await client.receive())["type"] != "http.disconnect":
        pass


def _explain_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """Answer a request of the wrong form with a sentence, instead of FastAPI's nested lists."""
    if hint := _wrong_content_type(request):
        return JSONResponse({"detail": hint}, 422)
    reasons = []
    for reason in error.errors():
        if reason["type"] == "missing" and reason["loc"] == ("body",):
            reasons.append("the body is missing; it must be JSON, see /openapi.json")
            continue
        if reason["type"] == "json_invalid":
            error_in_words, place = reason["ctx"]["error"], reason["loc"][-1]
            reasons.append(f"the body must be JSON: {error_in_words} at character {place}")
            continue
        where = ".".join(str(part) for part in reason["loc"] if part != "body")
        got = "" if reason["type"] == "missing" else f", got {_repr.repr(reason['input'])[:100]}"
        if reason["type"] == "extra_forbidden" and request.url.path.endswith("/collect/start"):
            got += f"; {suggest(str(reason['loc'][-1]), list(StartRequest.model_fields))}"
        reasons.append(f"{where}: {reason['msg']}{got}".removeprefix(": "))
    # A field's name comes from the client and may hold lone surrogates, which UTF-8 can't encode.
    detail = "; ".join(reasons).encode(errors="backslashreplace").decode()
    return JSONResponse({"detail": detail}, 422)


def _wrong_content_type(request: Request) -> str | None:
    """Return what to do about a body that is not declared as JSON, as by `curl -d`, or None."""
    found = request.headers.get("content-type", "")
    kind = found.partition(";")[0].strip().lower()
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in (
        request.headers
    )
    if not has_body or kind == "application/json" or kind.endswith("+json"):
        return None
    declared = f"says {found[:100]!r}" if found else "is missing"
    return (
        f"the body must be JSON and declared so, but the header Content-Type {declared}; "
        "with curl: -H 'Content-Type: application/json' -d '{...}'"
    )


def _explain_unreadable_body(_: Request, __: Exception) -> JSONResponse:
    """Answer a body on which FastAPI's JSON parser fails other than by a syntax error."""
    return JSONResponse({"detail": "the body must be JSON in UTF-8, and not nested as deeply"}, 422)


@contextmanager
def _not_found() -> Iterator[None]:
    """Answer 404 where a dataset, or a part of it, is missing."""
    try:
        yield
    except (OutsideRootError, DatasetError) as error:
        raise HTTPException(404, str(error)) from None


async def _multipart(jpegs: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield JPEGs as the parts of a multipart body."""
    async for jpeg in jpegs:
        head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        yield head.encode() + jpeg + b"\r\n"
