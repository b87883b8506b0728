"""Names and times, as the engine writes them. Both are functions of the history alone."""

import hashlib
from datetime import datetime, timezone

# Digits and letters that nobody mistakes for each other.
_DIGITS = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def derived(domain, *parts):
    """22 digits that depend on the domain, on all parts, and on where one part ends."""
    digest = hashlib.sha256()
    for part in (domain, *parts):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    number, digits = int.from_bytes(digest.digest()[:16], "big"), []
    for _ in range(22):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def rfc3339(time_ns):
    """A time in UTC, with as many digits as it needs."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    whole = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{nanos:09}".rstrip("0") if nanos else ""
    return f"{whole}{fraction}Z"
