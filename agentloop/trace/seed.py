"""Seeds by hash: what is drawn has a seed that depends on what it is and never on when it was drawn.

Seeds have 53 bits, which every engine takes and JSON keeps exactly.
"""

from __future__ import annotations

import hashlib
import json


def derive(seed: int, *path: str | int) -> int:
    """A seed below 2**53 that belongs to `path` under `seed`; different paths have independent seeds."""
    text = json.dumps([seed, *path], ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 11
