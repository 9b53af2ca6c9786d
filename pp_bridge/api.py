"""The HTTP interface: its requests, its answers and the page."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask

import pp_env
from pp_bridge.catalog import DatasetCatalog, OutsideRootError
from pp_bridge.messages import BridgeCommand, Reply, StartRequest
from pp_bridge.metrics import StatusCollector
from pp_bridge.security import RequestFilter, TokenCheck
from pp_bridge.shared_state import SharedState
from pp_bridge.webrtc import LiveStream, OfferError
from pp_recorder.command_line import suggest
from pp_recorder.dataset.reader import DatasetError

ALIAS = "/v1/sim/bridge"  # a second prefix of every path

_PAGE = Path(__file__).with_name("page.html")
_HUNG_AFTER = 600.0  # s without a tick of the simulator's loop
_MAX_OFFER_LENGTH = 65_536  # characters

_BOUNDARY = "picture"
_MJPEG = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' data:; media-src 'self'; connect-src 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)

# HTTP status of each reason for which the simulator's process refuses a command.
_STATUS_OF = {"invalid": 422, "conflict": 409, "storage": 507, "unavailable": 503}

SendCommand = Callable[[BridgeCommand], Reply]


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
    episodes: int
    frames: int


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

    app = FastAPI(
        title="FrankaPickPlace bridge",
        version=pp_env.__version__,
        description=f"Start, watch and stop a collection. Every path is also below `{ALIAS}`.",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.exception_handler(RequestValidationError)(_explain_invalid)
    app.exception_handler(400)(_explain_unreadable_body)
    app.add_middleware(RequestFilter, local_only=local_only)
    check = TokenCheck(token)
    _include_routes(app, _open_routes(shared_state, check))
    _include_routes(app, _live_routes(shared_state, live), [Depends(check)])
    return app


def add_collection(
    app: FastAPI,
    shared_state: SharedState,
    token: str | None,
    catalog: DatasetCatalog,
    send_command: SendCommand,
) -> None:
    """Add the routes of collections, datasets and metrics.

    Args:
        app: From `make_app`.
        shared_state: Source of the status.
        token: As in `make_app`.
        catalog: The datasets.
        send_command: Sends a command to the simulator's process and returns its reply.
    """
    check = [Depends(TokenCheck(token))]
    _include_routes(app, _collect_routes(shared_state, catalog, send_command), check)
    _include_routes(app, _dataset_routes(catalog), check)
    _include_routes(app, _metrics_routes(shared_state), check)


def _open_routes(shared_state: SharedState, check: TokenCheck) -> APIRouter:
    routes = APIRouter()

    @routes.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(_PAGE, headers={"Content-Security-Policy": _CONTENT_SECURITY_POLICY})

    @routes.get("/healthz", responses={503: {"model": ErrorDetail}})
    def health() -> Health:
        """Return 200 if the service works; needs no token."""
        silence, state = shared_state.seconds_since_status(), shared_state.status()["state"]
        if silence > _HUNG_AFTER and state != "starting":
            raise HTTPException(503, f"the simulator has not moved for {silence:.0f} s")
        return Health(state=state)

    @routes.post("/session", status_code=204, responses=_errors(401))
    def begin_session(session: SessionRequest, response: Response) -> None:
        """Store the token in a cookie, with which a browser can load images and videos."""
        check.set_cookie(session.token, response)

    return routes


def _live_routes(shared_state: SharedState, live: LiveStream) -> APIRouter:
    routes = APIRouter(prefix="/live", tags=["live view"])

    @routes.get("/cameras")
    def cameras() -> list[str]:
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

    @routes.get("/status")
    def status() -> Status:
        """Return the state of the service and of its newest collection."""
        return Status(**shared_state.status())

    @routes.post("/start", status_code=202, responses=_errors(409, 422, 503, 507))
    def start(request: StartRequest) -> Status:
        """Start a collection; only one runs at a time."""
        try:
            output = catalog.locate(request.output_dir)
        except OutsideRootError as error:
            raise HTTPException(422, str(error)) from None
        request = request.model_copy(update={"output_dir": output.name})
        return _status_or_error(send_command(BridgeCommand("start", request)))

    @routes.post("/stop", responses=_errors(409, 503))
    def stop() -> Status:
        """Stop the collection; it drops the current episode and keeps all finished ones."""
        return _status_or_error(send_command(BridgeCommand("stop")))

    return routes


def _dataset_routes(catalog: DatasetCatalog) -> APIRouter:
    routes = APIRouter(prefix="/datasets", tags=["datasets"])

    @routes.get("", responses=_errors(507))
    def datasets() -> list[DatasetSummary]:
        """List all datasets in the root folder."""
        try:
            return [DatasetSummary(**summary) for summary in catalog.summaries()]
        except OSError as error:
            raise HTTPException(507, f"the root can't be read: {error}") from None

    @routes.get("/{name}/episodes", responses=_errors(404))
    def episodes(name: str, last: Annotated[int, Query(ge=1, le=100)] = 6) -> list[EpisodeSummary]:
        """List the newest episodes of a dataset, the newest first."""
        with _not_found():
            return [EpisodeSummary(**summary) for summary in catalog.episodes(name, last)]

    @routes.get("/{name}/report", responses=_errors(404))
    def report(name: str) -> dict[str, Any]:
        """Return the report of pp-inspect; slow, because it decodes every image."""
        with _not_found():
            return catalog.report(name)

    @routes.get(
        "/{name}/episodes/{episode}/{camera}.mp4",
        response_class=FileResponse,
        responses={200: {"content": {"video/mp4": {}}}, **_errors(404)},
    )
    def video(name: str, episode: int, camera: str) -> FileResponse:
        """Return the video of an episode."""
        with _not_found():
            path, is_ours = catalog.video(name, episode, camera)
        tidy_up = BackgroundTask(path.unlink) if is_ours else None
        return FileResponse(path, media_type="video/mp4", background=tidy_up)

    @routes.get(
        "/{name}/episodes/{episode}/{camera}.jpg",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **_errors(404)},
    )
    def thumbnail(name: str, episode: int, camera: str) -> Response:
        """Return an image from the middle of an episode as a JPEG."""
        with _not_found():
            return Response(catalog.thumbnail(name, episode, camera), media_type="image/jpeg")

    return routes


def _metrics_routes(shared_state: SharedState) -> APIRouter:
    routes = APIRouter()
    registry = CollectorRegistry()
    registry.register(StatusCollector(shared_state))

    @routes.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> str:
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


def _status_or_error(reply: Reply) -> Status:
    """Return a reply's status, or raise its refusal."""
    if reply.reason is not None:
        raise HTTPException(_STATUS_OF[reply.reason], reply.detail)
    return Status(**reply.status)


def _explain_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """Answer a request of the wrong form with a sentence, instead of FastAPI's nested lists."""
    reasons = []
    for reason in error.errors():
        if reason["type"] == "json_invalid":
            error_in_words, place = reason["ctx"]["error"], reason["loc"][-1]
            reasons.append(f"the body must be JSON: {error_in_words} at character {place}")
            continue
        where = ".".join(str(part) for part in reason["loc"] if part != "body")
        got = "" if reason["type"] == "missing" else f", got {repr(reason['input'])[:100]}"
        if reason["type"] == "extra_forbidden" and request.url.path.endswith("/collect/start"):
            got += f"; {suggest(str(reason['loc'][-1]), list(StartRequest.model_fields))}"
        reasons.append(f"{where}: {reason['msg']}{got}".removeprefix(": "))
    # A field's name comes from the client and may hold lone surrogates, which UTF-8 can't encode.
    detail = "; ".join(reasons).encode(errors="backslashreplace").decode()
    return JSONResponse({"detail": detail}, 422)


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
