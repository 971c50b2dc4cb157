"""What a notebook on the official generator does, cell by cell; only settings come from the command line."""

# ruff: noqa: I001 - the import lines stay as the official notebooks have them
import json
import sys

import numpy as np
from PIL import Image

from segment_anything import sam_model_registry, SamAutomaticMaskGenerator, SamPredictor

sam_checkpoint, model_type, image_file, answers = sys.argv[1:]
device = "cpu"
image = np.array(Image.open(image_file).convert("RGB"))

sam = sam_model_registry[model_type](checkpoint=sam_checkpoint)
sam.to(device=device)

mask_generator = SamAutomaticMaskGenerator(sam)
masks = mask_generator.generate(image)

mask_generator_2 = SamAutomaticMaskGenerator(
    model=sam,
    points_per_side=16,
    points_per_batch=64,
    pred_iou_thresh=0.6,
    stability_score_thresh=0.7,
    stability_score_offset=1.0,
    box_nms_thresh=0.7,
    crop_n_layers=1,
    crop_nms_thresh=0.7,
    crop_overlap_ratio=512 / 1500,
    crop_n_points_downscale_factor=2,
    point_grids=None,
    min_mask_region_area=0,
    output_mode="coco_rle",
)
masks2 = mask_generator_2.generate(image)


def show_anns(anns):
    """Paints the largest masks first, as the notebook does before it shows them."""
    canvas = np.ones((*image.shape[:2], 4))
    canvas[:, :, 3] = 0
    for ann in sorted(anns, key=(lambda x: x["area"]), reverse=True):
        canvas[ann["segmentation"]] = np.concatenate([np.random.random(3), [0.35]])
    return canvas


plain = SamAutomaticMaskGenerator(sam, points_per_side=24, pred_iou_thresh=0.6, stability_score_thresh=0.7)
painted = show_anns(plain.generate(image))

with open(answers, "w") as file:
    json.dump(
        {
            "default": len(masks),
            "records": masks2,
            "painted": int((painted[:, :, 3] > 0).sum()),
            "predictor": SamPredictor(sam).is_image_set,
        },
        file,
    )
