"""The one decoder of image files: JPEG and PNG alone, as RGB of 8 bits, as a viewer shows them.

- The orientation that EXIF data give is applied.
- What is transparent shows white behind it.
- Palettes, grey and CMYK become RGB. Of 16 bits a channel the upper 8 are kept.
- Colour profiles and PNG's gamma are not applied: the field does not apply them.

What cannot be shown in this way is refused: other formats, animations, damaged files, and sizes that fill the memory.
"""

import io
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from trained_binarization.errors import UserError

MOST_BYTES = 2**30
"""Of a file."""

MOST_PIXELS = 89_478_485
"""Of an image, 256 MB of RGB: where Pillow begins to warn of decompression bombs."""

MOST_ELONGATED = 100
"""How many times the short side the long one may be: evaluation enlarges both until the short one has its size."""

ORIENTATION = 0x0112
"""EXIF's tag."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""From the pixels as they are stored to the picture, by EXIF's orientation. 1 is: as they are stored."""

SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
"""How a JPEG and a PNG begin."""

# Pillow warns of damaged EXIF data, and of large images. The first are left out, as viewers do; the second are refused.
warnings.filterwarnings("ignore", module=r"PIL\.")


def _named(path: Path) -> str:
    """A path in one line, whatever characters it has."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def refused(path: Path, reason: object) -> UserError:
    """The error of a file that is not shown, in one line."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return UserError(f"{_named(path)}: cannot be read as an image: {text}; replace or remove it")


def read_file(path: Path, remedy: str = "replace or remove it") -> bytes:
    """An image file's bytes. UserError where it cannot be read, is too large, or is no file: a pipe would block."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{_named(path)}: found no regular file; allowed: a JPEG or PNG file; {remedy}")
        if found.st_size > MOST_BYTES:
            raise UserError(f"{_named(path)}: found {found.st_size:,} bytes; allowed: at most {MOST_BYTES:,}; {remedy}")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{_named(path)}: cannot be read: {error.strerror}; {remedy}") from None


def open_image(path: Path, content: bytes) -> Image.Image:
    """An image file's content, its header read, its pixels not; UserError where the header says that it is refused."""
    try:
        image = Image.open(io.BytesIO(content), formats=("JPEG", "PNG"))
    except UnidentifiedImageError:
        known = content.startswith(SIGNATURES)
        found = "a damaged header" if known else f"{content[:12]!r} at its start"
        raise refused(path, f"found {found}, allowed: a JPEG or PNG") from None
    except Exception as error:  # Pillow's parsers raise whatever a damaged file leads them to
        raise refused(path, error) from None
    short, long = sorted(image.size)
    if short * long > MOST_PIXELS or long > MOST_ELONGATED * short:
        allowed = f"at most {MOST_PIXELS:,} pixels, one side at most {MOST_ELONGATED} times the other"
        raise refused(path, f"found {image.width} x {image.height} pixels, allowed: {allowed}")
    if image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
        raise refused(path, "found an animation, allowed: one picture")
    if image.format == "PNG" and content[12:16] != b"IHDR":
        raise refused(path, f"found {content[12:16]!r} as its first chunk, allowed: IHDR")
    return image


def orientation(image: Image.Image) -> int:
    """1 to 8, as the EXIF data of an opened image say; 1, as it is stored, where there are none or they are damaged."""
    exif = Image.Exif()  # not getexif(): that takes it from XMP, too, which viewers do not
    try:
        exif.load(image.info.get("exif", b""))
        found = exif.get(ORIENTATION)
        return found if found in TURNS else 1
    except Exception:
        return 1


def as_stored(image: Image.Image) -> bool:
    """Whether an opened image is a JPEG that every decoder of JPEG shows as `decode` does."""
    if image.format != "JPEG" or image.mode not in ("RGB", "L") or orientation(image) != 1:
        return False
    # Channels that are stored as RGB, not as YCbCr, are not known to all.
    as_rgb = bytes(layer[0] for layer in getattr(image, "layer", ())) == b"RGB"
    return not as_rgb and image.info.get("adobe_transform", 1) == 1


def decode(path: Path, content: bytes) -> Image.Image:
    """An image file's content as a viewer shows it, in RGB; UserError with one line where it is refused."""
    image = open_image(path, content)
    try:
        if image.format == "PNG":
            open_image(path, content).verify()  # its checksums: damaged pixels would be shown
        shown = _rgb(image, content)
        turn = orientation(image)
    except UserError:
        raise
    except Exception as error:
        raise refused(path, error) from None
    return shown.transpose(TURNS[turn]) if turn in TURNS else shown


def _rgb(image: Image.Image, content: bytes) -> Image.Image:
    """The pixels as they are stored, with white behind what is transparent."""
    if image.format == "PNG":
        image = _of_8_bits(image, bits=content[24])
    if not image.has_transparency_data:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    shown = Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent).convert("RGB")
    if shown.getcolors(maxcolors=1):  # None where there are more
        raise ValueError("found one colour alone on the white behind what is transparent, allowed: a picture")
    return shown


def _of_8_bits(image: Image.Image, bits: int) -> Image.Image:
    """A PNG's pixels in 8 bits, and its transparent colour in theirs.

    Pillow does the first for all but 16 bits of grey, and the second for palettes and single bits.
    """
    transparent = image.info.get("transparency")
    if image.mode in ("I;16", "I"):
        values = np.asarray(image).astype(np.uint16)
        grey = Image.fromarray((values >> 8).astype(np.uint8))
        if transparent is not None:
            grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
        return grey
    if transparent is not None and image.mode == "RGB" and bits == 16:
        raise ValueError("found a transparent colour of 16 bits a channel, allowed: an alpha channel, or 8 bits")
    if transparent is not None and image.mode == "L":
        most = 2**bits - 1
        image.info["transparency"] = (transparent & most) * 255 // most
    return image
