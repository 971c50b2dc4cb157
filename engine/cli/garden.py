"""The demo's pictures: generated gardens, a theme that the bundled model never saw in training."""

from pathlib import Path

from engine.cli.showing import progress_of

N_PICTURES = 36
SIZE_HW = (384, 384)
SEED = 20261
# Every third picture judges models and trains none.
HELD_OUT_EVERY = 3
# Smaller ones are specks that nobody would outline by hand.
MIN_AREA_PX = 150


def draw_garden(folder: Path) -> Path:
    """Draws the pictures once, as `images/` with `truth.json` beside (COCO, exact masks); returns `images/`.

    The truth file is written last: where it is there, everything is.
    """
    from engine.formats.coco import CocoAnnotation, CocoImage
    from engine.formats.coco_writer import CocoWriter
    from engine.formats.pictures import encode_png
    from engine.geometry.rle import encode
    from engine.synthetic import draw_dataset

    images = folder / "images"
    if (folder / "truth.json").is_file():
        return images
    images.mkdir(parents=True, exist_ok=True)
    blocks: list[CocoImage] = []
    annotations: list[CocoAnnotation] = []
    with progress_of("drawing") as told:
        scenes = draw_dataset(SEED, N_PICTURES, size_hw=SIZE_HW, themes=("garden",))
        for number, scene in enumerate(scenes, start=1):
            name, split = f"garden-{number:03d}.png", "train" if number % HELD_OUT_EVERY else "val"
            (images / name).write_bytes(encode_png(scene.image))
            blocks.append(CocoImage(number, name, SIZE_HW[1], SIZE_HW[0], {"split": split}))
            whole = [part.mask for part in scene.masks if part.kind == "object"]
            for mask in (mask for mask in whole if mask.sum() >= MIN_AREA_PX):
                annotations.append(CocoAnnotation(len(annotations) + 1, number, None, encode(mask)))
            told(number, N_PICTURES)
    info = {"description": "Generated gardens with exact masks: the demo's truth"}
    with CocoWriter(folder / "truth.json", info=info, images=blocks, categories=[]) as writer:
        for annotation in annotations:
            writer.write(annotation)
    return images
