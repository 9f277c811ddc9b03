from __future__ import annotations

import numpy as np
import pytest

from pgb_core.figures import checkpoint
from pgb_core.spectra import DECOMPOSED, RANKS, MatrixSpectrum, Spectra


def some(layers: int) -> Spectra:
    decay = tuple(float(value) for value in np.linspace(1, 0.1, len(RANKS)))
    spectra = []
    for layer in range(layers):
        plain = {name: MatrixSpectrum(0.01 * (layer + 1)) for name in checkpoint.TITLES}
        spectra.append(plain | {name: MatrixSpectrum(0.02, decay, 0.5) for name in DECOMPOSED})
    return spectra


@pytest.mark.parametrize("layers", [1, 2, 12, 24])
def test_every_layer_has_its_line_and_its_point(layers: int) -> None:
    sizes = checkpoint.sizes(some(layers))
    assert [trace.name for trace in sizes.data] == list(checkpoint.TITLES.values())
    assert all(tuple(trace.x) == tuple(range(1, layers + 1)) for trace in sizes.data)
    decay = checkpoint.decay(some(layers), "value")
    lines = [trace for trace in decay.data if trace.mode == "lines"]
    assert [line.name for line in lines] == [str(layer + 1) for layer in range(layers)]
    assert lines[0].y[0] == 100.0
    assert lines[0].x[-1] == 100.0
    assert len({line.line.color for line in lines}) == layers


@pytest.mark.parametrize("figure", [checkpoint.sizes(some(24)), checkpoint.decay(some(24), "value")])
def test_a_picture_is_small(figure) -> None:  # type: ignore[no-untyped-def]
    assert len(figure.to_json()) < 100_000


def test_the_tables_say_the_same() -> None:
    rows = checkpoint.table(some(3))
    assert [row["layer"] for row in rows] == [1, 2, 3]
    assert rows[1]["query"] == pytest.approx(0.02)
    assert rows[0]["value: directions with 90% of the squares"] == 0.5
    decay = checkpoint.decay_table(some(3), "value")
    assert [row["directions"] for row in decay] == list(RANKS)
    assert decay[0]["layer 3"] == 1.0


def test_what_was_not_decomposed_has_no_column() -> None:
    spectra = [layer | {"value": MatrixSpectrum(0.02)} for layer in some(2)]
    names = [name for name in checkpoint.table(spectra)[0] if "directions" in name]
    assert names == ["intermediate: directions with 90% of the squares"]
