"""The two exact picture operations of the data preparation (specification, section 5)."""

from PIL import Image


def centre_crop(picture: Image.Image, size: int) -> Image.Image:
    """Cuts the `size` x `size` square at ((h - size) // 2, (w - size) // 2) out of a picture."""
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def halve(picture: Image.Image) -> Image.Image:
    """Shrinks a picture of even sides to one half: the rounded mean of each 2x2 block.

    This is, byte for byte, what OpenCV's `INTER_LINEAR`, the original's choice, gives at exactly
    one half. Pillow's own bilinear resize antialiases and gives other pictures.
    """
    return picture.reduce(2)
