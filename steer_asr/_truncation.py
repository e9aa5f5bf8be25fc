"""Files that end before their container says so, in formats that FFmpeg reads to the cut without a word.

    missing_end(file, size)         # "the header says 96044 bytes, there are 40000", or None

Known for WAV, RF64, AVI, W64, AIFF, AU, Matroska and WebM, MP4 and its kin, and Ogg.
MP3, ADTS and MPEG-TS state no length.
"""

from __future__ import annotations

import os
from typing import Protocol

HEAD_BYTES = 256
SLACK_BYTES = 1024
"""Many writers are off by a header or so, and so little is no loss. Boxes of MP4 are exact."""
STREAMED = 0x7FFF_0000
"""From here on a 32-bit length is what programs put down that write to a pipe and do not know it."""
W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
MP4_BOXES = {
    b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"free", b"skip", b"wide", b"uuid", b"meta",
    b"emsg", b"prft", b"pnot", b"udta",
}  # fmt: skip
MAX_MP4_BOXES = 20_000
MAX_OGG_PAGE_BYTES = 65_307


class Readable(Protocol):
    """As much of a binary file as is needed here."""

    def read(self, n: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int: ...


def missing_end(file: Readable, size: int) -> str | None:
    """What shows that the file of `size` bytes was cut off; None when nothing does. Moves the file's position."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if head[:4] == b"OggS":
        return _cut_ogg_page(file, size)
    is_mp4 = head[4:8] in MP4_BOXES
    declared = _mp4_end(file, size) if is_mp4 else _declared_end(head)
    if declared is not None and size < declared - (0 if is_mp4 else SLACK_BYTES):
        return f"its header says {declared} bytes, there are {size}"
    return None


def _declared_end(head: bytes) -> int | None:
    """Where the file ends, as its first bytes say; None when they do not."""
    match head[:4]:
        case b"RIFF":
            length = int.from_bytes(head[4:8], "little")
            return length + 8 if 36 < length < STREAMED else None
        case b"RF64" if head[12:16] == b"ds64":
            return int.from_bytes(head[20:28], "little") + 8
        case b"FORM":
            return int.from_bytes(head[4:8], "big") + 8
        case b".snd":
            length = int.from_bytes(head[8:12], "big")
            return int.from_bytes(head[4:8], "big") + length if length < STREAMED else None
        case b"riff" if head[:16] == W64_RIFF:
            return int.from_bytes(head[16:24], "little")
        case _ if head[:4] == EBML:
            return _matroska_end(head)
    return None


def _matroska_end(head: bytes) -> int | None:
    length, at = _ebml_length(head, 4)
    if length is None or head[at + length : at + length + 4] != SEGMENT:
        return None
    length, at = _ebml_length(head, at + length + 4)
    return None if length is None else at + length


def _ebml_length(data: bytes, at: int) -> tuple[int | None, int]:
    """An EBML length and where it ends. None is "unknown": all bits set, as live recordings have it."""
    n_bytes = 9 - data[at].bit_length() if at < len(data) else 9
    if n_bytes > 8:
        return None, at
    unknown = (1 << 7 * n_bytes) - 1
    length = int.from_bytes(data[at : at + n_bytes], "big") & unknown
    return (None if length == unknown else length), at + n_bytes


def _mp4_end(file: Readable, size: int) -> int | None:
    """Where the last of the boxes at the top level ends."""
    at = 0
    for _ in range(MAX_MP4_BOXES):
        file.seek(at)
        head = file.read(16)
        if head[4:8] not in MP4_BOXES:
            return None
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0 is "to the end of the file"
            return None
        at += length
        if at >= size:
            return at
    return None


def _cut_ogg_page(file: Readable, size: int) -> str | None:
    """A last page without the end-of-stream mark is what stopped broadcasts leave, so only half a page counts."""
    file.seek(max(0, size - 2 * MAX_OGG_PAGE_BYTES))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[26] if len(page) > 26 else 0
    if len(page) < 27 + segments or len(page) < 27 + segments + sum(page[27 : 27 + segments]):
        return "the Ogg stream ends inside a page"
    return None
