"""Picture files of every kind: what becomes of the pixels, what is said about it, and what is refused."""

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture

from engine.errors import BadInput
from engine.formats.pictures import decode_stored, read_picture

MAX_PIXELS = 1_000_000
# The EXIF orientation that a camera writes for a picture that these numpy operations make upright.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def photograph(height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """A smooth picture without any symmetry, so that JPEG keeps it and a wrong turn shows."""
    y, x = np.mgrid[:height, :width].astype(float)
    planes = 8 * x, 5 * y + 100, 255 * np.exp(-((x - 6) ** 2 + (y - 5) ** 2) / 40)
    return np.stack(planes, axis=2).clip(0, 255).astype(np.uint8)


def file_of(image: Picture.Image | NDArray[Any], format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Picture.Image) else Picture.fromarray(image)
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Picture.Exif:
    tags = Picture.Exif()
    tags[0x0112] = orientation
    tags[0x010E] = "a secret description"
    tags.get_ifd(0x8825)[1] = "N"
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_exif_orientation_comes_in_upright(format: str, orientation: int) -> None:
    pixels, options = photograph(), {"lossless": True} if format == "WEBP" else {}
    content = file_of(pixels, format, exif=exif(orientation), **options)
    picture = read_picture(content, max_pixels=MAX_PIXELS)
    wanted = UPRIGHT[orientation](pixels)
    assert picture.pixels.shape == wanted.shape and picture.orientation == orientation
    assert np.abs(picture.pixels.astype(int) - wanted).mean() < (3 if format == "JPEG" else 0.001)
    assert any("upright" in change for change in picture.changes) == (orientation != 1)
    assert np.array_equal(decode_stored(picture.stored), picture.pixels)
    assert Picture.open(io.BytesIO(picture.stored)).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_keeps_its_coded_pixels_and_loses_its_metadata(mode: str, options: dict[str, Any]) -> None:
    image = Picture.fromarray(photograph()).convert(mode)
    content = file_of(
        image, "JPEG", exif=exif(1), comment=b"a secret comment", icc_profile=b"p" * 70, **options
    )
    picture = read_picture(content, max_pixels=MAX_PIXELS)
    assert picture.media_type == "image/jpeg" and picture.changes == ()
    assert b"secret" in content and b"secret" not in picture.stored and b"Exif" not in picture.stored
    plain = np.asarray(Picture.open(io.BytesIO(content)).convert("RGB"))
    assert np.array_equal(picture.pixels, plain) and np.array_equal(decode_stored(picture.stored), plain)
    assert len(picture.stored) < len(content)


def test_what_follows_the_end_of_a_jpeg_is_not_stored() -> None:
    hidden = file_of(photograph(), "JPEG", exif=exif(1))
    content = file_of(photograph(), "JPEG") + b"a secret video" + hidden
    picture = read_picture(content, max_pixels=MAX_PIXELS)
    assert b"secret" not in picture.stored and picture.stored.endswith(b"\xff\xd9")
    assert np.array_equal(picture.pixels, read_picture(hidden, max_pixels=MAX_PIXELS).pixels)


def test_of_a_phones_many_picture_jpeg_the_first_is_taken() -> None:
    second = Picture.fromarray(255 - photograph())
    content = file_of(photograph(), "MPO", save_all=True, append_images=[second])
    picture = read_picture(content, max_pixels=MAX_PIXELS)
    assert picture.changes == ("the first of 2 pictures in the file",) and picture.media_type == "image/jpeg"
    assert np.abs(picture.pixels.astype(int) - photograph()).mean() < 3
    assert len(picture.stored) < len(content) / 2 + 200


def test_sixteen_bits_are_windowed_and_the_window_is_written_down() -> None:
    deep = (np.arange(600, dtype=np.uint16) * 100 + 1000).reshape(20, 30)
    for format in ("PNG", "TIFF"):
        picture = read_picture(file_of(deep, format), max_pixels=MAX_PIXELS)
        assert picture.changes == ("values 1000..60900 scaled to 0..255",)
        assert (picture.pixels.min(), picture.pixels.max()) == (0, 255)
        assert picture.pixels.shape == (20, 30, 3) and picture.media_type == "image/png"
    flat = read_picture(file_of(np.full((4, 4), 700, np.uint16), "PNG"), max_pixels=MAX_PIXELS)
    assert not flat.pixels.any()


def test_floating_point_is_windowed_and_what_is_no_number_refused() -> None:
    values = np.linspace(-1, 3, 64, dtype=np.float32).reshape(8, 8)
    picture = read_picture(file_of(values, "TIFF"), max_pixels=MAX_PIXELS)
    assert picture.changes == ("values -1..3 scaled to 0..255",)
    values[2, 2] = np.nan
    with pytest.raises(BadInput, match="NaN"):
        read_picture(file_of(values, "TIFF"), max_pixels=MAX_PIXELS)


def test_cmyk_becomes_rgb() -> None:
    content = file_of(Picture.fromarray(photograph()).convert("CMYK"), "JPEG", quality=95)
    picture = read_picture(content, max_pixels=MAX_PIXELS)
    assert picture.changes == ("CMYK converted to RGB",)
    assert np.abs(picture.pixels.astype(int) - photograph()).mean() < 5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(mode: str) -> None:
    layer = Picture.new("RGBA", (10, 6), (200, 10, 10, 255))
    layer.paste((0, 0, 0, 0), (0, 0, 5, 6))
    content = file_of(layer.convert(mode), "PNG")
    picture = read_picture(content, max_pixels=MAX_PIXELS)
    assert picture.changes == ("transparency laid over white",)
    assert (picture.pixels[:, :5] == 255).all() and (picture.pixels[:, 5:] != 255).any()


def test_a_palette_is_resolved() -> None:
    image = Picture.fromarray(photograph()).quantize(16)
    picture = read_picture(file_of(image, "PNG"), max_pixels=MAX_PIXELS)
    assert picture.changes == ("palette resolved",)
    assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(format: str, share: float) -> None:
    content = file_of(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), format)
    with pytest.raises(BadInput, match="broken|not an image"):
        read_picture(content[: int(len(content) * share)], max_pixels=MAX_PIXELS)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"%PDF-1.7", b"<svg/>", b"GIF89a" + bytes(20), bytes(1000)]
)
def test_what_is_no_image_is_named(content: bytes) -> None:
    with pytest.raises(BadInput, match="not an image: give a JPEG"):
        read_picture(content, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    # A few hundred bytes that claim gigabytes: only the header may be read.
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(10_000)))
    bomb = b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b"")
    with pytest.raises(BadInput, match="larger than 4,000,000 pixels"):
        read_picture(bomb, max_pixels=4_000_000)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_animations_and_pages_are_refused(format: str) -> None:
    other = Picture.fromarray(255 - photograph())
    content = file_of(photograph(), format, save_all=True, append_images=[other])
    with pytest.raises(BadInput, match="more than one frame or page"):
        read_picture(content, max_pixels=MAX_PIXELS)


def test_unreadable_exif_does_not_cost_the_picture() -> None:
    broken = b"Exif\x00\x00" + b"MM\x00\x2a\xff\xff\xff\x00" + bytes(40)
    picture = read_picture(file_of(photograph(), "JPEG", exif=broken), max_pixels=MAX_PIXELS)
    assert picture.orientation == 1 and b"Exif" not in picture.stored


def test_hostile_bytes_give_a_picture_or_a_sentence_and_nothing_else() -> None:
    seeds = [
        file_of(photograph(), "JPEG", exif=exif(6)),
        file_of(photograph(), "PNG", exif=exif(3)),
        file_of(photograph(), "TIFF", exif=exif(8)),
        file_of(Picture.fromarray(photograph()).convert("P"), "TIFF"),
        file_of(photograph(), "WEBP", exif=exif(5)),
    ]
    dice = random.Random(7)
    for _ in range(1500):
        content = bytearray(dice.choice(seeds))
        for _ in range(dice.choice([1, 3, 12])):
            content[dice.randrange(min(len(content), dice.choice([48, 300, 5000])))] = dice.randrange(256)
        try:
            picture = read_picture(bytes(content), max_pixels=MAX_PIXELS)
        except BadInput as refusal:
            assert str(refusal) and "\n" not in str(refusal)
        else:
            assert np.array_equal(decode_stored(picture.stored), picture.pixels)
