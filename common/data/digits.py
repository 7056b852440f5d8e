"""scikit-learn's handwritten digits as a small real data set that needs no download."""

import numpy as np
from PIL import Image

from common.data.dataset import Request
from common.data.source import ImageSource
from common.errors import UserError

_SIZE = 32


def open_sklearn(request: Request) -> ImageSource:
    """Opens a route: `load_digits`, with its labels."""
    images, labels = load_digits()
    return request.source(images, labels=labels)


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Loads the 1,797 digits (8x8, 17 grey levels), enlarged for the 32x32 networks.

    Pixels 0..16 become 0..255, rounded, and are enlarged by Pillow's bicubic filter; the three
    colour channels are equal. The result is the same at every call.

    Returns:
        Images, uint8 `[1797, 32, 32, 3]`, values 0..255, and labels, int64 `[1797]`, values 0..9.

    Raises:
        UserError: scikit-learn, an optional extra, is not installed.
    """
    try:
        from sklearn import datasets  # noqa: PLC0415 (optional, and slow to import)
    except ImportError as error:
        raise UserError(
            f"data set digits: scikit-learn cannot be imported ({error}). "
            "Install it: pip install -e '.[demo]'"
        ) from error
    digits = datasets.load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return np.stack([_enlarge(digit) for digit in grey]), digits.target.astype(np.int64)


def _enlarge(grey: np.ndarray) -> np.ndarray:
    """Enlarges uint8 [8, 8] to uint8 [32, 32, 3]."""
    image = Image.fromarray(grey).resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)
    return np.asarray(image.convert("RGB"))
