"""Training images decoded, cropped and scaled by NVIDIA DALI: on a GPU by its JPEG decoder, else on the CPU.

Files are read, compared with their SHA-256 and given their random choices as by the other decoder, Pillow. On a CPU the
pixels are Pillow's to within a few levels of 255 (tests/datasets/test_dali.py). DALI is not part of the lock: see
docs/imagenet.md.
"""

import gc
import importlib.util
import io
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trained_binarization.datasets.batches import RandomCrop, loaded, seeded
from trained_binarization.datasets.decode import as_stored, decode, open_image
from trained_binarization.datasets.index import Index
from trained_binarization.errors import UserError


class _Encoded(Dataset[Any]):
    """Batches as files: all their bytes; of each its length, its crop's start and end (row, column), flip and label."""

    def __init__(self, index: Index, crop: RandomCrop) -> None:
        self.index, self.crop = index, crop

    def _one(self, number: int, seed: int) -> tuple[bytes, tuple[int, int, int, int], bool]:
        content = self.index.content(number)
        path = self.index.path(number)
        image = open_image(path, content)
        if not as_stored(image):  # PNG, CMYK, turned by its EXIF data: as the other decoder shows it, without loss
            image, lossless = decode(path, content), io.BytesIO()
            image.save(lossless, "PNG", compress_level=1)
            content = lossless.getvalue()
        with seeded(seed):
            box, flip = self.crop.choose(image)
        return content, box, flip

    def __getitem__(self, choices: np.ndarray) -> tuple[Tensor, ...] | UserError:
        try:
            contents, boxes, flips = zip(*(self._one(*column) for column in choices.T.tolist()), strict=True)
        except UserError as error:
            return error
        whole = torch.frombuffer(bytearray(b"".join(contents)), dtype=torch.uint8)
        lengths = torch.tensor([len(content) for content in contents])
        left, top, width, height = torch.tensor(boxes, dtype=torch.float32).T
        start, end = torch.stack([top, left], 1), torch.stack([top + height, left + width], 1)
        return whole, lengths, start, end, torch.tensor(flips, dtype=torch.int32), self.index.labels[choices[0]]


def installed() -> bool:
    """Whether DALI is here."""
    return importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None


def check_installed() -> None:
    """UserError where DALI is not here."""
    if not installed():
        raise UserError(
            "dataset.decoder: found 'dali', which is not installed; allowed: 'pillow', or dali after "
            "pip install nvidia-dali-cuda130 (or -cuda120, as PyTorch's CUDA is)"
        )


def decoded(
    index: Index, crop: RandomCrop, batches: Sequence[np.ndarray], workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of uint8 (B, S, S, 3) and labels (B,) on the device, of as many images each."""
    if not batches:  # an epoch that was stopped before its evaluation
        return
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

    encoded: Generator[tuple[Any, ...]] = loaded(_Encoded(index, crop), batches, workers, torch.device("cpu"))

    def source() -> Iterator[tuple[Any, ...]]:
        for whole, lengths, *rest in encoded:
            yield [content.numpy() for content in whole.split(lengths.tolist())], *(values.numpy() for values in rest)

    cuda = device.type == "cuda"

    @pipeline_def(
        batch_size=batches[0].shape[1],
        num_threads=max(1, workers),
        device_id=(device.index or 0) if cuda else None,
    )
    def pipeline() -> Any:
        dtypes = [types.UINT8, types.FLOAT, types.FLOAT, types.INT32, types.INT64]
        files, start, end, flip, labels = fn.external_source(
            source(), num_outputs=len(dtypes), dtype=dtypes, ndim=[1, 1, 1, 0, 0]
        )
        images = fn.decoders.image(
            files,
            device="mixed" if cuda else "cpu",
            output_type=types.RGB,
            adjust_orientation=False,  # what is to be turned comes turned
            jpeg_fancy_upsampling=True,  # as libjpeg, on a GPU too
        )
        images = fn.resize(  # sees the neighbours across the crop's edge, as Pillow's does
            images,
            size=[crop.size, crop.size],
            roi_start=start,
            roi_end=end,
            interp_type=types.INTERP_LINEAR,
            antialias=True,
        )
        return fn.flip(images, horizontal=flip), labels.gpu() if cuda else labels

    built, running = pipeline(), None
    try:
        built.build()
        running = DALIGenericIterator([built], ["images", "labels"], last_batch_policy=LastBatchPolicy.PARTIAL)
        for (batch,) in running:
            yield batch["images"], batch["labels"].flatten()
    except RuntimeError as error:  # a library that is missing, a JPEG that it cannot decode: in twenty lines
        text = str(error)
        reason = (text.partition("encountered:")[2] or text).strip().partition("\n")[0]
        raise UserError(f"dataset.decoder: DALI failed on {index.root}: {reason}; allowed: pillow") from None
    finally:
        encoded.close()  # ends its processes
        del built, running
        gc.collect()  # the pipeline is part of a cycle, and may hold a GPU's memory
