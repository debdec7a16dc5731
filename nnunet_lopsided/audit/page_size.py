"""How many pictures a page can hold and still open: how many slices around each candidate, and how many candidates."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_lopsided.errors import InputError

# Cards of a page; a browser takes seconds to open more, and no reader gets to its end.
MOST_SHOWN = 5000
# Pixels of all pictures, about a byte each: slices around the candidates are left out beyond the first number, and
# candidates beyond the second.
_WITH_SLICES, _AT_MOST = 64 * 2**20, 192 * 2**20
MOST_BESIDE = 5


def check_shown(n: int) -> None:
    """Refuse more candidates than a page can show.

    Raises:
        InputError: the number is negative or too large.
    """
    if n < 0:
        raise InputError(f"--shown must be at least 0, got {n}")
    if n > MOST_SHOWN:
        raise InputError(
            f"--shown must be at most {MOST_SHOWN}, got {n}: a browser opens no larger page; audit.csv lists all "
            "candidates, and lopsided-audit export writes them for a viewer"
        )


def planned_pictures(centre: Sequence[int], beside: Sequence[int]) -> tuple[int, int]:
    """How many candidates the page shows, and how many slices on each side of them.

    Args:
        centre: pixels of the pictures of each candidate without further slices, in all channels.
        beside: pixels of one further slice of each, in all channels.

    Returns:
        Candidates, and slices on each side, at most :data:`MOST_BESIDE`.

    Example:
        >>> planned_pictures([12_000] * 200, [4_000] * 200), planned_pictures([12_000] * 2000, [4_000] * 2000)
        ((200, 5), (2000, 2))
        >>> planned_pictures([200_000] * 2000, [0] * 2000)
        (1006, 5)
    """
    n, total = 0, 0
    for pixels in centre:
        total += pixels
        if total > _AT_MOST:
            total -= pixels
            break
        n += 1
    of_slices = 2 * sum(beside[:n])
    room = max(0, _WITH_SLICES - total)
    return n, min(MOST_BESIDE, room // of_slices) if of_slices else MOST_BESIDE
