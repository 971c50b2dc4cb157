"""Image files in: any common picture becomes upright 8-bit RGB pixels and a stored file free of metadata.

Every change of the pixels is put in words, so that a mask can be explained against the file it came from.
"""

import io
import logging
import re
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from engine.errors import BadInput

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# MPO is a JPEG with more pictures behind it (a gain map, a depth map, the other eye), as phones write them.
_JPEGS = frozenset({"JPEG", "MPO"})
_EXIF_ORIENTATION = 0x0112
# What makes a picture of that EXIF orientation upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIXTEEN_BIT = frozenset({"I;16", "I;16B", "I;16L", "I", "F"})
# The first marker after a scan: in coded data a 0xFF byte is followed by 0x00 or a restart marker.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True)
class Picture:
    """`stored` decodes to exactly `pixels` (H, W, 3) uint8; `orientation` is the EXIF value applied."""

    pixels: NDArray[np.uint8]
    stored: bytes
    media_type: str
    orientation: int
    changes: tuple[str, ...]


@dataclass(frozen=True)
class _Decoded:
    """A file as Pillow reads it, turned upright."""

    image: Image.Image
    is_jpeg: bool
    orientation: int
    n_frames: int


def read_picture(content: bytes, *, max_pixels: int) -> Picture:
    """Decodes one untrusted image file.

    Raises BadInput with what to do when it is not an image, truncated, animated or larger than `max_pixels`
    (read from the header, before any pixel is decoded).
    """
    found = _decode(content, max_pixels)
    pixels, changes = _to_rgb(found.image)
    if found.n_frames > 1:
        changes.insert(0, f"the first of {found.n_frames} pictures in the file")
    if found.orientation != 1:
        changes.insert(0, f"turned upright (EXIF orientation {found.orientation})")
    if found.is_jpeg and found.orientation == 1 and found.image.mode in ("RGB", "L"):
        stored, media_type = _store_jpeg(content, pixels)
    else:
        stored, media_type = _encode(pixels, lossy=found.is_jpeg)
        if media_type == "image/jpeg":
            # The stored file is the truth from here on, so the pixels are what it decodes to.
            pixels = decode_stored(stored)
    return Picture(pixels, stored, media_type, found.orientation, tuple(changes))


def decode_stored(stored: bytes) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) uint8 of a file that `read_picture` made."""
    with Image.open(io.BytesIO(stored), formats=("JPEG", "PNG")) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of pixels (H, W, 3) RGB."""
    return _encode(pixels, lossy=False)[0]


def _decode(content: bytes, max_pixels: int) -> _Decoded:
    try:
        with warnings.catch_warnings():
            # Our own cap below decides; Pillow's warnings about it, or about odd tags, would only be noise.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
            n_frames = _check_header(image, max_pixels)
            orientation = _orientation(image)
            image.load()
    except BadInput:
        raise
    except UnidentifiedImageError:
        raise BadInput("not an image: give a JPEG, PNG, WebP, TIFF or BMP file") from None
    except Image.DecompressionBombError:
        raise BadInput(_too_large(max_pixels)) from None
    except Exception as error:
        # Pillow answers a hostile file with any exception there is: struct.error, TypeError, KeyError ...
        raise BadInput(
            f"the image is broken or cut short ({error}): save it again from its source"
        ) from error
    # Pillow turns TIFF files by itself while it loads them.
    turn = None if image.format == "TIFF" else _TURNS.get(orientation)
    upright = image if turn is None else image.transpose(turn)
    return _Decoded(upright, image.format in _JPEGS, orientation, n_frames)


def _check_header(image: Image.Image, max_pixels: int) -> int:
    """The number of frames; more than one is for a JPEG alone, whose first is the photograph."""
    width, height = image.size
    if width * height > max_pixels:
        raise BadInput(f"{width} x {height} pixels: {_too_large(max_pixels)}")
    n_frames = int(getattr(image, "n_frames", 1))
    if n_frames > 1 and image.format not in _JPEGS:
        raise BadInput("more than one frame or page: save each as an image of its own")
    return n_frames


def _too_large(max_pixels: int) -> str:
    return f"larger than {max_pixels:,} pixels: shrink or cut it, or raise limits.max_pixels"


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where the tag is missing or the metadata cannot be read, which is no fault of the pixels."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception as error:
        log.info("unreadable EXIF is left out: %s", error)
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> tuple[NDArray[np.uint8], list[str]]:
    if image.mode in _SIXTEEN_BIT:
        return _window(np.asarray(image).astype(np.float64))
    if image.mode == "RGB":
        return np.array(image, dtype=np.uint8), []
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return np.array(Image.alpha_composite(paper, layer).convert("RGB")), ["transparency laid over white"]
    note = {"CMYK": "CMYK converted to RGB", "P": "palette resolved", "YCbCr": "YCbCr converted to RGB"}
    changes = [note[image.mode]] if image.mode in note else []
    return np.array(image.convert("RGB"), dtype=np.uint8), changes


def _window(values: NDArray[np.float64]) -> tuple[NDArray[np.uint8], list[str]]:
    """More than 8 bits: the picture's own range is stretched to 0..255, and the range is written down."""
    if not np.isfinite(values).all():
        raise BadInput(
            "the image holds values that are not numbers: replace NaN and infinity, then save it again"
        )
    low, high = float(values.min()), float(values.max())
    scaled = np.round((values - low) * (255.0 / max(high - low, 1e-9))).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2), [f"values {low:g}..{high:g} scaled to 0..255"]


def _encode(pixels: NDArray[np.uint8], *, lossy: bool) -> tuple[bytes, str]:
    """PNG for what was lossless; a JPEG that had to be turned is written again at quality 95, full colour."""
    buffer = io.BytesIO()
    if lossy:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
        return buffer.getvalue(), "image/jpeg"
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue(), "image/png"


def _store_jpeg(content: bytes, pixels: NDArray[np.uint8]) -> tuple[bytes, str]:
    """The file without its metadata; a file whose segments cannot be followed is stored as PNG instead."""
    try:
        stripped = _strip_jpeg(content)
        if np.array_equal(decode_stored(stripped), pixels):
            return stripped, "image/jpeg"
    except (OSError, SyntaxError, IndexError):
        return _encode(pixels, lossy=False)
    return _encode(pixels, lossy=False)


def _strip_jpeg(content: bytes) -> bytes:
    """The same coded pixels without EXIF, GPS, comments, thumbnails, profiles, or what follows the end.

    Keeps APP0 (JFIF) and APP14 (Adobe's colour transform), which decoding needs; ITU T.81 annex B. Raises
    SyntaxError or IndexError where the segments cannot be followed to the end.
    """
    kept, position = [content[:2]], 2
    while (marker := content[position + 1]) != 0xD9:
        if content[position] != 0xFF:
            raise SyntaxError(f"no marker at byte {position}")
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        if marker == 0xDA:
            end = _end_of_scan(content, end)
        metadata = (0xE1 <= marker <= 0xEF and marker != 0xEE) or marker == 0xFE
        if not metadata:
            kept.append(content[position:end])
        position = end
    return b"".join(kept) + b"\xff\xd9"


def _end_of_scan(content: bytes, start: int) -> int:
    found = _AFTER_SCAN.search(content, start)
    if found is None:
        raise SyntaxError("a scan without an end")
    return found.start()
