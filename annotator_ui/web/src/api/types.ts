/** The JSON of /api/v1, as the page reads and writes it. Boxes are [x, y, w, h] in pixels. */

export interface Rle {
  size: [h: number, w: number];
  counts: string;
}

export interface PointPrompt {
  kind: "point";
  x: number;
  y: number;
  label: 0 | 1;
  at_ms?: number;
}

export interface BoxPrompt {
  kind: "box";
  x0: number;
  y0: number;
  x1: number;
  y1: number;
  at_ms?: number;
}

export type Prompt = PointPrompt | BoxPrompt;

/** A path in original pixels, x, y, x, y, ...; see core/strokes.ts for the pixels it covers. */
export interface BrushStroke {
  kind: "brush" | "erase";
  size: number;
  points: number[];
  at_ms?: number;
}

/** A closed path; label 1 adds what lies within, 0 takes it away. */
export interface LassoStroke {
  kind: "lasso";
  label: 0 | 1;
  points: number[];
  at_ms?: number;
}

/** Pixels filled or removed at once, as counts of the image's size. */
export interface PixelStroke {
  kind: "fill_holes" | "remove_specks";
  counts: string;
  at_ms?: number;
}

export type PathStroke = BrushStroke | LassoStroke;
export type Stroke = PathStroke | PixelStroke;

export interface User {
  id: number;
  name: string;
  role: "annotator" | "reviewer" | "researcher" | "admin";
}

export interface SignedIn {
  user: User;
  csrf_token: string;
  /** Where a one-time link leads, when the server knows. */
  dataset?: string | null;
}

export interface Dataset {
  id: number;
  name: string;
  open_stage: string | null;
  n_images: number;
  n_done: number;
  n_masks: number;
}

export interface Category {
  id: number;
  name: string;
  retired: boolean;
}

export interface ModelCard {
  id: number;
  name: string;
  weights_sha256: string;
}

export interface DatasetDetail extends Dataset {
  categories: Category[];
  guideline: string;
  model: ModelCard | null;
}

export interface Mask {
  id: number;
  segmentation: Rle;
  bbox: [number, number, number, number];
  area: number;
  stage: string | null;
  source: "model" | "human" | "imported";
  predicted_iou: number | null;
  stability_score: number | null;
  category_id: number | null;
  author: string | null;
  model_version: string | null;
  prompts: Prompt[];
  chosen: number[];
  strokes: Stroke[];
  created_at: string;
  second_opinion?: boolean;
  proposal_id?: number | null;
}

export interface ImageInfo {
  id: number;
  width: number;
  height: number;
  name: string;
  url: string;
}

/** "kept" once the image was submitted with it. */
export type ProposalState = "open" | "rejected" | "corrected" | "kept";

/** A mask the model drew beforehand; `prompts` and `chosen` give it again on the same weights. */
export interface Proposal {
  id: number;
  segmentation: Rle;
  bbox: [number, number, number, number];
  area: number;
  /** The detector's score of the box. */
  score: number | null;
  predicted_iou: number;
  stability_score: number;
  prompts: Prompt[];
  chosen: number[];
  state: ProposalState;
}

/** From which score on the detector prefills, and which share of those is expected to be wrong. */
export interface Prefill {
  threshold: number | null;
  detector_version: string;
  false_prefill_rate: number;
}

export interface Assignment {
  id: number;
  stage: string;
  state: string;
  lease_until: string;
  image: ImageInfo;
  model: ModelCard;
  embedding_ready: boolean;
  masks: Mask[];
  /** Drawn beforehand; empty but in stage 2. */
  proposals: Proposal[];
  prefill: Prefill | null;
  order: { position: number; total: number };
}

export interface NextAssignment {
  assignment: Assignment | null;
  reason: string | null;
  /** Null or absent when waiting will not help. */
  retry_after_s?: number | null;
}

export interface Candidate {
  segmentation: Rle;
  predicted_iou: number;
  stability_score: number;
  area: number;
  bbox: [number, number, number, number];
}

export interface Prediction {
  candidates: Candidate[];
  best: number;
  model_version_id: number;
  latency_ms: number;
}

export interface AcceptBody {
  client_id: string;
  prompts: Prompt[];
  chosen: number[];
  /** In their order, laid over what the prompts give. */
  strokes: Stroke[];
  segmentation: Rle;
  model_version_id: number;
  /** The model's own scores, of a mask that is just as the model drew it. */
  predicted_iou: number | null;
  stability_score: number | null;
  category_id: number | null;
  active_ms: number;
  n_undos: number;
  supersedes_id: number | null;
  /** The prefilled mask that this one corrects. */
  proposal_id?: number;
}

/** One request reviews up to 500 proposals. */
export interface ReviewBody {
  client_id: string;
  act: "reject" | "unreject";
  proposal_ids: number[];
}

export interface VersionRow {
  model_version: string;
  state: "active" | "candidate" | "refused" | "retired" | "warming";
  masks: number;
  images: number;
  active_seconds_per_mask: number | null;
  clicks_per_mask: number | null;
  miou_1_click: number | null;
  miou_3_clicks: number | null;
  noc_85: number | null;
  decided_reason: string | null;
}

/** The newest box detector, measured on held-out images; `reason` says why it prefills nothing. */
export interface DetectorRow {
  name: string;
  model_version: string;
  threshold: number | null;
  false_prefill_rate: number;
  average_recall: number | null;
  untrained_average_recall: number | null;
  random_average_recall: number | null;
  precision_at_threshold: number | null;
  recall_at_threshold: number | null;
  false_share: number | null;
  n_images: number | null;
  reason: string | null;
}

/** One stage's work; the shares are of the proposals whose image was submitted. */
export interface StageRow {
  stage: string;
  images: number;
  masks: number;
  masks_per_image: number | null;
  prefilled: number;
  share_kept: number | null;
  share_rejected: number | null;
  detector: DetectorRow | null;
}

/** When to retrain: nightly at "HH:MM" (UTC), every so many new masks, or whichever of both comes first. */
export interface NewSchedule {
  nightly_at: string | null;
  every_new_masks: number | null;
}

export interface ScheduleRun {
  due: string;
  due_at: string;
  state: "waiting" | "started" | "skipped";
  reason: string | null;
  started_at: string | null;
  round: number | null;
  round_state: "running" | "failed" | "promoted" | "refused" | "unchanged" | null;
  failed_job: { id: number; kind: string; reason: string | null } | null;
}

export interface Schedule extends NewSchedule {
  id: number;
  created_at: string;
  next_due_at: string | null;
  masks_to_go: number | null;
  /** The newest first. */
  runs: ScheduleRun[];
}

export interface FailedJob {
  id: number;
  kind: string;
  reason: string | null;
  at: string | null;
}

export interface Progress {
  dataset: string;
  stage: string | null;
  images: { total: number; done: number; skipped: number; open: number };
  masks: number;
  masks_per_image: number | null;
  active_seconds_per_mask: number | null;
  clicks_per_mask: number | null;
  by_model_version: VersionRow[];
  by_stage: StageRow[];
  jobs: { queued: number; running: number; failed: number };
  failed_jobs: FailedJob[];
  held_out_masks: number;
  held_out_needed: number;
  note: string | null;
}
