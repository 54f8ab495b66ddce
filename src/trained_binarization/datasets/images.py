"""What every data set is, once read."""

from dataclasses import dataclass

from torch import Tensor

from trained_binarization.errors import UserError


@dataclass(frozen=True)
class Images:
    """Train and test images, uint8 (N, H, W, 3), with labels, int64 (N,); the checksum names their every byte."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    checksum: str
    files: dict[str, str]
    classes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return self.train_images.shape[1]

    def split(self, validation: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """((images, labels) to train on, (images, labels) to score).

        With validation > 0 the last that many training images are held out and scored, and the test set is not used.
        """
        if validation >= len(self.train_labels):
            raise UserError(
                f"dataset.validation: found {validation}; allowed: 0 to {len(self.train_labels) - 1}, "
                "fewer than the training images"
            )
        if not validation:
            return (self.train_images, self.train_labels), (self.test_images, self.test_labels)
        kept = len(self.train_labels) - validation
        train = (self.train_images[:kept], self.train_labels[:kept])
        return train, (self.train_images[kept:], self.train_labels[kept:])
