"""Access checks: the token, the request's host and origin, and the size of its body."""

import hmac
from collections.abc import Collection
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Response
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pp_bridge.settings import is_loopback

MAX_BODY_BYTES = 128 * 1024

_TOO_LARGE = f"a request may have {MAX_BODY_BYTES} bytes"
_COOKIE = "bridge_token"
_OWN_SITES = ("same-origin", "none")  # none: typed, or a bookmark
_Bearer = Annotated[
    HTTPAuthorizationCredentials | None, Depends(HTTPBearer(scheme_name="token", auto_error=False))
]
_Cookie = Annotated[
    str | None, Depends(APIKeyCookie(name=_COOKIE, scheme_name="cookie", auto_error=False))
]


class TokenCheck:
    """A dependency that refuses requests without the token, in the header or in the cookie.

    Args:
        token: The token.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, bearer: _Bearer, cookie: _Cookie) -> None:
        """Check a request.

        Raises:
            HTTPException: 401, the token is missing or wrong.
        """
        if not self._matches(bearer.credentials if bearer else cookie or ""):
            raise HTTPException(
                401,
                "this needs the service's token, as 'Authorization: Bearer ...'",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def set_cookie(self, given: str, response: Response) -> None:
        """Put the token into a cookie that scripts and other sites can't use.

        Raises:
            HTTPException: 401, the given token is wrong.
        """
        if not self._matches(given):
            raise HTTPException(401, "this is not the service's token")
        response.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict")

    def _matches(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="replace"), self._token.encode())


class RequestFilter:
    """Middleware that refuses large bodies and requests from the pages of other sites.

    Of those it knows what browsers tell: `Sec-Fetch-Site`, on https and on this machine, and
    `Origin`, where a script asks or data are sent. Other programs send neither. Every answer tells
    browsers not to show it within another site, for those that send no `Sec-Fetch-Site`.

    It checks the `Host` header itself, because Starlette's TrustedHostMiddleware compares fixed
    names: it knows no network such as 127.0.0.0/8, older versions of it cut `[::1]:8080` at the
    first colon, and it answers in plain text where this interface promises JSON.

    Args:
        app: The application behind it.
        local_only: Whether to accept a loopback `Host` only. Otherwise the page of a foreign site
            whose name resolves to this machine (DNS rebinding) would pass as the service's own.
        static: Paths that other sites may link to.
    """

    def __init__(self, app: ASGIApp, local_only: bool, static: Collection[str]) -> None:
        self._app = app
        self._local_only = local_only
        self._static = static

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request; pass any other on to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif refusal := self._refusal(scope["path"], Headers(scope=scope)):
            status, detail = refusal
            await JSONResponse({"detail": detail}, status)(scope, receive, send)
        else:
            await self._app(scope, _limited(receive), _not_for_other_sites(send))

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self._local_only and not is_loopback(_hostname(host)):
            return 403, f"this service is for this machine alone, got a request for {host[:100]!r}"
        site = headers.get("sec-fetch-site", "none")
        origin = headers.get("origin", f"://{host}")
        is_own = site in _OWN_SITES and origin.partition("://")[2] == host
        if not is_own and path not in self._static:
            got = f"Origin {origin[:100]!r}" if site in _OWN_SITES else f"a {site[:20]} request"
            return 403, f"pages of other sites may not do this, got {got}"
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            return 413, _TOO_LARGE
        return None


def _hostname(host: str) -> str:
    """Return the name in a `Host` header without its port; empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _not_for_other_sites(send: Send) -> Send:
    """Return a `send` with which browsers do not show an answer within the page of another site."""

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Cross-Origin-Resource-Policy"] = "same-origin"
        await send(message)

    return marked


def _limited(receive: Receive) -> Receive:
    """Return a `receive` that limits a body without a declared length, too."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise HTTPException(413, _TOO_LARGE)
        return message

    return limited
