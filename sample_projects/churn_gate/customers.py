"""Customers of a telephone company, made up: who leaves depends on contract, age of the contract, price and calls."""

import numpy as np
import pandas as pd

COLUMNS = ("months", "price", "support_calls", "yearly_contract")
LEFT = "left"


def make(number: int, seed: int) -> pd.DataFrame:
    """Return so many customers, the same for the same seed: a row each, with ``left`` 0 or 1."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame({
        "months": random.integers(1, 73, number),
        "price": random.normal(65, 25, number).clip(15, 150).round(2),
        "support_calls": random.poisson(1.2, number),
        "yearly_contract": random.integers(0, 2, number),
    })  # fmt: skip
    pull = -1.2 - 0.05 * table.months + 0.025 * table.price + 0.7 * table.support_calls - 1.5 * table.yearly_contract
    table[LEFT] = (random.random(number) < 1 / (1 + np.exp(-pull))).astype(int)
    return table
