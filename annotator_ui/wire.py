"""What travels between page and server, as pydantic models: requests are strict, answers name every field."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# A mask of 200,000 runs is shorter; engine.geometry.rle looks inside.
MAX_COUNTS = 1_500_000
# Above every setting of limits.max_prompts, which the engine enforces with its own sentence.
MAX_PROMPTS = 1000
# Above the bounds of engine.geometry.strokes, which has its own sentences.
MAX_STROKES = 5000
MAX_STROKE_NUMBERS = 200_000


def _plain(text: str) -> str:
    """No control characters and nothing that UTF-8 cannot carry: databases refuse both."""
    if any(ord(letter) < 32 or 0xD800 <= ord(letter) <= 0xDFFF for letter in text):
        raise ValueError("has characters that cannot be stored: leave out control characters")
    return text


RowId = Annotated[int, Field(ge=1, le=2**63 - 1, strict=True)]
Plain = Annotated[str, AfterValidator(_plain)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Pixels = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Choice = Annotated[int, Field(ge=0, le=15, strict=True)]


class Request(BaseModel):
    """A body from the page; a key it does not name is refused."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """A body to the page."""


class SignIn(Request):
    name: Annotated[Plain, Field(min_length=1, max_length=64)]
    password: Annotated[Plain, Field(min_length=1, max_length=1024)]


class SignInLink(Request):
    token: Annotated[Plain, Field(min_length=1, max_length=200)]


class NewPassword(Request):
    old: Annotated[Plain, Field(min_length=1, max_length=1024)]
    new: Annotated[Plain, Field(min_length=1, max_length=1024)]


class Nothing(Request):
    """An empty object."""


class Point(Request):
    """A click in original pixels, x right and y down; label 1 foreground, 0 background."""

    kind: Literal["point"]
    x: Pixels
    y: Pixels
    label: Literal[0, 1]
    at_ms: Annotated[int, Field(ge=0, le=2**53)] | None = None


class Box(Request):
    """A box by two corners in original pixels."""

    kind: Literal["box"]
    x0: Pixels
    y0: Pixels
    x1: Pixels
    y1: Pixels
    at_ms: Annotated[int, Field(ge=0, le=2**53)] | None = None


Prompt = Annotated[Point | Box, Field(discriminator="kind")]
Prompts = Annotated[list[Prompt], Field(min_length=1, max_length=MAX_PROMPTS)]
Chosen = Annotated[list[Choice], Field(max_length=MAX_PROMPTS)]


class Segmentation(Request):
    """Compressed COCO RLE; `size` is [height, width]."""

    size: Annotated[list[Annotated[int, Field(ge=1, le=2**31 - 1)]], Field(min_length=2, max_length=2)]
    counts: Annotated[str, Field(max_length=MAX_COUNTS, pattern=r"^[0-o]*$")]


class Predict(Request):
    """`chosen[i]` is the candidate in force before prompt i+1, so it is one shorter than `prompts`."""

    prompts: Prompts
    chosen: Chosen


class PathStroke(Request):
    """A brush or eraser of `size` px, or a lasso that adds (label 1) or takes away; points are x, y, x, y."""

    kind: Literal["brush", "erase", "lasso"]
    points: Annotated[list[Pixels], Field(max_length=MAX_STROKE_NUMBERS)]
    size: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] | None = None
    label: Literal[0, 1] | None = None
    at_ms: Annotated[int, Field(ge=0, le=2**53)] | None = None


class PixelStroke(Request):
    """Pixels filled or removed at once, as compressed COCO counts of the image's size."""

    kind: Literal["fill_holes", "remove_specks"]
    counts: Annotated[str, Field(max_length=MAX_COUNTS, pattern=r"^[0-o]*$")]
    at_ms: Annotated[int, Field(ge=0, le=2**53)] | None = None


Stroke = Annotated[PathStroke | PixelStroke, Field(discriminator="kind")]


class Accept(Request):
    """A mask as the person accepted it; `client_id` makes a repeated request recognisable.

    `strokes` lie over what the prompts give, in their order; a mask may be made of strokes alone.
    """

    client_id: UUID
    prompts: Annotated[list[Prompt], Field(max_length=MAX_PROMPTS)]
    chosen: Chosen
    strokes: Annotated[list[Stroke], Field(max_length=MAX_STROKES)] = []
    segmentation: Segmentation
    model_version_id: RowId
    predicted_iou: Finite | None = None
    stability_score: Finite | None = None
    category_id: RowId | None = None
    active_ms: Annotated[int, Field(ge=0, le=86_400_000)] = 0
    n_undos: Annotated[int, Field(ge=0, le=100_000)] = 0
    supersedes_id: RowId | None = None
    proposal_id: RowId | None = None


class ReviewProposals(Request):
    """A word on proposals of the image: at once, as "reject all below" says it."""

    client_id: UUID
    act: Literal["reject", "unreject"]
    proposal_ids: Annotated[list[RowId], Field(min_length=1, max_length=500)]


class TargetMask(Request):
    """Which mask a deletion or restoration is about."""

    client_id: UUID
    mask_id: RowId


class Skip(Request):
    reason: Annotated[Plain, Field(min_length=1, max_length=500)]


class User(Answer):
    id: int
    name: str
    role: str


class SignedIn(Answer):
    user: User
    csrf_token: str


class DatasetLine(Answer):
    id: int
    name: str
    open_stage: str | None
    n_images: int
    n_done: int
    n_masks: int


class DatasetList(Answer):
    datasets: list[DatasetLine]


class Category(Answer):
    id: int
    name: str
    retired: bool


class Model(Answer):
    id: int
    name: str
    weights_sha256: str
    architecture: str | None = None


class DatasetPage(DatasetLine):
    categories: list[Category]
    guideline: str
    model: Model | None


class Mask(Answer):
    """An accepted region; `bbox` is XYWH in pixels."""

    id: int
    segmentation: Segmentation
    bbox: list[float]
    area: int
    stage: str | None
    source: str
    predicted_iou: float | None
    stability_score: float | None
    category_id: int | None
    author: str | None
    model_version: str | None
    prompts: list[dict[str, Any]]
    chosen: list[int]
    strokes: list[dict[str, Any]] = []
    created_at: datetime
    second_opinion: bool = False
    # The prefilled mask it was made from.
    proposal_id: int | None = None


class Proposal(Answer):
    """A prefilled mask; `state` is open, rejected, corrected, or, once the image was submitted, kept."""

    id: int
    segmentation: Segmentation
    bbox: list[float]
    area: int
    score: float | None
    predicted_iou: float
    stability_score: float
    prompts: list[dict[str, Any]]
    chosen: list[int]
    state: Literal["open", "rejected", "corrected", "kept"]


class ProposalState(Answer):
    id: int
    state: Literal["open", "rejected", "corrected", "kept"]


class Reviewed(Answer):
    proposals: list[ProposalState]


class Prefill(Answer):
    """From which score on masks are prefilled, none if null, and the share of false ones that is allowed."""

    threshold: float | None
    detector_version: str
    false_prefill_rate: float


class ImageOfAssignment(Answer):
    id: int
    width: int
    height: int
    name: str
    url: str


class Order(Answer):
    position: int
    total: int


class Assignment(Answer):
    id: int
    stage: str
    state: str
    lease_until: datetime
    image: ImageOfAssignment
    model: Model
    embedding_ready: bool
    masks: list[Mask]
    order: Order
    proposals: list[Proposal]
    prefill: Prefill | None


class NextAssignment(Answer):
    """The assignment, or the sentence that says why there is none now."""

    assignment: Assignment | None
    reason: str | None = None
    retry_after_s: float | None = None


class Lease(Answer):
    lease_until: datetime


class Candidate(Answer):
    segmentation: Segmentation
    predicted_iou: float
    stability_score: float
    area: int
    bbox: list[float]


class Prediction(Answer):
    candidates: list[Candidate]
    best: int
    model_version_id: int
    latency_ms: float


class Deleted(Answer):
    mask_id: int


class State(Answer):
    state: str


class Health(Answer):
    status: str
    version: str


class Ready(Answer):
    """Each "ok", or a sentence that says what is wrong; `jobs` is not asked while the database is away."""

    database: str
    files: str
    disk: str
    tick: str
    jobs: str | None = None


class Images(Answer):
    total: int
    done: int
    skipped: int
    open: int


class VersionLine(Answer):
    """One model version's work: what people needed with it, and what it reached on held-out masks."""

    model_version: str
    state: str
    masks: int
    images: int
    active_seconds_per_mask: float | None
    clicks_per_mask: float | None
    miou_1_click: float | None
    miou_3_clicks: float | None
    noc_85: float | None
    decided_reason: str | None


class DetectorLine(Answer):
    """The newest box detector, measured on held-out images; `reason` says why it prefills nothing."""

    name: str
    model_version: str
    threshold: float | None
    false_prefill_rate: float
    average_recall: float | None
    untrained_average_recall: float | None
    random_average_recall: float | None
    precision_at_threshold: float | None
    recall_at_threshold: float | None
    false_share: float | None
    n_images: int | None
    reason: str | None


class StageLine(Answer):
    """One stage's work; the shares are of the proposals whose image was submitted."""

    stage: str
    images: int
    masks: int
    masks_per_image: float | None
    prefilled: int
    share_kept: float | None
    share_rejected: float | None
    detector: DetectorLine | None


class JobCounts(Answer):
    queued: int
    running: int
    failed: int


class FailedJob(Answer):
    id: int
    kind: str
    reason: str | None
    at: datetime | None


class Progress(Answer):
    """Everything the progress page shows."""

    dataset: str
    stage: str | None
    images: Images
    masks: int
    masks_per_image: float | None
    active_seconds_per_mask: float | None
    clicks_per_mask: float | None
    by_model_version: list[VersionLine]
    by_stage: list[StageLine]
    jobs: JobCounts
    failed_jobs: list[FailedJob]
    held_out_masks: int
    held_out_needed: int
    note: str | None


class Problem(Answer):
    """RFC 9457; `detail` is a sentence for people, `errors` names the fields that are wrong."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: dict[str, list[str]] | None = None
