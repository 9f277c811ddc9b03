"""Colors that can be told apart, also with the common color blindnesses."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from pgb_core.figures.style import DENSE, METHODS
from pgb_core.spec import METHODS as NAMES

# Machado, Oliveira, Fernandes, A Physiologically-based Model for Simulation of Color Vision Deficiency, 2009
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color: str, vision: str) -> NDArray[np.float64]:
    """CIELAB of a hex color as it is seen."""
    srgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(TO_XYZ @ np.clip(VISIONS[vision] @ linear, 1e-3, 1) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISIONS)
def test_the_colors_of_any_two_methods_are_told_apart(vision: str) -> None:
    colors = {**{name: color for name, (color, _) in METHODS.items()}, "dense": DENSE}
    for (first, a), (second, b) in combinations(colors.items(), 2):
        assert np.linalg.norm(lab(a, vision) - lab(b, vision)) > 20, f"{first} and {second}"


def test_every_method_has_a_color_and_a_symbol_of_its_own() -> None:
    assert list(METHODS) == list(NAMES)
    assert len({symbol for _, symbol in METHODS.values()}) == len(METHODS)
