"""A latency table of any shape with made up times: in proportion to the work, and a little for each group."""

from __future__ import annotations

from pathlib import Path

from pgb_core import latency_table
from pgb_core.latency_table import Form, LatencyTable, Setup
from pgb_core.layout import Kind

SIZES = {"layers": 2, "hidden": 32, "heads": 4, "neurons": 64}


def sample_table(sizes: dict[str, int] = SIZES) -> LatencyTable:
    setup = Setup(latency_table.machine(), "cpu", 2, 8, 128, **sizes)

    def forms(units: int, whole: float) -> tuple[Form, ...]:
        counts = tuple(sorted({4, units // 4, units // 2, units}))
        return tuple(
            Form(groups, fill, counts, tuple(whole * (fill * n / units + 0.02 * groups) for n in counts))
            for groups, fill in ((1, 1.0), (2, 0.5), (2, 0.78125), (3, 1 / 3), (4, 0.25))
        )

    whole = sizes["hidden"] ** 2 / 2e4
    kinds: dict[Kind, tuple[Form, ...]] = {
        "attention": forms(sizes["heads"], whole),
        "feed_forward": forms(sizes["neurons"], 2 * whole),
    }
    return LatencyTable(setup, 1e9, 3.1 * whole * sizes["layers"] + 6, 6.0, 0.06, kinds)


def keep_sample_table(cache_dir: Path, sizes: dict[str, int] = SIZES) -> LatencyTable:
    table = sample_table(sizes)
    latency_table.write(table, cache_dir)
    return table
