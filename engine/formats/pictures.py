"""Image files in: any common picture becomes upright 8-bit RGB pixels and a stored file free of metadata.

Every change of the pixels is put in words, so that a mask can be explained against the file it came from.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.errors import BadInput

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_EXIF_ORIENTATION = 0x0112
_SIXTEEN_BIT = frozenset({"I;16", "I;16B", "I;16L", "I", "F"})


@dataclass(frozen=True)
class Picture:
    """`stored` decodes to exactly `pixels` (H, W, 3) uint8; `orientation` is the EXIF value applied."""

    pixels: NDArray[np.uint8]
    stored: bytes
    media_type: str
    orientation: int
    changes: tuple[str, ...]


def read_picture(content: bytes, *, max_pixels: int) -> Picture:
    """Decodes one untrusted image file.

    Raises BadInput with what to do when it is not an image, truncated, animated or larger than `max_pixels`
    (read from the header, before any pixel is decoded).
    """
    image = _open(content, max_pixels)
    orientation = _orientation(image)
    upright = ImageOps.exif_transpose(image)
    pixels, changes = _to_rgb(upright)
    if orientation != 1:
        changes.insert(0, f"turned upright (EXIF orientation {orientation})")
    if image.format == "JPEG" and orientation == 1 and image.mode == "RGB":
        stored, media_type = _store_jpeg(content, pixels)
        return Picture(pixels, stored, media_type, 1, tuple(changes))
    stored, media_type = _encode(pixels, lossy=image.format == "JPEG")
    if media_type == "image/jpeg":
        # The stored file is the truth from here on, so the pixels are what it decodes to.
        pixels = decode_stored(stored)
    return Picture(pixels, stored, media_type, orientation, tuple(changes))


def decode_stored(stored: bytes) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) uint8 of a file that `read_picture` made."""
    with Image.open(io.BytesIO(stored), formats=("JPEG", "PNG")) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _open(content: bytes, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Our own cap below decides; Pillow's warning about it would only be noise.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
            _check_header(image, max_pixels)
            image.load()
    except UnidentifiedImageError:
        raise BadInput("not an image: give a JPEG, PNG, WebP, TIFF or BMP file") from None
    except Image.DecompressionBombError:
        raise BadInput(_too_large(max_pixels)) from None
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError) as error:
        raise BadInput(f"the image is broken or cut short ({error}): save it again from its source") from None
    return image


def _check_header(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadInput(f"{width} x {height} pixels: {_too_large(max_pixels)}")
    if getattr(image, "n_frames", 1) > 1:
        raise BadInput("more than one frame or page: save each as an image of its own")


def _too_large(max_pixels: int) -> str:
    return f"larger than {max_pixels:,} pixels: shrink or cut it, or raise limits.max_pixels"


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_EXIF_ORIENTATION, 1)
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
    """The same coded pixels without EXIF, GPS, comments, thumbnails, colour profiles or trailing bytes.

    Keeps APP0 (JFIF) and APP14 (Adobe's colour transform), which decoding needs; ITU T.81 annex B.
    """
    kept, position = [content[:2]], 2
    while content[position] == 0xFF and content[position + 1] != 0xDA:
        marker, length = content[position + 1], int.from_bytes(content[position + 2 : position + 4], "big")
        metadata = (0xE1 <= marker <= 0xEF and marker != 0xEE) or marker == 0xFE
        if not metadata:
            kept.append(content[position : position + 2 + length])
        position += 2 + length
    end = content.rfind(b"\xff\xd9")
    kept.append(content[position : end + 2 if end > position else len(content)])
    return b"".join(kept)
