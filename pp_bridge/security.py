"""Who may come in: tokens, other sites' pages, and bodies that are too large."""

import hmac
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pp_bridge.settings import is_loopback

MAX_BODY_BYTES = 128 * 1024  # bytes

_COOKIE = "bridge_token"
_SAFE = ("GET", "HEAD", "OPTIONS")
_Bearer = Annotated[
    HTTPAuthorizationCredentials | None, Depends(HTTPBearer(scheme_name="token", auto_error=False))
]


class TokenCheck:
    """A dependency that lets nobody pass without the token, in the header or in the cookie.

    Args:
        token: The token; None lets everybody pass.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: Request, bearer: _Bearer) -> None:
        """Checks a request."""
        if not self._matches(bearer.credentials if bearer else request.cookies.get(_COOKIE, "")):
            raise HTTPException(
                401,
                "this needs the service's token, as 'Authorization: Bearer ...'",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def keep(self, given: str, response: Response) -> None:
        """Puts the right token into a cookie that scripts and other sites can't use."""
        if not self._matches(given):
            raise HTTPException(401, "this is not the service's token")
        response.set_cookie(_COOKIE, self._token or "", httponly=True, samesite="strict")

    def _matches(self, given: str) -> bool:
        if self._token is None:
            return True
        return hmac.compare_digest(given.encode(errors="replace"), self._token.encode())


class RequestFilter:
    """Refuses bodies that are too large, and what pages of other sites make a browser send.

    Args:
        app: What is guarded.
        local_only: Whether requests must be meant for this very machine. Else a foreign host name
            that points here would make a foreign page count as ours.
    """

    def __init__(self, app: ASGIApp, local_only: bool) -> None:
        self._app = app
        self._local_only = local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif refusal := self._refusal(scope["method"], Headers(scope=scope)):
            status, detail = refusal
            await JSONResponse({"detail": detail}, status)(scope, receive, send)
        else:
            await self._app(scope, _limited(receive), send)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self._local_only and not is_loopback(_name_of(host)):
            return 403, f"this service is for this machine alone, got a request for {host[:100]!r}"
        origin = headers.get("origin")
        if method not in _SAFE and origin and origin.partition("://")[2] != host:
            return 403, f"pages of other sites may not do this, got {origin[:100]!r}"
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            return 413, _TOO_LARGE
        return None


_TOO_LARGE = f"a request may have {MAX_BODY_BYTES} bytes"


def _name_of(host: str) -> str:
    """A `Host` header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _limited(receive: Receive) -> Receive:
    """A body without a length counts as it comes."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise HTTPException(413, _TOO_LARGE)
        return message

    return limited
