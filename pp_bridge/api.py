"""The HTTP interface: what may be asked for, and what is answered."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict, Field

import pp_env
from pp_bridge.catalog import DatasetCatalog, OutsideRootError
from pp_bridge.messages import BridgeCommand, Reply, StartRequest
from pp_bridge.metrics import StatusCollector
from pp_bridge.security import RequestFilter, TokenCheck
from pp_bridge.shared_state import SharedState
from pp_bridge.webrtc import LiveStream, OfferError
from pp_recorder.dataset.reader import DatasetError

ALIAS = "/v1/sim/bridge"  # every path is there a second time

_PAGE = Path(__file__).with_name("page.html")
_HUNG_AFTER = 600.0  # s without a turn of the simulator's loop
_LARGEST_OFFER = 65_536  # characters

_BOUNDARY = "picture"
_MJPEG = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' data:; media-src 'self'; connect-src 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)

# Why the simulator's process may refuse, and the HTTP status for it.
_STATUS_OF = {"invalid": 422, "conflict": 409, "storage": 507, "unavailable": 503}

SendCommand = Callable[[BridgeCommand], Reply]


class ErrorDetail(BaseModel):
    """Why a request was refused."""

    detail: str


class Status(BaseModel):
    """How the service and its newest collection are doing."""

    model_config = ConfigDict(extra="ignore")

    state: Literal["starting", "idle", "collecting"]
    outcome: Literal["complete", "stopped", "failed", "interrupted"] | None = Field(
        None, description="How the newest collection ended; null while one runs"
    )
    last_error: str | None = None
    request: StartRequest | None = Field(None, description="The newest collection")
    episodes: int = Field(0, description="Finished, and safe on disk")
    frames: int = Field(0, description="Of the finished episodes")
    frame: int = Field(0, description="Of the episode in hand")
    frames_per_episode: int = 0
    attempts: int = 0
    successes: int = 0
    success_rate: float | None = None
    failures: dict[str, int] = Field({}, description="How often each reason ended an attempt")
    frames_per_second: float | None = None
    eta_seconds: float | None = None
    dropped: list[str] = Field([], description="What resuming has removed, in words")


class Health(BaseModel):
    """Whether the service works."""

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
    success: bool | None = Field(description="null in a dataset of somebody else's")
    task: str
    cameras: list[str]


class Description(BaseModel):
    """A WebRTC session description."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["offer", "answer"]
    sdp: str = Field(max_length=_LARGEST_OFFER)


class Session(BaseModel):
    """The token, to be kept in a cookie."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: str = Field(max_length=1000)


def make_app(shared_state: SharedState, token: str | None, local_only: bool) -> FastAPI:
    """What both services have in common: the page, the cameras, the token and the errors.

    Args:
        shared_state: Where pictures and status are.
        token: Who has it may do everything; None asks nobody.
        local_only: Whether other host names than this machine's own are refused.
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
    app.exception_handler(RequestValidationError)(_explain)
    app.exception_handler(400)(_explain_unreadable)
    app.add_middleware(RequestFilter, local_only=local_only)
    check = TokenCheck(token)
    _include(app, _open_routes(shared_state, check))
    _include(app, _live_routes(shared_state, live), [Depends(check)])
    return app


def add_collection(
    app: FastAPI,
    shared_state: SharedState,
    token: str | None,
    catalog: DatasetCatalog,
    send_command: SendCommand,
) -> None:
    """Adds what only the bridge has.

    Args:
        app: From `make_app`.
        shared_state: Where the status is.
        token: As in `make_app`.
        catalog: The datasets.
        send_command: Sends a command to the simulator's process and returns its reply.
    """
    check = [Depends(TokenCheck(token))]
    _include(app, _collect_routes(shared_state, catalog, send_command), check)
    _include(app, _dataset_routes(catalog), check)
    _include(app, _metrics_routes(shared_state), check)


def _open_routes(shared_state: SharedState, check: TokenCheck) -> APIRouter:
    routes = APIRouter()

    @routes.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})

    @routes.get("/healthz", responses={503: {"model": ErrorDetail}})
    def health() -> Health:
        """Whether the service works; needs no token."""
        if (
            shared_state.seconds_since_status() > _HUNG_AFTER
            and shared_state.status()["state"] != "starting"
        ):
            raise HTTPException(
                503, f"the simulator has not moved for {shared_state.seconds_since_status():.0f} s"
            )
        return Health(state=shared_state.status()["state"])

    @routes.post("/session", status_code=204, responses=_may(401))
    def begin_session(session: Session, response: Response) -> None:
        """Keeps the token in a cookie, for a browser's pictures and videos."""
        check.keep(session.token, response)

    return routes


def _live_routes(shared_state: SharedState, live: LiveStream) -> APIRouter:
    routes = APIRouter(prefix="/live", tags=["live view"])

    @routes.get("/cameras")
    def cameras() -> list[str]:
        """The names of the cameras, in the order of an offer's videos."""
        return list(shared_state.cameras)

    @routes.post("/offer", responses=_may(422))
    async def offer(description: Description) -> Description:
        """Answers a WebRTC offer that receives one video per camera."""
        try:
            return Description(type="answer", sdp=await live.answer(description.sdp))
        except OfferError as error:
            raise HTTPException(422, str(error)) from None

    @routes.get(
        "/{camera}.mjpeg",
        response_class=StreamingResponse,
        responses={200: {"content": {_MJPEG: {}}}, **_may(404)},
    )
    async def jpegs(camera: str) -> StreamingResponse:
        """A camera as an endless series of JPEGs, for networks that WebRTC can't pass."""
        if camera not in shared_state.cameras:
            raise HTTPException(
                404, f"the cameras are {list(shared_state.cameras)}, got {camera!r}"
            )
        return StreamingResponse(_parts(live.jpegs(camera)), media_type=_MJPEG)

    return routes


def _collect_routes(
    shared_state: SharedState, catalog: DatasetCatalog, send_command: SendCommand
) -> APIRouter:
    routes = APIRouter(prefix="/collect", tags=["collection"])

    @routes.get("/status")
    def status() -> Status:
        """How the service and its newest collection are doing."""
        return Status(**shared_state.status())

    @routes.post("/start", status_code=202, responses=_may(409, 422, 503, 507))
    def start(request: StartRequest) -> Status:
        """Starts a collection; only one runs at a time."""
        try:
            output = catalog.locate(request.output_dir)
        except OutsideRootError as error:
            raise HTTPException(422, str(error)) from None
        request = request.model_copy(update={"output_dir": output.name})
        return _settled(send_command(BridgeCommand("start", request)))

    @routes.post("/stop", responses=_may(409, 503))
    def stop() -> Status:
        """Stops the collection: the episode in hand is dropped, those before it are kept."""
        return _settled(send_command(BridgeCommand("stop")))

    return routes


def _dataset_routes(catalog: DatasetCatalog) -> APIRouter:
    routes = APIRouter(prefix="/datasets", tags=["datasets"])

    @routes.get("", responses=_may(507))
    def datasets() -> list[DatasetSummary]:
        """All datasets below the root."""
        try:
            return [DatasetSummary(**summary) for summary in catalog.summaries()]
        except OSError as error:
            raise HTTPException(507, f"the root can't be read: {error}") from None

    @routes.get("/{name}/episodes", responses=_may(404))
    def episodes(name: str, last: Annotated[int, Query(ge=1, le=100)] = 6) -> list[EpisodeSummary]:
        """The newest episodes, the newest first."""
        with _not_found():
            return [EpisodeSummary(**summary) for summary in catalog.episodes(name, last)]

    @routes.get("/{name}/report", responses=_may(404))
    def report(name: str) -> dict[str, Any]:
        """What pp-inspect says; it decodes every picture, so it takes its time."""
        with _not_found():
            return catalog.report(name)

    @routes.get(
        "/{name}/episodes/{episode}/{camera}.mp4",
        response_class=FileResponse,
        responses={200: {"content": {"video/mp4": {}}}, **_may(404)},
    )
    def video(name: str, episode: int, camera: str) -> FileResponse:
        """The pictures of an episode."""
        with _not_found():
            return FileResponse(catalog.video(name, episode, camera), media_type="video/mp4")

    @routes.get(
        "/{name}/episodes/{episode}/{camera}.jpg",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **_may(404)},
    )
    def thumbnail(name: str, episode: int, camera: str) -> Response:
        """A picture from the middle of an episode."""
        with _not_found():
            return Response(catalog.thumbnail(name, episode, camera), media_type="image/jpeg")

    return routes


def _metrics_routes(shared_state: SharedState) -> APIRouter:
    routes = APIRouter()
    registry = CollectorRegistry()
    registry.register(StatusCollector(shared_state))

    @routes.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> str:
        """The status for Prometheus."""
        return generate_latest(registry).decode()

    return routes


def _include(app: FastAPI, routes: APIRouter, dependencies: Sequence[Any] = ()) -> None:
    """Adds routes under both of their names; one is enough in the documentation."""
    refusals = _may(*([401] if dependencies else []), 403, 413, 422)
    app.include_router(routes, dependencies=dependencies, responses=refusals)
    app.include_router(routes, prefix=ALIAS, dependencies=dependencies, include_in_schema=False)


def _may(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": ErrorDetail} for code in codes}


def _settled(reply: Reply) -> Status:
    if reply.reason is not None:
        raise HTTPException(_STATUS_OF[reply.reason], reply.detail)
    return Status(**reply.status)


def _explain(_: Request, error: RequestValidationError) -> JSONResponse:
    """Every refusal has one sentence, not FastAPI's tree."""
    reasons = []
    for reason in error.errors():
        if reason["type"] == "json_invalid":
            error_in_words, place = reason["ctx"]["error"], reason["loc"][-1]
            reasons.append(f"the body must be JSON: {error_in_words} at character {place}")
            continue
        where = ".".join(str(part) for part in reason["loc"] if part != "body")
        got = "" if reason["type"] == "missing" else f", got {repr(reason['input'])[:100]}"
        reasons.append(f"{where}: {reason['msg']}{got}".removeprefix(": "))
    # A stranger's field name may hold what UTF-8 can't.
    detail = "; ".join(reasons).encode(errors="backslashreplace").decode()
    return JSONResponse({"detail": detail}, 422)


def _explain_unreadable(_: Request, __: Exception) -> JSONResponse:
    """FastAPI's answer to what makes its JSON parser fail otherwise."""
    return JSONResponse({"detail": "the body must be JSON in UTF-8, and not nested as deeply"}, 422)


@contextmanager
def _not_found() -> Iterator[None]:
    try:
        yield
    except (OutsideRootError, DatasetError) as error:
        raise HTTPException(404, str(error)) from None


async def _parts(jpegs: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for jpeg in jpegs:
        head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        yield head.encode() + jpeg + b"\r\n"
