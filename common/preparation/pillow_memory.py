"""Looking at an image's pixels where Pillow keeps them.

Pillow shows its memory through Arrow's C data interface. Of this a few fields are read here, by
hand: Arrow's own library would take 45 MB in each process that prepares images.
"""

import ctypes

import numpy as np
from PIL import Image


class _ArrowArray(ctypes.Structure):
    """The interface's struct of that name."""


_ArrowArray._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers")),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
]

_address_in = ctypes.pythonapi.PyCapsule_GetPointer
_address_in.restype, _address_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class _Memory:
    """What NumPy makes an array of that keeps the image's memory in use."""

    def __init__(self, image: Image.Image):
        self._capsules = image.__arrow_c_array__()
        array = _ArrowArray.from_address(_address_in(self._capsules[1], b"arrow_array"))
        shape = (image.height, image.width, 4)
        size = image.height * image.width * 4
        if array.n_children != 1 or (pixels := array.children[0].contents).length != size:
            raise ValueError("not four bytes a pixel")
        read_only = True
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": shape,
            "data": (pixels.buffers[1], read_only),
        }


def pixels_in_place(image: Image.Image) -> np.ndarray | None:
    """The pixels of a loaded RGB image, without a copy.

    Args:
        image: of mode `RGB`; not to be changed as long as the result is in use.

    Returns:
        uint8 `[h, w, 4]`, read-only, the last channel meaning nothing; None if Pillow has the
        image in several pieces (of more than 16 MB), with padded rows, or is too old to show it.
    """
    if Image.core.get_alignment() != 1:  # PILLOW_ALIGNMENT; Pillow 12 says nothing of the padding
        return None
    try:
        return np.asarray(_Memory(image))
    except (ValueError, AttributeError):
        return None
