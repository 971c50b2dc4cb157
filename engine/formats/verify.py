"""Checks a COCO file or an export folder the hard way: every digest, every mask, every reference.

It is meant for anyone's files, so nothing in them can stop it: each fault is one sentence of the report.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.errors import BadInput, NotFound
from engine.formats.coco import CocoAnnotation, CocoFile, read_coco
from engine.formats.json_fields import Box
from engine.formats.manifest import MANIFEST_NAME, Manifest, file_sha256, read_manifest
from engine.geometry.rle import bbox_of_runs, decode_by_pycocotools, runs_of, sa1b_from_coco
from engine.geometry.runs import runs_to_mask

MOST_PROBLEMS = 100
# Boxes of masks are whole numbers; writers that go through 32-bit floats stay within this.
_BOX_TOLERANCE_PX = 0.01
_POLYGON_TOLERANCE_PX = 2.0


@dataclass
class VerifyReport:
    """What was found. `problems` holds the first MOST_PROBLEMS sentences, `n_problems` counts all of them.

    `bbox_convention` is "coco" (one pixel has width 1), "sa1b" (width 0), "mixed", or None without boxes.
    """

    n_images: int = 0
    n_annotations: int = 0
    n_problems: int = 0
    problems: list[str] = field(default_factory=list)
    bbox_convention: str | None = None
    n_files: int = 0

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return self.n_problems == 0

    def add(self, problem: str) -> None:
        """Notes one problem; past the first MOST_PROBLEMS they are only counted."""
        self.n_problems += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


def verify(path: Path) -> VerifyReport:
    """Checks a COCO file, or a folder: its manifest where it has one, and each COCO file in it.

    Every mask is decoded by our own code and by pycocotools and compared; area and box are compared with the
    mask, sizes with the image block, references and ids within the file. Raises NotFound without a `path`.
    """
    report = VerifyReport()
    if not path.exists():
        raise NotFound(f"{path} does not exist: give a COCO file or the folder of an export")
    for file in _files(path, report):
        report.n_files += 1
        _verify_file(file, report)
    if report.n_files == 0 and report.ok:
        report.add(f"{path.name} holds no COCO file: nothing was checked")
    return report


def _files(path: Path, report: VerifyReport) -> list[Path]:
    """The COCO files to check; of a manifest's files those that end in .json."""
    if path.is_file():
        return [path]
    if not (path / MANIFEST_NAME).exists():
        return sorted(path.glob("*.json"))
    try:
        manifest = read_manifest(path)
    except (BadInput, OSError) as refusal:
        report.add(str(refusal))
        return sorted(file for file in path.glob("*.json") if file.name != MANIFEST_NAME)
    return _check_digests(path, manifest, report)


def _check_digests(folder: Path, manifest: Manifest, report: VerifyReport) -> list[Path]:
    """Compares the files with the manifest; returns the JSON files that are there."""
    present = []
    for entry in manifest.files:
        file = folder / entry.path
        if not file.is_file():
            report.add(f"{entry.path} is listed in {MANIFEST_NAME} but missing")
            continue
        if file.stat().st_size != entry.n_bytes or file_sha256(file) != entry.sha256:
            report.add(f"{entry.path} is not the file that {MANIFEST_NAME} describes: it was changed")
        if file.suffix == ".json":
            present.append(file)
    return present


def _verify_file(file: Path, report: VerifyReport) -> None:
    try:
        coco = read_coco(file, on_refusal=lambda reason: report.add(f"{file.name}: {reason}"))
        report.n_images += len(coco.images)
        report.n_annotations += coco.n_annotations
        _verify_annotations(coco, report)
    except (BadInput, OSError) as refusal:  # the file as a whole cannot be read
        report.add(str(refusal))


def _verify_annotations(coco: CocoFile, report: VerifyReport) -> None:
    for annotation in coco.annotations(lambda reason: report.add(f"{coco.path.name}: {reason}")):
        for problem in _problems(annotation, report):
            report.add(f"{coco.path.name}: annotation {annotation.id}: {problem}")


def _problems(annotation: CocoAnnotation, report: VerifyReport) -> list[str]:
    rle, hw = annotation.rle, (annotation.rle["size"][0], annotation.rle["size"][1])
    runs = runs_of(rle)
    if not np.array_equal(runs_to_mask(runs, hw), decode_by_pycocotools(rle)):
        return ["its counts decode to two different masks: write them anew"]
    area = int(runs[1::2].sum())
    problems = [] if area else ["its mask has no pixel"]
    if annotation.area is None:
        problems.append("it has no area")
    elif not annotation.from_polygon and annotation.area != area:
        problems.append(f"its area is {annotation.area:g}, but the mask has {area} pixels")
    return problems + _box_problems(annotation, bbox_of_runs(runs, hw[0]), report)


def _box_problems(
    annotation: CocoAnnotation, of_mask: tuple[int, int, int, int], report: VerifyReport
) -> list[str]:
    """Compares with both conventions. Outlines have fractions, so a polygon's box may differ a little."""
    if annotation.bbox is None:
        return ["it has no bbox"]
    tolerance_px = _POLYGON_TOLERANCE_PX if annotation.from_polygon else _BOX_TOLERANCE_PX
    conventions = {"coco": of_mask, "sa1b": sa1b_from_coco(of_mask)}
    fitting = [name for name, box in conventions.items() if _near(annotation.bbox, box, tolerance_px)]
    if not fitting:
        stated = ", ".join(f"{number:g}" for number in annotation.bbox)
        return [f"its bbox is [{stated}], but the mask's is {list(of_mask)}"]
    if len(fitting) == 1:  # an empty mask or an outline may fit both and tells nothing
        told = report.bbox_convention
        report.bbox_convention = fitting[0] if told in (None, fitting[0]) else "mixed"
    return []


def _near(stated: Box, box: tuple[int, int, int, int], tolerance_px: float) -> bool:
    return all(abs(one - other) <= tolerance_px for one, other in zip(stated, box, strict=True))
