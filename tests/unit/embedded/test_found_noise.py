"""What cleaning found is counted by hand: each kind mended and not, a copy in its original's place, a false drop."""

from __future__ import annotations

from typing import Any

from zephyr_ray.embedded import conversations, noise
from zephyr_ray.embedded.found_noise import Count, found
from zephyr_ray.embedded.noise import Row

A, B, C, D, E, F, G, H = conversations.dialogues(8, 0)
ROWS = [
    Row(A, None, A),
    Row(A, "duplicate", A),
    Row(B, None, B),
    Row(C, "near_duplicate", B),
    Row(D, "wrong_case", E),
    Row(F, "wrong_case", G),
    Row(H, "disclaimer", H),
    Row(D, "benchmark", D),
    Row(C, None, C),
    Row(G, None, G),
]


def kept(place: int, messages: Any) -> dict[str, Any]:
    return {"source": f"module:function:{place + 1}", "messages": messages}


def dropped(place: int, reason: str) -> dict[str, Any]:
    return {"source": f"module:function:{place + 1}", "reason": reason}


def test_counts() -> None:
    seen = found(
        ROWS,
        [kept(1, A), kept(2, B), kept(3, C), kept(4, E), kept(5, F), kept(9, H)],
        [dropped(0, "repeated"), dropped(6, "refusal"), dropped(7, "near_duplicate"), dropped(8, "repetitive")],
    )
    assert seen.planted == {
        "wrong_case": Count(2, 1),
        "disclaimer": Count(1, 1),
        "benchmark": Count(1, 0),  # it went for another reason
        "duplicate": Count(1, 1),  # its original went
        "near_duplicate": Count(1, 0),  # both stay
    }
    assert seen.dropped == Count(2, 1)  # C and G: A and B have a copy that stays
    assert seen.changed == Count(1, 1)


def test_a_row_that_goes_with_its_copy_is_a_false_drop() -> None:
    rows = [Row(A, None, A), Row(A, "duplicate", A)]
    seen = found(rows, [], [dropped(0, "repeated"), dropped(1, "repeated")])
    assert seen.planted["duplicate"] == Count(1, 0)
    assert seen.dropped == Count(1, 1)
    assert set(seen.planted) == set(noise.SHARES)
