"""A small histogram of integers that merges with others and answers quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np

_EXACT_BITS = 11  # below 2048 every value has its own bin; above, a bin is narrower than 0.1 % of its value
_NONE = np.empty(0, np.int64)


class Histogram:
    """Counts of non-negative integers. Sum, minimum and maximum are exact, quantiles to a bin; its size is bounded."""

    def __init__(self) -> None:
        self._values, self._counts = _NONE, _NONE
        self.sum, self.low, self.high = 0, 0, 0

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Histogram:
        """What `state` was called on."""
        made = cls()
        made._values, made._counts = (np.array(state[name], np.int64) for name in ("values", "counts"))
        made.sum, made.low, made.high = state["sum"], state["low"], state["high"]
        return made

    def state(self) -> dict[str, Any]:
        """Everything that it has counted, as JSON values."""
        bins = {"values": self._values.tolist(), "counts": self._counts.tolist()}
        return bins | {"sum": self.sum, "low": self.low, "high": self.high}

    @property
    def bins(self) -> dict[int, int]:
        """How many values are in each bin that has some, by the bin's smallest possible value."""
        return dict(zip(self._values.tolist(), self._counts.tolist(), strict=True))

    def count(self, values: np.ndarray) -> None:
        """Adds values (non-negative integers)."""
        if not len(values):
            return
        values = values.astype(np.int64)
        self._widen(int(values.min()), int(values.max()))
        self.sum += int(values.sum())
        _, exponents = np.frexp(values.astype(np.float64))  # bit lengths
        shifts = np.maximum(exponents - _EXACT_BITS, 0)
        self._add_bins(*np.unique((values >> shifts) << shifts, return_counts=True))

    def add(self, other: Histogram) -> None:
        """Adds everything that another one has counted."""
        if len(other._values):
            self._widen(other.low, other.high)
            self.sum += other.sum
            self._add_bins(other._values, other._counts)

    def quantile(self, share: float) -> int:
        """The smallest value that at least this share of the values does not exceed; 0 where there are none."""
        seen = np.cumsum(self._counts)
        if not len(seen):
            return 0
        place = min(int(np.searchsorted(seen, share * int(seen[-1]))), len(seen) - 1)
        return max(self.low, int(self._values[place]))

    def summary(self) -> dict[str, float]:
        """Plain numbers for a manifest."""
        count = int(self._counts.sum())
        quantiles = {f"p{percent}": self.quantile(percent / 100) for percent in (50, 90, 99)}
        return {
            "count": count,
            "sum": self.sum,
            "nonzero": count - int(self._counts[self._values == 0].sum()),
            "mean": self.sum / count if count else 0.0,
            "min": self.low,
            **quantiles,
            "max": self.high,
        }

    def _add_bins(self, values: np.ndarray, counts: np.ndarray) -> None:
        joined = np.concatenate([self._values, values])
        self._values, places = np.unique(joined, return_inverse=True)
        total = np.zeros(len(self._values), np.int64)
        np.add.at(total, places, np.concatenate([self._counts, counts]))
        self._counts = total

    def _widen(self, low: int, high: int) -> None:
        self.low = min(self.low, low) if len(self._values) else low
        self.high = max(self.high, high) if len(self._values) else high
