"""How fast a stage gets on, and how long the rest takes at that rate."""

from __future__ import annotations


class Pace:
    """The mean rate between the first count that was seen and the last one that was new. Times are in seconds."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    def see(self, done: int, now: float) -> None:
        """Takes a count at a time. After a count that fell (training went back to a checkpoint) it begins anew."""
        if self._last is None or done < self._last[1]:
            self._first = self._last = (now, done) if done else None
        elif done > self._last[1]:
            self._last = (now, done)

    @property
    def rate(self) -> float | None:
        """Of a second; None before a second count."""
        if self._first is None or self._last is None or self._last[1] == self._first[1]:
            return None
        return (self._last[1] - self._first[1]) / max(self._last[0] - self._first[0], 1e-9)

    def left_s(self, total: int, now: float) -> float | None:
        """Seconds to the end; None while there is no rate. While nothing moves it falls, down to the time of all that
        is left but one, and never grows."""
        if self.rate is None or self._last is None:
            return None
        when, done = self._last
        return max((total - done) / self.rate - (now - when), (total - done - 1) / self.rate, 0.0)
