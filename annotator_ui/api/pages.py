"""The page itself: one document for every address a person types, and the hashed files it loads."""

from pathlib import Path

from apiflask import APIBlueprint
from flask import Response, abort, send_from_directory

from annotator_ui.auth import public

blueprint = APIBlueprint("pages", __name__, enable_openapi=False)

STATIC = Path(__file__).resolve().parents[1] / "static"
NOT_BUILT = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Maskloop</title>"
    "<h1>The page is not built</h1><p>Run <code>make install</code> in Maskloop's folder, then reload.</p>"
)


@blueprint.get("/")
@blueprint.get("/sign-in")
@public
def page() -> Response:
    """The page's document; it asks the API who is there."""
    if not (STATIC / "index.html").is_file():
        return Response(NOT_BUILT, 503, mimetype="text/html")
    response = send_from_directory(STATIC, "index.html", etag=True, conditional=True)
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.get("/label/<printable:name>")
@blueprint.get("/progress/<printable:name>")
@public
def page_of_dataset(name: str) -> Response:
    """The same document; the page reads the name from its address."""
    return page()


@blueprint.get("/static/<path:name>")
@public
def static(name: str) -> Response:
    """A file of the page. Names under assets/ carry a hash of the content, so they are kept for ever."""
    if name == "index.html" or name.startswith("."):
        abort(404)
    response = send_from_directory(STATIC, name, conditional=True)
    hashed = name.startswith("assets/")
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if hashed else "no-cache"
    return response
