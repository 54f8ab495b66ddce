"""Image files as a viewer shows them, or refused in one line.

The expected pixels are computed from the formats' definitions. Chromium, which draws on white, gives the same.
"""

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import COLOUR, COLOUR_ALPHA, GREY, GREY_ALPHA, PALETTE, chunk, photograph, png, refused, saved, turned
from PIL import Image

from helpers import DATA, REPOSITORY
from trained_binarization.datasets.decode import as_stored, decode, open_image, read_file
from trained_binarization.errors import UserError

PATH = Path("x.png")
RANDOM = np.random.default_rng(7)


def shown(content: bytes) -> np.ndarray:
    image = decode(PATH, content)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def of_8_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    return samples >> 8 if bits == 16 else samples * 255 // (2**bits - 1)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.rint((colour * alpha + 255.0 * (255 - alpha)) / 255).astype(int)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_any_depth_is_neither_saturated_nor_dark(bits: int) -> None:
    samples = RANDOM.integers(0, 2**bits, (9, 14))
    samples[0, :2] = 0, 2**bits - 1
    found = shown(png(samples, bits, GREY))
    assert (found == of_8_bits(samples, bits)[..., None]).all()
    assert (found[0, 0], found[0, 1]) == (pytest.approx(0), pytest.approx(255))


@pytest.mark.parametrize("bits", [8, 16])
def test_colour_of_either_depth(bits: int) -> None:
    samples = RANDOM.integers(0, 2**bits, (9, 14, 3))
    assert (shown(png(samples, bits, COLOUR)) == of_8_bits(samples, bits)).all()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("colour", "channels"), [(GREY_ALPHA, 2), (COLOUR_ALPHA, 4)])
def test_transparency_shows_white_behind_it(bits: int, colour: int, channels: int) -> None:
    samples = RANDOM.integers(0, 2**bits, (9, 14, channels))
    samples[:2, :, -1], samples[2:4, :, -1] = 0, 2**bits - 1  # transparent, opaque
    found, levels = shown(png(samples, bits, colour)), of_8_bits(samples, bits)
    assert (found[:2] == 255).all()
    assert (found[2:4] == levels[2:4, :, :-1]).all()
    assert np.abs(found - on_white(levels[..., :-1], levels[..., -1:])).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_shows_white(bits: int) -> None:
    samples = RANDOM.integers(0, 2**bits, (9, 14))
    samples[0] = 0
    samples[1] = hidden = 2**bits - 1 if bits == 1 else int(2**bits * 0.7)
    samples[samples == hidden] = 0
    samples[1, :5] = hidden
    if bits == 16:
        samples[2, :5] = hidden ^ 1  # the same in 8 bits, and opaque
    found = shown(png(samples, bits, GREY, chunk(b"tRNS", struct.pack(">H", hidden))))
    expected = np.where(samples == hidden, 255, of_8_bits(samples, bits))
    assert (found == expected[..., None]).all()


def test_a_transparent_colour_shows_white() -> None:
    samples = RANDOM.integers(0, 256, (9, 14, 3))
    samples[3:5, 2:9] = 10, 20, 30
    found = shown(png(samples, 8, COLOUR, chunk(b"tRNS", struct.pack(">HHH", 10, 20, 30))))
    samples[3:5, 2:9] = 255
    assert (found == samples).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_with_and_without_transparency(bits: int, transparent: bool) -> None:
    colours, samples = RANDOM.integers(0, 256, (2**bits, 3)), RANDOM.integers(0, 2**bits, (9, 14))
    alpha = np.full(2**bits, 255)
    chunks = [chunk(b"PLTE", colours.astype(np.uint8).tobytes())]
    if transparent:
        alpha[: 2 ** (bits - 1)] = RANDOM.integers(1, 255, 2 ** (bits - 1))  # the others' are not written
        chunks.append(chunk(b"tRNS", alpha[: 2 ** (bits - 1)].astype(np.uint8).tobytes()))
    found = shown(png(samples, bits, PALETTE, *chunks))
    assert np.abs(found - on_white(colours, alpha[:, None])[samples]).max() <= (1 if transparent else 0)


UPRIGHT = {  # from the stored pixels to the picture, as EXIF defines the orientations
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_stands_as_its_exif_data_say(kind: str, orientation: int) -> None:
    expected = UPRIGHT[orientation](shown(saved(photograph(), kind)))
    content = saved(photograph(), kind, exif=turned(orientation))
    assert np.array_equal(shown(content), expected)
    assert as_stored(open_image(PATH, content)) == (kind == "JPEG" and orientation == 1)


def test_orientations_that_viewers_do_not_follow_are_not_followed() -> None:
    photo = photograph()
    expected, xmp = shown(saved(photo, "JPEG")), b'<x tiff:Orientation="6"/>'
    damaged = saved(photo, "JPEG", exif=turned(6)).replace(b"II*\0", b"II*\xff").replace(b"MM\0*", b"MM\xff*")
    for content in (damaged, saved(photo, "JPEG", xmp=xmp), saved(photo, "JPEG", exif=turned(9))):
        assert content != saved(photo, "JPEG")
        assert np.array_equal(shown(content), expected)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_a_jpeg_of_any_colours_is_read(mode: str) -> None:
    photo = photograph().convert(mode)
    expected = np.asarray(photo.convert("RGB")).astype(int)
    assert np.abs(shown(saved(photo, "JPEG", quality=95)) - expected).mean() < 3


def test_of_several_pictures_in_a_jpeg_the_first_is_shown() -> None:
    photo = photograph()
    content = saved(photo, "MPO", save_all=True, append_images=[photo.rotate(180)])
    assert np.abs(shown(content) - np.asarray(photo).astype(int)).mean() < 5
    assert not as_stored(open_image(PATH, content))


def test_channels_stored_as_rgb_are_not_left_to_another_decoder() -> None:
    assert as_stored(open_image(PATH, saved(photograph(), "JPEG")))
    assert not as_stored(open_image(PATH, saved(photograph(), "JPEG", keep_rgb=True)))
    assert not as_stored(open_image(PATH, saved(photograph().convert("CMYK"), "JPEG")))


@pytest.mark.parametrize(("kind", "content"), refused().items(), ids=refused())
def test_what_cannot_be_shown_is_refused_in_one_line(kind: str, content: bytes) -> None:
    with pytest.raises(UserError) as raised:
        decode(PATH, content)
    assert re.fullmatch(r"x\.png: cannot be read as an image: [^\n]{5,250}; replace or remove it", str(raised.value))


def test_a_flipped_bit_in_a_png_never_changes_what_is_shown() -> None:
    content = saved(photograph(12, 9), "PNG")
    expected, passed = shown(content), 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        try:
            assert np.array_equal(shown(bytes(flipped)), expected)
            passed += 1
        except UserError:
            pass
    assert passed <= 8  # the length and the checksum of the end, which holds nothing


def test_a_damaged_file_is_shown_or_refused_and_never_a_traceback() -> None:
    contents = [saved(photograph(12, 9), "JPEG", exif=turned(6)), png(RANDOM.integers(0, 4, (5, 7)), 2, GREY)]
    for content in contents:
        for _ in range(1500):
            damaged = bytearray(content[: RANDOM.integers(1, len(content) + 1)])
            for place in RANDOM.integers(0, len(damaged), 3):
                damaged[place] = RANDOM.integers(0, 256)
            try:
                found = str(shown(bytes(damaged)).ndim)
            except UserError as error:
                found = str(error)
            assert "\n" not in found


WARNED_OF = """
import sys
from pathlib import Path
from trained_binarization.datasets.decode import decode
from trained_binarization.errors import UserError
for path in map(Path, sys.argv[1:]):
    try:
        decode(path, path.read_bytes())
    except UserError:
        print("refused")
"""


def test_pillow_prints_nothing_of_its_own(tmp_path: Path) -> None:
    exif = turned(1)
    exif[0x010F] = "a maker's name of many letters"
    damaged = saved(photograph(), "JPEG", exif=exif.tobytes()[:-20])
    (tmp_path / "exif.jpg").write_bytes(damaged)
    (tmp_path / "bomb.png").write_bytes(refused()["bomb of which Pillow only warns"])
    paths = [str(tmp_path / name) for name in ("exif.jpg", "bomb.png")]
    done = subprocess.run([sys.executable, "-c", WARNED_OF, *paths], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "large.png").touch()
    os.truncate(tmp_path / "large.png", 2**40)
    for path, told in (
        (tmp_path / "pipe.png", "found no regular file"),
        (tmp_path, "found no regular file"),
        (tmp_path / "large.png", "found 1,099,511,627,776 bytes"),
        (tmp_path / "nothing.png", "cannot be read: No such file"),
        (tmp_path / "nothing.png" / "x.png", "cannot be read: No such file"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
    ):
        with pytest.raises(UserError, match=f"^{path}: {told}[^\n]*; replace or remove it$"):
            read_file(path)


def test_a_name_with_control_characters_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a\n\x1b[31mb.png"
    with pytest.raises(UserError, match=r"a\\n\\x1b\[31mb.png': cannot be read: No such file"):
        read_file(path)
    with pytest.raises(UserError) as raised:
        decode(path, b"GIF89a")
    assert str(raised.value).isprintable()


def test_images_are_opened_by_this_decoder_alone() -> None:
    source = REPOSITORY / "src" / "trained_binarization"
    using = {path.name for path in source.rglob("*.py") if re.search(r"\bImage\.open\(", path.read_text("utf-8"))}
    assert using == {"decode.py"}


def test_committed_studies_images_have_the_pixels_that_they_were_trained_on() -> None:
    root = DATA / "imagenette-160"
    if not root.is_dir():
        pytest.skip(f"Imagenette is not here: no {root}")
    for folder in sorted((root / "train").iterdir()):
        for path in sorted(folder.iterdir())[:20]:
            trained_on = np.asarray(Image.open(path).convert("RGB"))
            assert np.array_equal(np.asarray(decode(path, path.read_bytes())), trained_on)
