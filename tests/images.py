"""Images for the tests of the built server. As a program: writes so many small PNGs into a folder, and a large one beside it.
Usage: python3 images.py FOLDER COUNT LARGE"""

import pathlib
import struct
import sys
import zlib


def png(seed):
    """A PNG of 8 × 8 pixels."""
    rows = [b"\0" + bytes((seed * 40 + x * y * 25) % 256 for x in range(8) for _ in range(3)) for y in range(8)]
    return encode(8, b"".join(rows))


def large_png():
    """A PNG of a few kilobytes whose 27 MB of pixels take long to decode."""
    side = 3000
    return encode(side, (b"\0" + b"\x40\x80\xc0" * side) * side)


def encode(side, rows):
    """The file of a square of 8-bit RGB; each of `rows` begins with its filter, 0."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


if __name__ == "__main__":
    folder, count, large = sys.argv[1:]
    pathlib.Path(large).write_bytes(large_png())
    for seed in range(int(count)):
        pathlib.Path(folder, f"{seed}.png").write_bytes(png(seed))
