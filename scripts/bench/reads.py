#!/usr/bin/env python3
"""Read one file without an engine, in this fresh process, and print {"seconds", "answer"} as JSON.

    reads.py KIND FILE [--keep] [--count N]

KIND is seq (1 MiB reads), mmap (1 MiB copies of a mapping), rand4k or rand64k (preads at random places) or many
(64 threads, each 8 random reads of 1 MiB). The answer is a checksum of the bytes that were read. With --keep the
bytes of seq and mmap are kept in memory and summed up after the clock has stopped, as the first read of a file must
be; without, they pass through one buffer as in dd, and are read once more to sum them up.
"""

import argparse
import json
import mmap
import os
import random
import sys
import threading
import time
import zlib

MIB = 1 << 20


def sequential(fd: int, size: int, into: memoryview, keep: bool) -> None:
    at = 0
    while at < size:
        piece = into[at : at + MIB] if keep else into
        count = os.preadv(fd, [piece], at)
        if count == 0:
            raise EOFError(f"the file ends at {at}, {size} were expected")
        at += count


def mapped(mapping: memoryview, size: int, into: memoryview, keep: bool) -> None:
    for at in range(0, size, MIB):
        piece = mapping[at : at + MIB]
        start = at if keep else 0
        into[start : start + len(piece)] = piece


def whole(kind: str, path: str, keep: bool) -> tuple[float, int]:
    size = os.stat(path).st_size
    # Touched before the clock starts, so that memory costs every side the same.
    into = memoryview(bytearray(b"\1") * (size if keep else MIB))
    began = time.perf_counter()
    fd = os.open(path, os.O_RDONLY)
    if kind == "seq":
        sequential(fd, size, into, keep)
    else:
        view = memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_READ))
        mapped(view, size, into, keep)
    seconds = time.perf_counter() - began
    if keep:
        return seconds, zlib.crc32(into)
    crc = 0
    for at in range(0, size, MIB):
        crc = zlib.crc32(os.pread(fd, MIB, at), crc)
    return seconds, crc


def scattered(path: str, length: int, count: int) -> tuple[float, int]:
    size = os.stat(path).st_size
    places = random.Random(7)
    offsets = [places.randrange(0, size - length) & ~4095 for _ in range(count)]
    into = memoryview(bytearray(b"\1") * length)
    # A sample of the answers is summed up; summing all of them would be what is measured.
    kept = []
    began = time.perf_counter()
    fd = os.open(path, os.O_RDONLY)
    for number, offset in enumerate(offsets):
        if os.preadv(fd, [into], offset) != length:
            raise EOFError(f"a short read at {offset}")
        if number % 64 == 0:
            kept.append(bytes(into))
    return time.perf_counter() - began, zlib.crc32(b"".join(kept))


def many(path: str) -> tuple[float, int]:
    size = os.stat(path).st_size
    sums: list[int] = [0] * 64

    def reader(number: int) -> None:
        places = random.Random(number)
        fd = os.open(path, os.O_RDONLY)
        for _ in range(8):
            sums[number] = zlib.crc32(os.pread(fd, MIB, places.randrange(0, size - MIB)), sums[number])
        os.close(fd)

    threads = [threading.Thread(target=reader, args=(number,)) for number in range(64)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, zlib.crc32(repr(sums).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["seq", "mmap", "rand4k", "rand64k", "many"])
    parser.add_argument("file")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--count", type=int, default=100)
    args = parser.parse_args()
    if args.kind in ("seq", "mmap"):
        seconds, answer = whole(args.kind, args.file, args.keep)
    elif args.kind == "many":
        seconds, answer = many(args.file)
    else:
        seconds, answer = scattered(args.file, 4096 if args.kind == "rand4k" else 65536, args.count)
    json.dump({"seconds": seconds, "answer": answer}, sys.stdout)


if __name__ == "__main__":
    main()
