"""Storage states to measure with: seeded, of the entropy that real ones have.

Real states are made of tokens, ids and timestamps (which do not compress) and of JSON in localStorage (which does). Made
of `"x" * n` they would flatter every compressor. At 20 KB these shrink to about 0.4 of their size under zstd, level 1.
"""

from __future__ import annotations

import base64
import json
import random
import uuid
from typing import Any, Final

SIZES: Final = {"2 KB": 2_000, "20 KB": 20_000, "200 KB": 200_000, "2 MB": 2_000_000}
_NOW: Final = 1_790_000_000
_COOKIE_BYTES: Final = 60_000
"""Browsers keep few cookies: what is above this lives in localStorage."""
_SITES: Final = ("shop.example", "accounts.example", "mail.example", "crm.example", "travel.example", "docs.example")
_COOKIES: Final = (
    "sessionid",
    "csrftoken",
    "_ga",
    "_fbp",
    "cf_clearance",
    "auth_token",
    "refresh_token",
    "locale",
    "ab",
)
_WORDS: Final = (
    "account", "basket", "cart", "checkout", "click", "column", "currency", "dashboard", "delivery", "discount",
    "event", "experiment", "filter", "history", "item", "language", "layout", "invoice", "notification", "order",
    "page", "payment", "price", "profile", "query", "search", "setting", "shipping", "status", "theme",
)  # fmt: skip


def made_state(size: int, seed: int = 1) -> dict[str, Any]:
    """Return a storage state of about `size` bytes of JSON. The same for the same seed."""
    return _Maker(random.Random(seed)).state(size)


class _Maker:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def state(self, size: int) -> dict[str, Any]:
        cookies = self._filled(self._cookie, min(size // 2, _COOKIE_BYTES))
        left = size - _length(cookies)
        count = max(1, min(8, left // 1_000))
        origins = [
            {
                "origin": f"https://{_SITES[n % len(_SITES)]}:{8443 + n}",
                "localStorage": self._filled(self._item, left // count),
            }
            for n in range(count)
        ]
        return {"cookies": cookies, "origins": origins}

    @staticmethod
    def _filled(make: Any, size: int) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        while size > 0:
            made.append(make())
            size -= _length(made[-1]) + 1
        return made

    def _cookie(self) -> dict[str, Any]:
        chance = self._chance
        return {
            "name": f"{chance.choice(_COOKIES)}_{chance.randbytes(2).hex()}",
            "value": chance.choices((self._token, self._id, self._analytics), (5, 3, 2))[0](),
            "domain": f".{chance.choice(_SITES)}",
            "path": "/",
            "expires": -1
            if chance.random() < 0.25
            else _NOW + chance.randrange(34_560_000) + round(chance.random(), 6),
            "httpOnly": chance.random() < 0.5,
            "secure": chance.random() < 0.8,
            "sameSite": chance.choice(("Lax", "Lax", "None", "Strict")),
        }

    def _item(self) -> dict[str, str]:
        chance = self._chance
        name = f"{chance.choice(_WORDS)}.{chance.choice(_WORDS)}.{chance.randrange(1000)}"
        return {"name": name, "value": chance.choices((self._record, self._signed, self._id), (6, 2, 2))[0]()}

    def _token(self) -> str:
        return base64.urlsafe_b64encode(self._chance.randbytes(self._chance.choice((18, 32, 48, 96)))).decode()

    def _id(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))

    def _analytics(self) -> str:
        return f"GA1.2.{self._chance.randrange(10**9)}.{_NOW - self._chance.randrange(10**7)}"

    def _signed(self) -> str:
        claims = {
            "sub": self._id(),
            "iat": _NOW,
            "exp": _NOW + 3600,
            "iss": "https://login.example/",
            "sid": self._id(),
        }
        parts = ({"alg": "RS256", "typ": "JWT"}, claims)
        encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        signature = base64.urlsafe_b64encode(self._chance.randbytes(256)).decode().rstrip("=")
        return ".".join((*encoded, signature))

    def _record(self) -> str:
        chance = self._chance
        items = [
            {
                "sku": chance.randrange(10**8),
                "title": " ".join(chance.choices(_WORDS, k=5)),
                "price": chance.randrange(10**4),
            }
            for _ in range(chance.randrange(1, 6))
        ]
        return json.dumps({"id": self._id(), "updatedAt": _NOW * 1000 + chance.randrange(10**9), "items": items})


def _length(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":")))
