"""The device and its settings."""

import pytest
import torch

from helpers import small_settings
from trained_binarization.errors import UserError
from trained_binarization.study import Compute
from trained_binarization.training.device import describe, set_up


def compute(**changes: object) -> Compute:
    return Compute.model_validate(small_settings()["compute"] | changes)


def test_threads_are_what_the_study_says() -> None:
    for threads in (2, 1):
        set_up(compute(threads=threads))
        assert torch.get_num_threads() == threads


def test_float32_is_float32() -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    set_up(compute())
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_the_device_is_what_the_study_says() -> None:
    assert set_up(compute(device="cpu")).type == "cpu"
    assert set_up(compute(device="auto")).type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match=r"compute\.device: found 'cuda'; allowed: 'auto' or 'cpu'"):
        set_up(compute(device="cuda"))


def test_the_processor_has_a_name() -> None:
    name, driver = describe(torch.device("cpu"))
    assert name
    assert "\n" not in name
    assert driver is None
