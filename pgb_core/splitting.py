"""Which rows are trained on and which are held out, with the labels in the same proportions on both sides.

Importing this module imports neither torch nor pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pgb_core.data_files import LABEL
from pgb_core.errors import TaskError

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT = 0.2


def split_in_three(
    table: pd.DataFrame, train_rows: int, held_out_rows: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """`train_rows` rows, `held_out_rows` rows and the others, each with the labels in the proportions of the whole."""
    from pgb_core.batching import stratified_positions

    held_out = stratified_positions(table[LABEL].tolist(), held_out_rows, seed)
    others = table.drop(index=held_out)
    train = others.iloc[stratified_positions(others[LABEL].tolist(), train_rows, seed)]
    return train, table.loc[held_out], others.drop(index=train.index)


def hold_out(table: pd.DataFrame, seed: int, what: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out a fifth of each label, rounded; a label with one or two examples stays in the training part.

    Of values, a fifth of each of their `batching.strata`.

    Raises:
        TaskError: there are too few rows in `what`.
    """
    from pgb_core.batching import strata

    generator = np.random.default_rng(seed)
    labels = strata(table[LABEL].tolist())
    held_out = np.zeros(len(table), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held_out[generator.permutation(members)[: round(HELD_OUT * len(members))]] = True
    if not held_out.any():
        raise TaskError(
            f"{what} has too few rows to hold a fifth out; give an evaluation file or at least 3 per label."
        )
    return table[~held_out], table[held_out]
