"""Compression of stored states. Decompression stops at a limit."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Final, NamedTuple

from session_reuse.errors import CorruptStateError, MissingExtraError, UnreadableStateError

THRESHOLD: Final = 1024
"""Bytes below which a state is stored uncompressed."""

_ZSTD_LEVEL: Final = 1
_TOO_LARGE: Final = "larger than max_state_bytes of this process"


class Compressor(NamedTuple):
    """One algorithm: its one-letter flag in the header, and both directions."""

    flag: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]


@cache
def compressor(name: str) -> Compressor:
    """Return the algorithm with this name. `auto` is the best one installed.

    Raises:
        MissingExtraError: the algorithm needs the extra `compression`.
    """
    if name != "auto":
        return _FACTORIES[name]()
    for best in ("zstd", "lz4"):
        with suppress(MissingExtraError):
            return compressor(best)
    return compressor("zlib")


def decompress(flag: str, data: bytes, limit: int) -> bytes:
    """Return the decompressed data.

    Raises:
        UnreadableStateError: an unknown flag, more than `limit` bytes, or an algorithm that is not installed.
        CorruptStateError: the data is damaged.
    """
    name = NAMES.get(flag)
    if name is None:
        raise UnreadableStateError("compressed in a way that only a newer version knows")
    try:
        return compressor(name).decompress(data, limit)
    except MissingExtraError as error:
        raise UnreadableStateError(f"compressed with {name}: {error}") from None


def _zstd() -> Compressor:
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError("compression", "zstd compression") from None

    class Contexts(threading.local):
        """A pair for each thread."""

        # To make a pair costs as much as to use it, and two threads cannot share one.
        def __init__(self) -> None:
            self.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
            self.decompressor = zstandard.ZstdDecompressor()

    contexts = Contexts()

    def compress(data: bytes) -> bytes:
        return contexts.compressor.compress(data)

    def decompress(data: bytes, limit: int) -> bytes:
        try:
            size = zstandard.frame_content_size(data)
            if size < 0:
                raise CorruptStateError("the compressed state has no size")
            if size > limit:  # before memory is allocated for it
                raise UnreadableStateError(_TOO_LARGE)
            return contexts.decompressor.decompress(data, max_output_size=limit)
        except zstandard.ZstdError:
            raise CorruptStateError("the compressed state is damaged") from None

    return Compressor("z", compress, decompress)


def _lz4() -> Compressor:
    try:
        from lz4 import block
    except ImportError:
        raise MissingExtraError("compression", "lz4 compression") from None

    def decompress(data: bytes, limit: int) -> bytes:
        if len(data) < 4:
            raise CorruptStateError("the compressed state is damaged")
        if int.from_bytes(data[:4], "little") > limit:  # before memory is allocated for it
            raise UnreadableStateError(_TOO_LARGE)
        try:
            return bytes(block.decompress(data))
        except (block.LZ4BlockError, ValueError, MemoryError):
            raise CorruptStateError("the compressed state is damaged") from None

    return Compressor("l", lambda data: bytes(block.compress(data)), decompress)


def _zlib() -> Compressor:
    def decompress(data: bytes, limit: int) -> bytes:
        inflater = zlib.decompressobj()
        try:
            inflated = inflater.decompress(data, limit + 1)  # one byte more shows that it is too large
        except zlib.error:
            raise CorruptStateError("the compressed state is damaged") from None
        if len(inflated) > limit:
            raise UnreadableStateError(_TOO_LARGE)
        if not inflater.eof:
            raise CorruptStateError("the compressed state is cut off")
        return inflated

    return Compressor("d", lambda data: zlib.compress(data, 1), decompress)


def _identity(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise UnreadableStateError(_TOO_LARGE)
    return data


_FACTORIES: Final[dict[str, Callable[[], Compressor]]] = {
    "zstd": _zstd,
    "lz4": _lz4,
    "zlib": _zlib,
    "none": lambda: Compressor("-", bytes, _identity),
}
NAMES: Final = {"z": "zstd", "l": "lz4", "d": "zlib", "-": "none"}
