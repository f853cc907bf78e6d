"""Which problems are for evaluation alone."""

import hashlib
from typing import Literal

Split = Literal["train", "held_out"]
HELD_OUT_SHARE = 10
"""One problem in so many is held out."""


def is_kept_back(content: str, share: int = HELD_OUT_SHARE) -> bool:
    """Whether a problem of this content is of the held-out split, one in `share`: decided by a hash of it alone."""
    return hashlib.blake2b(content.encode(), digest_size=4).digest()[0] % share == 0
