"""What TensorRT may keep from one process to the next: the timing cache, the runtime cache.

TensorRT 10 and 11 keep how long kernels took on this GPU, TensorRT-RTX the kernels that it
compiled for it. Both only save time. A file is written whole beside its place and moved there,
so that processes may share it, the last one winning; it begins with a digest of the rest, so
that what is damaged is not read.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from contextlib import suppress
from pathlib import Path

_DIGEST_BYTES = 32


class CacheFile:
    """One cache in ``folder``, for what ``key`` says: the runtime, its version, the GPU."""

    def __init__(self, folder: Path, *key: str) -> None:
        name = "-".join(re.sub(r"[^\w.]+", "_", part) for part in key)
        self._path = folder / f"{name}.cache"
        self._known = b""

    def read(self) -> bytes:
        """What was kept; empty where nothing is, or nothing sound."""
        with suppress(OSError):
            content = self._path.read_bytes()
            digest, kept = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
            if hashlib.sha256(kept).digest() == digest:
                self._known = kept
        return self._known

    def write(self, content: bytes) -> None:
        """Keep ``content``, whole or not at all; a full or read-only disk is no error."""
        if content == self._known:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._path.parent) as folder:
                whole = Path(folder, "cache")
                whole.write_bytes(hashlib.sha256(content).digest() + content)
                whole.replace(self._path)
            self._known = content
