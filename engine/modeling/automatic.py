"""Every mask of an image without a person: a grid of points, filters, no duplicates (paper, appendix B).

Read at three levels: `generate` goes over the crops, `_masks_of_embedding` over a crop's points, and
`_masks_of_points` from a few points to finished masks. The masks are the official code's; the work is less:
see `_prompts_at_a_time`, `_confident` and `RegionUpscaler.above`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import BadInput
from engine.geometry.crops import crop_boxes, layer_point_grids, touches_inner_crop_edge
from engine.geometry.quality import stability_score
from engine.geometry.regions import Region, region_runs
from engine.modeling.generation_records import (
    OUTPUT_MODES,
    GeneratedMask,
    clean_masks,
    drop_duplicates,
    prefer_small_crops,
    to_record,
)
from engine.modeling.predictor import Predictor
from engine.modeling.prompt_arrays import check_image
from engine.modeling.prompts import Floats, to_model_frame
from engine.modeling.sam import Sam, decode
from engine.modeling.upscale_region import RegionLogits, RegionUpscaler

# Four prompts' tokens and keys stay in a CPU's cache; 64 cost twice as much each.
_PROMPTS_ON_CPU = 4


class AutomaticMaskGenerator:
    """The official generator: same arguments, defaults, record keys, order of records."""

    def __init__(
        self,
        model: Sam,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[NDArray[np.floating[Any]]] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
        *,
        max_coverage: float | None = None,
        drop_specks: bool = False,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Raises BadInput for settings that cannot be meant.

        points_per_side points along each side, or `point_grids`: one (n, 2) array of x y in 0..1 for the
        image and one for each of the `crop_n_layers`. Masks need a predicted IoU above `pred_iou_thresh` and
        an IoU of their cuts at -offset and +offset of at least `stability_score_thresh`; 0 switches a filter
        off. `min_mask_region_area` px: smaller holes and islands go. output_mode: "binary_mask" (H, W) bool,
        "uncompressed_rle" or "coco_rle".

        Two rules of the paper that the official code lacks, off by default: `max_coverage` drops masks that
        cover this share of the image or more (0.95 there), `drop_specks` drops a mask whose largest part is
        under `min_mask_region_area` where the official code keeps that part. `between` is called every few
        points and may raise, so that a job can be cancelled.
        """
        if (points_per_side is None) == (point_grids is None):
            raise BadInput("give either points_per_side or point_grids, not both and not neither")
        self.model = model
        self.predictor = Predictor(model)
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = float(pred_iou_thresh)
        self.stability_score_thresh = float(stability_score_thresh)
        self.stability_score_offset = float(stability_score_offset)
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.max_coverage = max_coverage
        self.drop_specks = drop_specks
        self.between = between
        _refuse_first(self._complaints(crop_n_points_downscale_factor))
        self.point_grids = (
            layer_point_grids(points_per_side, crop_n_layers, crop_n_points_downscale_factor)
            if points_per_side is not None
            else _checked_grids(point_grids or [], crop_n_layers)
        )

    def generate(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """(H, W, 3) uint8 RGB -> one record per mask; raises BadInput for anything that is no such image.

        Keys: segmentation (in `output_mode`), area in px, bbox XYWH one pixel short, predicted_iou,
        point_coords [[x, y]], stability_score (0 for an empty mask), crop_box XYWH.
        """
        check_image(image)
        crops = crop_boxes(image.shape[:2], self.crop_n_layers, self.crop_overlap_ratio)
        masks = [mask for crop_box, layer in crops for mask in self._masks_of_crop(image, crop_box, layer)]
        if len(crops) > 1:
            masks = prefer_small_crops(masks, self.crop_nms_thresh)
        return self._finished(masks, image.shape[:2])

    def generate_from_embedding(
        self, image_embedding: NDArray[np.float32] | Tensor, original_hw: tuple[int, int]
    ) -> list[dict[str, Any]]:
        """As `generate`, for an embedding (C, g, g) of the whole image of (H, W) that is there already.

        Raises BadInput where crops are wanted: those have to be embedded one by one.
        """
        if self.crop_n_layers:
            raise BadInput("crops need the image's pixels: call generate, or set crop_n_layers to 0")
        self.predictor.set_embedding(torch.as_tensor(image_embedding)[None], original_hw)
        whole = [0, 0, original_hw[1], original_hw[0]]
        return self._finished(self._masks_of_embedding(whole, 0, original_hw), original_hw)

    def _masks_of_crop(
        self, image: NDArray[np.uint8], crop_box: list[int], layer: int
    ) -> list[GeneratedMask]:
        x0, y0, x1, y1 = crop_box
        self.predictor.set_image(image[y0:y1, x0:x1])
        return self._masks_of_embedding(crop_box, layer, image.shape[:2])

    def _masks_of_embedding(
        self, crop_box: list[int], layer: int, image_hw: tuple[int, ...]
    ) -> list[GeneratedMask]:
        """All masks of the crop that is set, without duplicates, the highest predicted IoU first."""
        crop_hw = self.predictor.original_size
        upscaler = RegionUpscaler(self.model.config, crop_hw)
        points = self.point_grids[layer] * np.array(crop_hw[::-1])
        masks: list[GeneratedMask] = []
        for start in range(0, len(points), self._prompts_at_a_time()):
            few = points[start : start + self._prompts_at_a_time()]
            self.between()
            masks += self._masks_of_points(few, upscaler, crop_box, (image_hw[0], image_hw[1]))
        # Every crop embeds anew; two embeddings need not be in memory at once.
        self.predictor.reset_image()
        return drop_duplicates(masks, [mask.predicted_iou for mask in masks], self.box_nms_thresh)

    def _masks_of_points(
        self, points: NDArray[np.float64], upscaler: RegionUpscaler, crop_box: list[int], hw: tuple[int, int]
    ) -> Iterator[GeneratedMask]:
        """Three candidates per point (n, 2) of the crop -> those that pass every filter."""
        cut = self.model.mask_threshold - self.stability_score_offset
        for n_point, predicted_iou, low_res in self._confident(points):
            logits = upscaler.above(low_res, cut)
            stability = self._stability(logits.columns)
            if self.stability_score_thresh > 0 and stability < self.stability_score_thresh:
                continue
            region = self._mask_in_image(logits, crop_box)
            box_xyxy = region.box_xyxy()
            if touches_inner_crop_edge(box_xyxy, crop_box, hw) or self._covers_too_much(region, hw):
                continue
            point = points[n_point] + crop_box[:2]
            yield GeneratedMask(region_runs(region, hw), box_xyxy, predicted_iou, stability, point, crop_box)

    def _confident(self, points: NDArray[np.float64]) -> Iterator[tuple[int, np.float32, Floats]]:
        """(index of the point, predicted IoU, logits (4g, 4g)) of the candidates above the threshold.

        Nine of ten fail here, so nothing is upscaled, nor leaves the device, before.
        """
        low_res_logits, iou_predictions = self._decode(points)
        predicted_ious = iou_predictions.float().cpu().numpy()
        floor = self.pred_iou_thresh if self.pred_iou_thresh > 0 else -np.inf
        passed = predicted_ious > floor
        n_point, n_candidate = np.nonzero(passed)
        chosen = low_res_logits[torch.from_numpy(passed).to(low_res_logits.device)].float().cpu().numpy()
        yield from zip(n_point.tolist(), predicted_ious[n_point, n_candidate], chosen, strict=True)

    @torch.inference_mode()
    def _decode(self, points: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Points (n, 2) of the crop -> logits (n, 3, 4g, 4g) and predicted IoU (n, 3)."""
        size, input_size = self.predictor.original_size, self.predictor.input_size
        coords = torch.as_tensor(to_model_frame(points, size, input_size), device=self.model.device)
        labels = torch.ones(len(points), 1, device=self.model.device)
        embedding = self.predictor.get_image_embedding()
        return decode(self.model, embedding, (coords[:, None], labels), None, None, multimask_output=True)

    def _prompts_at_a_time(self) -> int:
        """Prompts do not see each other, so any number at once gives the same masks."""
        on_cpu = self.model.device.type == "cpu"
        return min(self.points_per_batch, _PROMPTS_ON_CPU) if on_cpu else self.points_per_batch

    def _stability(self, logits: Floats) -> np.float32:
        """Counted on the region alone: outside of it no logit is above even the lower cut."""
        threshold, offset = self.model.mask_threshold, self.stability_score_offset
        return np.float32(stability_score(logits, mask_threshold=threshold, offset=offset))

    def _mask_in_image(self, logits: RegionLogits, crop_box: list[int]) -> Region:
        x0, y0 = crop_box[:2]
        mask = logits.columns > self.model.mask_threshold
        # The official box of an empty mask is the crop's corner; it decides whether the edge rule applies.
        return Region(mask, x0 + logits.x0, y0 + logits.y0) if mask.any() else Region(mask[:0], x0, y0)

    def _covers_too_much(self, region: Region, hw: tuple[int, int]) -> bool:
        return self.max_coverage is not None and region.area >= self.max_coverage * hw[0] * hw[1]

    def _finished(self, masks: list[GeneratedMask], image_hw: tuple[int, ...]) -> list[dict[str, Any]]:
        hw = (image_hw[0], image_hw[1])
        if self.min_mask_region_area > 0:
            threshold = max(self.box_nms_thresh, self.crop_nms_thresh)
            masks = clean_masks(masks, hw, self.min_mask_region_area, threshold, drop_specks=self.drop_specks)
        return [to_record(mask, hw, self.output_mode) for mask in masks]

    def _complaints(self, downscale: float) -> dict[str, bool]:
        """Sentences, each with whether it applies."""
        return {
            f"output_mode must be one of {', '.join(OUTPUT_MODES)}": self.output_mode not in OUTPUT_MODES,
            "points_per_batch must be at least 1": self.points_per_batch < 1,
            "crop_n_layers must be 0 or more": self.crop_n_layers < 0,
            "crop_n_points_downscale_factor must be at least 1": downscale < 1,
            "crop_overlap_ratio must lie between 0 and 1": not 0 <= self.crop_overlap_ratio < 1,
            "box_nms_thresh must lie between 0 and 1": not 0 <= self.box_nms_thresh <= 1,
            "crop_nms_thresh must lie between 0 and 1": not 0 <= self.crop_nms_thresh <= 1,
            "stability_score_offset must be 0 or more": not self.stability_score_offset >= 0,
            "min_mask_region_area must be 0 or more": self.min_mask_region_area < 0,
            "max_coverage is a share of the image, above 0 and at most 1": self.max_coverage is not None
            and not 0 < self.max_coverage <= 1,
            "drop_specks needs min_mask_region_area, the size below which a mask is a speck": self.drop_specks
            and self.min_mask_region_area < 1,
        }


SamAutomaticMaskGenerator = AutomaticMaskGenerator


def _refuse_first(complaints: dict[str, bool]) -> None:
    for sentence, applies in complaints.items():
        if applies:
            raise BadInput(sentence)


def _checked_grids(
    point_grids: Sequence[NDArray[np.floating[Any]]], n_layers: int
) -> list[NDArray[np.float64]]:
    grids = [np.asarray(grid, np.float64) for grid in point_grids]
    if len(grids) != n_layers + 1:
        raise BadInput(f"point_grids has {len(grids)} grids: give one for the image and one per crop layer")
    for grid in grids:
        if grid.ndim != 2 or grid.shape[1:] != (2,) or not ((grid >= 0) & (grid <= 1)).all():
            raise BadInput("a point grid is an array (n, 2) of x y between 0 and 1")
    return grids
