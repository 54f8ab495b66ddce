"""Image files of every kind, written from their definition: what a viewer shows, and what no viewer may be given."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
"""PNG's colour types."""


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: np.ndarray, bits: int, colour: int, *chunks: bytes, size: tuple[int, int] | None = None) -> bytes:
    """A PNG of samples (H, W) or (H, W, channels); `chunks` lie before the pixels, `size` is what its header says."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if bits == 16:
        packed = [row.astype(">u2").tobytes() for row in rows]
    else:  # each sample's last bits, one after the other
        each = (rows.astype(np.uint8)[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        packed = [np.packbits(row.reshape(-1)).tobytes() for row in each.astype(np.uint8)]
    header = struct.pack(">IIBBBBB", *(size or (width, height)), bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in packed))
    whole = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file, by Pillow."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def photograph(width: int = 64, height: int = 48) -> Image.Image:
    """A smooth picture that is the same in no two corners."""
    seeds = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(seeds).resize((width, height), Image.Resampling.BICUBIC)


def turned(orientation: int) -> Image.Exif:
    """EXIF data with an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def refused() -> dict[str, bytes]:
    """Files that must not be opened, or cannot be shown, by what is wrong with them."""
    photo = photograph()
    jpeg, lossless = saved(photo, "JPEG"), saved(photo, "PNG")
    flipped = bytearray(lossless)
    flipped[len(flipped) // 2] ^= 1
    pixel = np.zeros((1, 1), np.uint8)
    return {
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
        "AVIF": b"\0\0\0 ftypavif\0\0\0\0avifmif1miaf" + bytes(100),
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "GIF": saved(photo, "GIF"),
        "TIFF": saved(photo, "TIFF"),
        "BMP": saved(photo, "BMP"),
        "empty": b"",
        "animated PNG": saved(photo, "PNG", save_all=True, append_images=[photo.rotate(180)]),
        "cut JPEG": jpeg[: len(jpeg) * 3 // 4],
        "cut JPEG header": jpeg[:20],
        "cut PNG": lossless[: len(lossless) * 3 // 4],
        "PNG without its end": lossless[:-12],
        "PNG with a flipped bit": bytes(flipped),
        "PNG that begins with its pixels": lossless[:8] + lossless[33:],
        "bomb": png(pixel, 8, GREY, size=(40_000, 40_000)),
        "bomb of which Pillow only warns": png(pixel, 8, GREY, size=(10_000, 9_000)),
        "bomb when enlarged": saved(Image.new("L", (20_000, 2)), "PNG"),
        "bomb of text": png(pixel, 8, GREY, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24)))),
        "nothing on white": saved(Image.new("RGBA", (8, 8), (255, 255, 255, 0)), "PNG"),
        "transparent colour of 16 bits": png(
            np.zeros((2, 2, 3), np.uint16), 16, COLOUR, chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
        ),
    }
