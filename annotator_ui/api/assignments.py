"""Annotating one image under a lease: prompts in, masks out, and how the image ends."""

from dataclasses import asdict
from typing import Any

from apiflask import APIBlueprint

from annotator_ui import wire
from annotator_ui.app import workspace
from annotator_ui.auth import ANNOTATING, person, policy
from engine.pipeline import access, annotate, assign, predict, report, review

blueprint = APIBlueprint("assignments", __name__, url_prefix="/api/v1")


@blueprint.post("/datasets/<printable:name>/assignments")
@blueprint.input(wire.Nothing)
@blueprint.output(wire.NextAssignment)
@policy(*ANNOTATING)
def next_assignment(name: str, json_data: wire.Nothing) -> dict[str, Any]:
    """The person's open assignment, else the next image under a lease, else why there is none."""
    settings = workspace().settings
    with workspace().write() as session:
        dataset = access.dataset(session, name)
        found = assign.next_assignment(session, settings, dataset.id, person().id)
        if isinstance(found, assign.Waiting):
            return {"assignment": None} | asdict(found)
        return {"assignment": report.assignment_view(session, found)}


@blueprint.get("/assignments/<row:assignment_id>")
@blueprint.output(wire.Assignment)
@policy(*ANNOTATING)
def show(assignment_id: int) -> dict[str, Any]:
    """The person's assignment with its masks, in whatever state it is."""
    with workspace().read() as session:
        found = assign.owned_assignment(session, assignment_id, person().id)
        return report.assignment_view(session, found)


@blueprint.post("/assignments/<row:assignment_id>/renew")
@blueprint.input(wire.Nothing)
@blueprint.output(wire.Lease)
@policy(*ANNOTATING)
def renew(assignment_id: int, json_data: wire.Nothing) -> dict[str, Any]:
    """Moves the lease forward."""
    with workspace().write() as session:
        found = assign.renew(session, workspace().settings, assignment_id, person().id)
        return {"lease_until": found.lease_until}


@blueprint.post("/assignments/<row:assignment_id>/predictions")
@blueprint.input(wire.Predict)
@blueprint.output(wire.Prediction)
@policy(*ANNOTATING)
def predict_masks(assignment_id: int, json_data: wire.Predict) -> dict[str, Any]:
    """The masks that the assignment's model offers for these prompts; nothing is stored."""
    prompts = _prompts(json_data.prompts)
    return asdict(predict.predict(workspace(), assignment_id, person().id, prompts, json_data.chosen))


@blueprint.post("/assignments/<row:assignment_id>/masks")
@blueprint.input(wire.Accept)
@blueprint.output(wire.Mask, status_code=201)
@policy(*ANNOTATING)
def accept(assignment_id: int, json_data: wire.Accept) -> tuple[dict[str, Any], int]:
    """Keeps a mask; the same client_id and body again give the first one with 200."""
    fields = json_data.model_dump() | {
        "client_id": str(json_data.client_id),
        "prompts": _prompts(json_data.prompts),
        "strokes": [stroke.model_dump(exclude_none=True) for stroke in json_data.strokes],
    }
    act = annotate.Accept(assignment_id=assignment_id, **fields)
    with workspace().write() as session:
        mask, is_new = annotate.accept(session, workspace().settings, person().id, act)
        return report.mask_view(session, mask), 201 if is_new else 200


@blueprint.post("/assignments/<row:assignment_id>/reviews")
@blueprint.input(wire.ReviewProposals)
@blueprint.output(wire.Reviewed, status_code=201)
@policy(*ANNOTATING)
def review_proposals(assignment_id: int, json_data: wire.ReviewProposals) -> dict[str, Any]:
    """Refuses proposals, or takes that back; the same client_id and body again change nothing."""
    verb = review.reject if json_data.act == "reject" else review.unreject
    target = (assignment_id, str(json_data.client_id), json_data.proposal_ids)
    with workspace().write() as session:
        return {"proposals": verb(session, workspace().settings, person().id, *target)}


@blueprint.post("/assignments/<row:assignment_id>/deletions")
@blueprint.input(wire.TargetMask)
@blueprint.output(wire.Deleted, status_code=201)
@policy(*ANNOTATING)
def delete(assignment_id: int, json_data: wire.TargetMask) -> dict[str, Any]:
    """Ends a mask of this image; its row stays."""
    target = (assignment_id, str(json_data.client_id), json_data.mask_id)
    with workspace().write() as session:
        return {"mask_id": annotate.delete(session, workspace().settings, person().id, *target)}


@blueprint.post("/assignments/<row:assignment_id>/restorations")
@blueprint.input(wire.TargetMask)
@blueprint.output(wire.Mask, status_code=201)
@policy(*ANNOTATING)
def restore(assignment_id: int, json_data: wire.TargetMask) -> tuple[dict[str, Any], int]:
    """Brings a deleted mask back as a new row."""
    target = (assignment_id, str(json_data.client_id), json_data.mask_id)
    with workspace().write() as session:
        mask, is_new = annotate.restore(session, workspace().settings, person().id, *target)
        return report.mask_view(session, mask), 201 if is_new else 200


@blueprint.post("/assignments/<row:assignment_id>/submission")
@blueprint.input(wire.Nothing)
@blueprint.output(wire.State)
@policy(*ANNOTATING)
def submit(assignment_id: int, json_data: wire.Nothing) -> dict[str, Any]:
    """The image is done; proposals that were let stand become masks in the same transaction."""
    with workspace().write() as session:
        review.keep_rest(session, workspace().settings, person().id, assignment_id)
        return {"state": assign.submit(session, workspace().settings, assignment_id, person().id).state}


@blueprint.post("/assignments/<row:assignment_id>/skip")
@blueprint.input(wire.Skip)
@blueprint.output(wire.State)
@policy(*ANNOTATING)
def skip(assignment_id: int, json_data: wire.Skip) -> dict[str, Any]:
    """The image is set aside, with a reason."""
    settings, reason = workspace().settings, json_data.reason
    with workspace().write() as session:
        return {"state": assign.skip(session, settings, assignment_id, person().id, reason).state}


@blueprint.post("/assignments/<row:assignment_id>/release")
@blueprint.input(wire.Nothing)
@blueprint.output(wire.State)
@policy(*ANNOTATING)
def release(assignment_id: int, json_data: wire.Nothing) -> dict[str, Any]:
    """The image is given back undone."""
    with workspace().write() as session:
        return {"state": assign.release(session, workspace().settings, assignment_id, person().id).state}


def _prompts(prompts: list[wire.Point | wire.Box]) -> list[dict[str, Any]]:
    """As the engine keeps them: a time that was not given is no key."""
    return [prompt.model_dump(exclude_none=True) for prompt in prompts]
