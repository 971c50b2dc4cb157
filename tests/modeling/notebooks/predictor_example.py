"""What a notebook on the official predictor does, cell by cell; only settings come from the command line."""

# ruff: noqa: I001 - the import lines stay as the official notebooks have them
import sys

import numpy as np
import torch
from PIL import Image

from segment_anything import sam_model_registry, SamPredictor
from segment_anything.utils.transforms import ResizeLongestSide

sam_checkpoint, model_type, image_file, answers = sys.argv[1:]
device = "cpu"
image = np.array(Image.open(image_file).convert("RGB"))

sam = sam_model_registry[model_type](checkpoint=sam_checkpoint)
sam.to(device=device)
predictor = SamPredictor(sam)
predictor.set_image(image)

# One point: three readings of it.
input_point = np.array([[96.0, 102.4]])
input_label = np.array([1])
masks, scores, logits = predictor.predict(
    point_coords=input_point,
    point_labels=input_label,
    multimask_output=True,
)
one_point = {"masks": masks, "scores": scores, "logits": logits}

# Two points, first as they are, then with the best logits of the first answer.
input_point = np.array([[192, 76.8], [256, 204.8]])
input_label = np.array([1, 0])
two_points, _, _ = predictor.predict(
    point_coords=input_point, point_labels=input_label, multimask_output=False, return_logits=True
)
mask_input = logits[np.argmax(scores), :, :]
corrected, _, _ = predictor.predict(
    point_coords=input_point,
    point_labels=input_label,
    mask_input=mask_input[None, :, :],
    multimask_output=False,
)

# A box, and a box with a point.
input_box = np.array([80, 76.8, 144, 140.8])
boxed, _, box_logits = predictor.predict(
    point_coords=None,
    point_labels=None,
    box=input_box[None, :],
    multimask_output=False,
)
both, _, both_logits = predictor.predict(
    point_coords=np.array([[198.4, 84.48]]),
    point_labels=np.array([1]),
    box=np.array([160, 51.2, 240, 128]),
    multimask_output=False,
)

# Several boxes at once.
input_boxes = torch.tensor([[80, 76, 144, 140], [160, 51, 240, 128]], device=predictor.device)
transformed_boxes = predictor.transform.apply_boxes_torch(input_boxes, image.shape[:2])
masks, _, _ = predictor.predict_torch(
    point_coords=None,
    point_labels=None,
    boxes=transformed_boxes,
    multimask_output=False,
)
batch = masks.cpu().numpy()

# Several images with several prompts, from end to end.
resize_transform = ResizeLongestSide(sam.image_encoder.img_size)


def prepare_image(image, transform, device):
    image = transform.apply_image(image)
    image = torch.as_tensor(image, device=device.device)
    return image.permute(2, 0, 1).contiguous()


batched_input = [
    {
        "image": prepare_image(image, resize_transform, sam),
        "boxes": resize_transform.apply_boxes_torch(input_boxes, image.shape[:2]),
        "original_size": image.shape[:2],
    },
    {
        "image": prepare_image(image[:200], resize_transform, sam),
        "point_coords": resize_transform.apply_coords_torch(
            torch.tensor([[[96.0, 102.4]]]), image[:200].shape[:2]
        ),
        "point_labels": torch.tensor([[1]]),
        "original_size": image[:200].shape[:2],
    },
]
batched_output = sam(batched_input, multimask_output=False)

np.savez(
    answers,
    **{f"one_point_{name}": value for name, value in one_point.items()},
    embedding=predictor.get_image_embedding().cpu().numpy(),
    two_points=two_points,
    corrected=corrected,
    boxed=boxed,
    box_logits=box_logits,
    both=both,
    both_logits=both_logits,
    batch=batch,
    **{f"first_{name}": value.cpu().numpy() for name, value in batched_output[0].items()},
    **{f"second_{name}": value.cpu().numpy() for name, value in batched_output[1].items()},
)
