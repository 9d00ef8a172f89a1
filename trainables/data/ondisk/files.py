"""Readers of the file types the field keeps its data in. Each says in one line what is wrong with a file, by its path
relative to the data folder; none of them runs anything that a file brings along."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from trainables.data.ondisk.root import DataRoot
from trainables.errors import DataError

Size = tuple[int, int]
"""(H, W) in pixels."""

LARGEST_SIDE = 16384
"""Most pixels of one side of an image or array; a header that claims more is damaged."""

_MODES = {
    "1": "1-bit",
    "L": "8-bit grey",
    "P": "8-bit palette",
    "RGB": "8-bit RGB",
    "RGBA": "8-bit RGBA",
    "LA": "8-bit grey with alpha",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
    "I": "32-bit grey",
    "F": "32-bit floating point",
    "CMYK": "CMYK",
}


def read_image(root: DataRoot, relative: str, modes: Sequence[str] = ("RGB",), size: Size | None = None) -> np.ndarray:
    """Decode a PNG or JPEG.

    Args:
        root: the data folder.
        relative: the file, below it.
        modes: Pillow's names of the pixel types that are right: ``RGB``, ``L``, ``P`` (its indices are given),
            ``I;16``, ``1``.
        size: (H, W) it has to have.

    Returns:
        (H, W) or (H, W, C): uint8; uint16 for ``I;16``; uint8 0 or 1 for ``1``.

    Raises:
        DataError: the file is missing, damaged, no PNG or JPEG, of another pixel type or size.
    """
    data = root.read(relative)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if max(image.size) > LARGEST_SIDE:
                raise root.error(relative, f"it claims to be {image.width}x{image.height} pixels")
            if image.mode not in modes:
                wanted = " or ".join(dict.fromkeys(_MODES.get(mode, mode) for mode in modes))
                raise root.error(relative, f"{wanted} is wanted, it is {_MODES.get(image.mode, image.mode)}")
            array = np.asarray(image)
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError):
        raise root.error(relative, "it is damaged: no whole PNG or JPEG") from None
    _fits(root, relative, array, size)
    return array.astype(np.uint8) if array.dtype == bool else array


def read_npy(
    root: DataRoot, relative: str, kinds: str = "f", ndim: Sequence[int] = (2,), size: Size | None = None
) -> np.ndarray:
    """Load an ``.npy`` array; pickled objects are refused.

    Args:
        root: the data folder.
        relative: the file, below it.
        kinds: numpy's letters of the kinds of number that are right: ``f`` floating point, ``u`` and ``i`` integers,
            ``b`` truth values.
        ndim: numbers of axes that are right.
        size: (H, W) the first two axes have to have.

    Returns:
        The array as stored.

    Raises:
        DataError: the file is missing, damaged, pickled, of another type or shape.
    """
    data = root.read(relative)
    try:
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        # A header may claim any size; what follows it is what there is.
        if dtype.hasobject or len(data) - stream.tell() != int(np.prod(shape, dtype=object)) * dtype.itemsize:
            raise ValueError
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error):
        raise root.error(relative, "it is damaged: no whole .npy array of numbers") from None
    if array.dtype.kind not in kinds:
        raise root.error(relative, f"an array of another type is wanted, it is {array.dtype}")
    if array.ndim not in ndim:
        raise root.error(relative, f"{' or '.join(map(str, ndim))} axes are wanted, it has shape {array.shape}")
    _fits(root, relative, array, size)
    return array


def read_mat(root: DataRoot, relative: str, variable: str) -> Any:
    """One variable of a MATLAB file (up to version 7.2), as :func:`scipy.io.loadmat` gives it.

    Raises:
        DataError: the file is missing or damaged, or has no such variable.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    data = root.read(relative)
    try:
        found = loadmat(io.BytesIO(data), variable_names=[variable])
    except NotImplementedError:
        raise root.error(relative, "it is a MATLAB file of version 7.3; an earlier one is wanted") from None
    except (MatReadError, OSError, ValueError, TypeError, EOFError, IndexError, KeyError, struct.error, zlib.error):
        raise root.error(relative, "it is damaged: no whole MATLAB file") from None
    if variable not in found:
        raise root.error(relative, f"it has no variable '{variable}'")
    return found[variable]


def read_mat_array(root: DataRoot, relative: str, variable: str, size: Size | None = None) -> np.ndarray:
    """A (H, W) array of numbers from a MATLAB file.

    Raises:
        DataError: as :func:`read_mat`, or the variable is no such array, or not of ``size``.
    """
    array = read_mat(root, relative, variable)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif" or array.ndim != 2:
        raise root.error(relative, f"'{variable}' is not a matrix of numbers")
    _fits(root, relative, array, size)
    return array


def _fits(root: DataRoot, relative: str, array: np.ndarray, size: Size | None) -> None:
    if size is not None and array.shape[:2] != size:
        height, width = array.shape[:2] if array.ndim >= 2 else (0, 0)
        raise root.error(relative, f"{size[1]}x{size[0]} pixels are wanted, it has {width}x{height}")
