"""What reports read of proofs and benchmarks: schemas, so that a damaged file is told before anything is written.

Each names what is read; what else a file holds is kept.
"""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trained_binarization.study import FULL_PRECISION, METHOD

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]


class _Content(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Layer(_Content):
    """One binary convolution: sums compared, and how many of them differ."""

    sums: int
    differing: int


class Proof(_Content):
    """An exported network beside the framework's; accuracies in percent."""

    layers: list[Layer]
    images: int
    accuracy_framework: float
    accuracy_exported: float
    differences: list[object]


class Deployed(_Content):
    """results/<study>/deploy/<network>/deploy.json."""

    weights_sha256: Hash
    status: str  # "exported", or why not
    image_size: Annotated[int, Field(ge=1)] | None = None
    files: dict[FileName, Hash] = Field(default_factory=dict)
    bytes: dict[FileName, int] = Field(default_factory=dict)
    proof: Proof | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.status == "exported" and not (self.bytes and self.proof and self.image_size):
            raise ValueError("exported without bytes or proof or image_size")
        if self.files.keys() != self.bytes.keys():
            raise ValueError("files and bytes do not name the same files")
        return self


class Spread(_Content):
    """Of repeated measurements."""

    median: float
    least: float
    most: float


class Milliseconds(_Content):
    """Of a call."""

    median: float
    low: float = Field(alias="5 %")
    high: float = Field(alias="95 %")


class Engine(_Content):
    """One engine's row of the inference benchmark."""

    engine: str
    threads: int
    batch: int
    milliseconds: Milliseconds
    images_per_second: float
    times_ours: Spread
    file_bytes: int
    peak_memory_bytes: int


class Inference(_Content):
    """results/benchmarks/inference.json."""

    study: str
    network: str
    device: str
    instructions: list[str]
    rounds: int
    commit: str
    packages: dict[str, str]
    measured: list[Engine]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if missing := {"openvino", "onnxruntime", "torch"} - self.packages.keys():
            raise ValueError(f"packages without {min(missing)}")
        return self


class Loading(_Content):
    """How fast images were loaded, by the way of loading."""

    workers: int
    size: int
    bytes_an_image: float
    images_per_second: dict[str, Spread]
    times_stock: dict[str, Spread]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        ways = self.images_per_second.keys()
        if not {"stock", "ours"} <= ways or not ways - {"stock"} <= self.times_stock.keys():
            raise ValueError("no speed and ratio of stock and ours")
        return self


class NetworkTraining(_Content):
    """How fast a network was trained, images a second."""

    network: str
    training: str
    images_per_second: Spread


class ImageNet(_Content):
    """results/benchmarks/imagenet-DEVICE.json."""

    device: str
    threads: int
    commit: str
    loading: Loading
    training: list[NetworkTraining]


class Speed(_Content):
    """Images a second by this engine."""

    engine: Spread


class SmallTraining(_Content):
    """How fast VGG-Small was trained."""

    training: str
    images_per_second: Speed


class Training(_Content):
    """results/benchmarks/training-DEVICE.json."""

    trainings: list[SmallTraining]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not {FULL_PRECISION, METHOD} <= {row.training for row in self.trainings}:
            raise ValueError("no speed of both trainings")
        return self
