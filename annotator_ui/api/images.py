"""The pixels of an image, for those who may see it."""

from apiflask import APIBlueprint
from flask import Response, request

from annotator_ui.app import workspace
from annotator_ui.auth import EVERYBODY, person, policy
from engine.pipeline import access

blueprint = APIBlueprint("images", __name__, url_prefix="/api/v1")


@blueprint.get("/images/<row:image_id>/pixels")
@policy(*EVERYBODY)
@blueprint.doc(responses={200: "The stored picture"})
def pixels(image_id: int) -> Response:
    """The stored picture. The browser may keep it, but asks each time whether the person may still see it."""
    with workspace().read() as session:
        picture = access.picture_of(session, image_id, person().id, person().role)
    if picture.pixels_sha256 in request.if_none_match:
        response = Response(status=304)
    else:
        response = Response(workspace().blobs.read(picture.pixels_sha256), mimetype=picture.media_type)
    response.set_etag(picture.pixels_sha256)
    response.headers["Cache-Control"] = "private, no-cache"
    return response
