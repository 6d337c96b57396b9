"""A folder of sealed files, shared by the processes of one user.

Names are keyed hashes of fingerprints: the folder does not show which account is logged in where. A file is

    "SRQ1" | compression flag (1) | key id (8) | sealed(compressed(content))

and its seal covers the front and the file's own name, so that a file copied over another one does not open. Writing is
tmp + fsync + rename + fsync of the folder (0.9 ms, p95 41 ms under load, measured 2026-11-22): it blocks, call it in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from session_reuse._file_lock import FileLock
from session_reuse._state.compression import compressor, decompress
from session_reuse._state.sealing import AesGcm
from session_reuse.errors import CorruptStateError, UnreadableStateError

_MAGIC: Final = b"SRQ1"
_FRONT: Final = 13
_SUFFIX: Final = ".v2"
_OUTBOXES: Final = f"[!.]*{_SUFFIX}"
_BASE: Final = ".base2"
_HALF: Final = ".tmp"
_PLAIN_PREFIX: Final = "browser"
_BASE_LIFE: Final = 86400.0
"""Seconds for which a base stays at least: managers whose sessions live shorter share the folder with others."""
_TMP_LIFE: Final = 60.0
"""Seconds after which a half-written file is taken for one of a process that was killed."""
_LOCK_PATIENCE: Final = 1.0


class ForeignKeyError(Exception):
    """A file is sealed with a key that is not configured here. Another process may have it."""


def folder_for(folder: Path, key_prefix: str) -> Path:
    """Return the folder of a prefix in `spool_dir`: a save goes to the prefix that it was made for."""
    return folder if key_prefix == _PLAIN_PREFIX else folder / f"{quote(key_prefix, safe='')}.prefix"


def others_in(root: Path, key_prefix: str) -> int:
    """Return how many saves wait in `spool_dir` itself that are not of this prefix, or are of an earlier version."""
    return 0 if folder_for(root, key_prefix) == root else sum(1 for _ in root.glob(_OUTBOXES))


class Spool:
    """A folder of sealed files, shared by the processes of one user.

    Args:
        root: `spool_dir`, made with mode 0700 when it is not there.
        seal: seals with the first of its keys, opens with all.
        key_prefix: the prefix whose saves are kept.
        max_entries: how many outboxes there may be, and how many bases.
        max_bytes: how many bytes they may take together.
        max_content: largest content of a file, in bytes.
        ttl: seconds after which a session has expired, and its base is of no use.
        wall_clock: unix seconds.
    """

    def __init__(
        self, root: Path, seal: AesGcm, *, max_entries: int, max_bytes: int, max_content: int, ttl: float,
        key_prefix: str = _PLAIN_PREFIX, wall_clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.folder = folder_for(root, key_prefix)
        self.root = root
        self._key_prefix = key_prefix
        self._seal = seal
        self._bounds = (max_entries, max_bytes)
        self._max_content = max_content
        # An outbox stays: the writer decides which of its changes are too old, and reports them.
        self._life = {_HALF: _TMP_LIFE, _BASE: max(ttl, _BASE_LIFE)}
        self._wall_clock = wall_clock
        self._claim: FileLock | None = None

    def names_of(self, fingerprint: str) -> list[str]:
        """Return the names its file may have, one for each key. The first is the one to write."""
        return [alias + _SUFFIX for alias in self._seal.aliases(fingerprint)]

    @staticmethod
    def base_name(name: str) -> str:
        """Return the name of the base that belongs to an outbox."""
        return name.removesuffix(_SUFFIX) + _BASE

    def names(self, older_than: float | None = None) -> list[str]:
        """Return the names of all outboxes, the oldest first, after removing other files that are too old to be of use.

        Args:
            older_than: seconds since the oldest save in it. None for all.
        """
        self._prepare()
        now, found = self._wall_clock(), []
        for saved_at, name, _ in self._files():
            kind, age = os.path.splitext(name)[1], now - saved_at
            if kind in self._life and age > self._life[kind] and name.startswith(".") is (kind == _HALF):
                self._unlink(name)
            elif kind == _SUFFIX and (older_than is None or age > older_than):
                found.append(name)
        return found

    def others(self) -> str:
        """Return a remark on the saves that `others_in` counts. Empty without any."""
        count = others_in(self.root, self._key_prefix)
        return f"saves of another key prefix or an earlier version wait in it: {count}" if count else ""

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None when there is none.

        Raises:
            ForeignKeyError: sealed with a key that is not configured here.
            UnreadableStateError: larger than `max_content`, or packed in a way that this process does not know.
            CorruptStateError: damaged, forged, or renamed.
            OSError: not readable.
        """
        try:
            file = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise CorruptStateError("not a file, but a link") from None
            raise
        with open(file, "rb") as opened:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise CorruptStateError("not a file of ours")
            if status.st_size > self._max_content:
                raise UnreadableStateError("larger than the limits of this process")
            return self._opened(name, opened.read())

    def _opened(self, name: str, data: bytes) -> bytes:
        front, sealed = data[:_FRONT], data[_FRONT:]
        if len(front) < _FRONT or front[:4] != _MAGIC:
            raise CorruptStateError("not a spool file of this schema")
        key_id = front[5:].decode("ascii", "replace")
        if not self._seal.knows(key_id):
            raise ForeignKeyError("sealed with another key")
        body = self._seal.open(self._seal.flag, key_id, sealed, front + name.encode())
        return decompress(front[4:5].decode("ascii", "replace"), body, self._max_content)

    def write(self, name: str, content: bytes, saved_at: float, instead_of: Sequence[str] = ()) -> None:
        """Replace a file, whole or not at all, as old as its save.

        Raises:
            OSError: the folder cannot be written, or it or the disk is full. What was there before is still there.
        """
        if len(content) > self._max_content:
            raise OSError(errno.EFBIG, "pending_max_bytes is reached")
        self._prepare()
        packer = compressor("auto")
        front = _MAGIC + f"{packer.flag}{self._seal.key_id}".encode()
        data = front + self._seal.close(packer.compress(content), front + name.encode())
        self._make_room(name, len(data), instead_of)
        half = self.folder / f".{name}.{secrets.token_hex(4)}{_HALF}"
        try:
            _write_through(half, data, saved_at)
            os.rename(half, self.folder / name)
        except BaseException:
            with contextlib.suppress(OSError):
                half.unlink()
            raise
        self._sync_folder()

    def _make_room(self, name: str, size: int, instead_of: Sequence[str]) -> None:
        """Remove the oldest bases until a file of `size` bytes is within the bounds.

        Raises:
            OSError: the outboxes leave no room for it. They stay: agents of other processes were told that they are kept.
        """
        max_entries, max_bytes = self._bounds
        sizes = {name: size for _, name, size in self._files()}
        before = sum(sizes.pop(each, 0) for each in (name, *instead_of))
        bases = {each: size for each, size in sizes.items() if os.path.splitext(each)[1] == _BASE}
        outboxes = [size for each, size in sizes.items() if os.path.splitext(each)[1] == _SUFFIX]
        is_base = name.endswith(_BASE)
        has_place = before or is_base or len(outboxes) < max_entries
        if size > before and not (has_place and size + sum(outboxes) <= max_bytes):
            raise OSError(errno.ENOSPC, "pending_max or pending_max_bytes is reached")
        total = size + sum(outboxes) + sum(bases.values())
        for at, base in enumerate(bases):
            if total <= max_bytes and len(bases) - at + is_base <= max_entries:
                break
            total -= bases[base]
            self._unlink(base)

    def _files(self) -> list[tuple[float, str, int]]:
        """Return when each file was saved, its name and its size, the oldest first. One look at the folder: it may hold 20,000."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime, entry.name, status.st_size))
        return sorted(found)

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        self._unlink(name)
        self._sync_folder()

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / name)

    def reject(self, name: str) -> None:
        """Set a damaged file aside, for people to look at."""
        rejected = self.folder / "rejected"
        rejected.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.folder / name, rejected / name)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other processes from changing files for a moment.

        Raises:
            OSError: one of them keeps the lock, or the folder cannot be used.
        """
        self._prepare()
        lock = FileLock(self.folder / "write.lock")
        try:
            lock.take(cap=_LOCK_PATIENCE)
            yield
        finally:
            lock.end()

    def claim(self) -> bool:
        """Become the one process that delivers what earlier ones have left. The kernel ends it with the process."""
        if self._claim is not None:
            return True
        self._prepare()
        lock = FileLock(self.folder / "replay.lock")
        if not lock.try_take():
            lock.close()
            return False
        self._claim = lock
        return True

    def end_claim(self) -> None:
        """Release the claim, so that another process can deliver."""
        if self._claim is not None:
            self._claim.end()
            self._claim = None

    def _prepare(self) -> None:
        for folder in (self.root, self.folder):  # `mkdir` gives its mode to the last folder alone
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = os.stat(folder)
            if status.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "the folder belongs to another user")
            if status.st_mode & 0o077:
                os.chmod(folder, 0o700)

    def _sync_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def key_ids_of(folder: Path) -> list[str]:
    """Return the key id that each waiting file is sealed with. Changes nothing.

    Raises:
        OSError: the folder cannot be read.
    """
    found = []
    for path in sorted(folder.glob(_OUTBOXES)):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            found.append(file.read(_FRONT)[5:].decode("ascii", "replace"))
    return found


def _write_through(path: Path, data: bytes, saved_at: float) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(file, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.utime(file, (saved_at, saved_at))
        os.fsync(file)
