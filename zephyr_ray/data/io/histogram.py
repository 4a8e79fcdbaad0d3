"""A small histogram of integers that merges with others and answers quantiles."""

from __future__ import annotations

from collections import Counter

import numpy as np

_EXACT_BITS = 11  # below 2048 every value has its own bin; above, a bin is narrower than 0.1 % of its value


class Histogram:
    """Counts of non-negative integers. Sum, minimum and maximum are exact, quantiles to a bin; its size is bounded."""

    def __init__(self) -> None:
        self.bins: Counter[int] = Counter()
        self.sum, self.low, self.high = 0, 0, 0

    def count(self, values: np.ndarray) -> None:
        """Adds values (non-negative integers)."""
        if not len(values):
            return
        values = values.astype(np.int64)
        low, high = int(values.min()), int(values.max())
        self._widen(low, high)
        self.sum += int(values.sum())
        _, exponents = np.frexp(values.astype(np.float64))  # bit lengths
        shifts = np.maximum(exponents - _EXACT_BITS, 0)
        bins, counts = np.unique((values >> shifts) << shifts, return_counts=True)
        self.bins.update(dict(zip(bins.tolist(), counts.tolist(), strict=True)))

    def add(self, other: Histogram) -> None:
        """Adds everything that another one has counted."""
        if other.bins:
            self._widen(other.low, other.high)
            self.sum += other.sum
            self.bins.update(other.bins)

    def quantile(self, share: float) -> int:
        """The smallest value that at least this share of the values does not exceed; 0 where there are none."""
        wanted, seen = share * self.bins.total(), 0
        for value in sorted(self.bins):
            seen += self.bins[value]
            if seen >= wanted:
                return max(self.low, value)
        return 0

    def summary(self) -> dict[str, float]:
        """Plain numbers for a manifest."""
        count = self.bins.total()
        quantiles = {f"p{percent}": self.quantile(percent / 100) for percent in (50, 90, 99)}
        return {
            "count": count,
            "sum": self.sum,
            "nonzero": count - self.bins[0],
            "mean": self.sum / count if count else 0.0,
            "min": self.low,
            **quantiles,
            "max": self.high,
        }

    def _widen(self, low: int, high: int) -> None:
        self.low = min(self.low, low) if self.bins else low
        self.high = max(self.high, high) if self.bins else high
