"""The application behind `python -m trainables.serve`: three files of a page, and a model that answers it.

It answers only requests for its own host, whatever a name elsewhere is made to point to, and none that a page
from elsewhere makes. The page may load nothing but its own files. One recording is answered at a time.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from trainables.predict import Failed, Predictor, why_text

PAGES = Path(__file__).with_name("pages")
SERVED = {
    "/": ("serve.html", "text/html"),
    "/serve.js": ("serve.js", "text/javascript"),
    "/listen.js": ("listen.js", "text/javascript"),
    "/serve.css": ("serve.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def application(predictor: Predictor, host: str, name: str, limit: int) -> FastAPI:
    """Answers with `predictor`, which the page calls `name`, whoever asks for `host` or localhost; `limit` is
    the largest recording in bytes."""
    app = FastAPI(title="scenetune", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost"])
    one_at_a_time = threading.Lock()

    @app.middleware("http")
    async def with_headers(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    def page(file: str, kind: str) -> Any:
        async def give() -> Response:
            return Response((PAGES / file).read_bytes(), media_type=kind)

        return give

    for path, (file, kind) in SERVED.items():
        app.get(path)(page(file, kind))

    @app.get("/model")
    async def model() -> dict[str, Any]:
        return {
            "name": name,
            "scenes": len(predictor.about["scenes"]),
            "events": len(predictor.about["events"]),
            "calibrated": predictor.calibration is not None,
            "always_unsure": predictor.calibration is not None and predictor.calibration.threshold is None,
            "limit_bytes": limit,
        }

    def answered(path: Path, shown: str) -> dict[str, Any]:
        with one_at_a_time:
            found = next(predictor.predict([path]))
        record = asdict(replace(found, file=shown))
        if not isinstance(found, Failed) and found.why is not None:
            record["why_text"] = why_text(found.why)
        return record

    @app.post("/predict")
    async def predict(request: Request, name: str = "recording") -> JSONResponse:
        if _from_elsewhere(request.headers.get("origin"), request.headers.get("host")):
            return JSONResponse({"file": name, "error": "asked by a page from elsewhere"}, 403)
        with tempfile.TemporaryDirectory() as folder:
            path, size = Path(folder) / "recording", 0
            with open(path, "wb") as file:
                async for piece in request.stream():
                    size += len(piece)
                    if size > limit:
                        why = f"larger than {limit / 2**20:g} MB"
                        return JSONResponse({"file": name, "error": why}, 413, {"Connection": "close"})
                    file.write(piece)
            found = await asyncio.to_thread(answered, path, name)
        return JSONResponse(found, 422 if "error" in found else 200)

    return app


def _from_elsewhere(origin: str | None, host: str | None) -> bool:
    """Whether a browser asks for a page that is not ours; other programs send no Origin."""
    return origin is not None and origin != f"http://{host}"
