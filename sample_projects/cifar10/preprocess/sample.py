"""A small data set that is drawn here: ten shapes, each with a colour. It needs no network and takes a second."""

import colorsys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from batches import SIDE, BatchWriter

TITLE = "sample of drawn shapes"
TRAIN, TEST = 800, 200
SEED = 20260101

Mask = Callable[[np.ndarray, np.ndarray, float], np.ndarray]

#: name -> where the shape is, for coordinates around its centre and its radius
SHAPES: dict[str, Mask] = {
    "disc": lambda x, y, r: x**2 + y**2 < r**2,
    "square": lambda x, y, r: np.maximum(abs(x), abs(y)) < 0.85 * r,
    "triangle": lambda x, y, r: (y < 0.8 * r) & (y > 2 * abs(x) - r),
    "cross": lambda x, y, r: (np.minimum(abs(x), abs(y)) < 0.3 * r) & (np.maximum(abs(x), abs(y)) < r),
    "ring": lambda x, y, r: (x**2 + y**2 < r**2) & (x**2 + y**2 > (0.6 * r) ** 2),
    "diamond": lambda x, y, r: abs(x) + abs(y) < r,
    "horizontal bar": lambda x, y, r: (abs(y) < 0.35 * r) & (abs(x) < 1.2 * r),
    "vertical bar": lambda x, y, r: (abs(x) < 0.35 * r) & (abs(y) < 1.2 * r),
    "saltire": lambda x, y, r: (np.minimum(abs(x - y), abs(x + y)) < 0.4 * r) & (np.maximum(abs(x), abs(y)) < r),
    "half disc": lambda x, y, r: (x**2 + y**2 < r**2) & (y > 0),
}


def write_sample(folder: Path) -> None:
    """Write the data set in the format of CIFAR-10; it is the same each time."""
    writer = BatchWriter(folder, TITLE, list(SHAPES))
    random = np.random.default_rng(SEED)
    for split, count in (("train", TRAIN), ("test", TEST)):
        labels = random.permutation(np.arange(count) % len(SHAPES))
        images = np.stack([_draw(random, int(label)) for label in labels])
        names = [f"{list(SHAPES)[label].replace(' ', '_')}_{index:04d}.png" for index, label in enumerate(labels)]
        writer.add(split, images, labels.tolist(), names)


def _draw(random: np.random.Generator, label: int) -> np.ndarray:
    """Return one picture (32, 32, 3): place, size, shade and noise are by chance."""
    hue = (label / len(SHAPES) + random.normal(0, 0.015)) % 1.0
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue, random.uniform(0.8, 1.0), random.uniform(0.8, 1.0)))
    x0, y0 = random.uniform(11, 21, 2)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    mask = list(SHAPES.values())[label](x - x0, y - y0, random.uniform(8, 11))
    image = np.full((SIDE, SIDE, 3), random.uniform(30, 120))
    image[mask] = colour
    return np.clip(image + random.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
