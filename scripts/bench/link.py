#!/usr/bin/env python3
"""A TCP link between two ports of this machine: delay, bandwidth, and, if asked, TCP slow start. No loss.

usage: link.py LISTEN_PORT TARGET_PORT RTT_MS MBIT_PER_S [--slow-start] [--counts FILE]

Half the round trip is added each way; one bandwidth bucket a direction is shared by all connections; connecting
costs one round trip. With --slow-start a connection may send 10 segments in its first round trip, then twice as
much in each further one, and starts again after a second of silence. FILE holds four 64-bit numbers of this
machine's byte order, always current: requests (lines that end in HTTP/1.1), bytes that went up, bytes that came
down, connections.
"""
import argparse
import asyncio
import mmap
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("listen", type=int, metavar="LISTEN_PORT")
parser.add_argument("target", type=int, metavar="TARGET_PORT")
parser.add_argument("rtt", type=float, metavar="RTT_MS")
parser.add_argument("rate", type=float, metavar="MBIT_PER_S")
parser.add_argument("--slow-start", action="store_true")
parser.add_argument("--counts", metavar="FILE")
args = parser.parse_args()
listen, target, rtt, rate, slow_start = args.listen, args.target, args.rtt / 1e3, args.rate * 1e6 / 8, args.slow_start

# What one connection may have on its way: a receiver that does not read stops its sender, as TCP's window does.
ON_THE_WAY = max(8 << 20, int(2 * rtt * rate))
REQUESTS, UP, DOWN, CONNECTIONS = range(4)
if args.counts:
    with open(args.counts, "wb+") as file:
        file.truncate(32)
        counts = memoryview(mmap.mmap(file.fileno(), 32)).cast("Q")
else:
    counts = [0, 0, 0, 0]


class Link:
    """The shared wire of one direction: when would n more bytes have left it?"""

    def __init__(self):
        self.free = 0.0

    def leaves(self, n, earliest):
        self.free = max(self.free, earliest) + n / rate
        return self.free


class Window:
    """How much one connection may send in the present round trip."""

    def __init__(self):
        self.size, self.left, self.ends = 14600, 14600, 0.0

    def admit(self, n, now):
        """(bytes that may go, earliest time)"""
        if not slow_start or rtt == 0:
            return n, now
        if now > self.ends + 1.0:
            self.size = self.left = 14600
            self.ends = now + rtt
        if self.left <= 0:
            start = max(now, self.ends)
            self.size = min(self.size * 2, 64 << 20)
            self.left, self.ends = self.size, start + rtt
        start = max(now, self.ends - rtt)
        n = min(n, self.left)
        self.left -= n
        return n, start


down, up = Link(), Link()


async def pump(reader, writer, link):
    queue, window = asyncio.Queue(), Window()
    tail = b""
    waiting = 0

    async def deliver():
        nonlocal waiting
        while True:
            at, data = await queue.get()
            wait = at - time.monotonic()
            if wait > 0.0005:
                await asyncio.sleep(wait)
            if data is None or writer.is_closing():
                if data is None and not writer.is_closing():
                    try:
                        writer.write_eof()
                    except OSError:
                        pass
                return
            writer.write(data)
            counts[UP if link is up else DOWN] += len(data)
            if writer.transport.get_write_buffer_size() > 4 << 20:
                await writer.drain()
            waiting -= len(data)

    task = asyncio.create_task(deliver())
    last = time.monotonic()
    try:
        while True:
            while waiting > ON_THE_WAY and not task.done():
                await asyncio.sleep(0.005)
            data = memoryview(await reader.read(65536))
            if not data or writer.is_closing():
                break
            if link is up:
                # A request line may arrive in two pieces.
                text = tail + bytes(data)
                counts[REQUESTS] += text.count(b" HTTP/1.1\r\n")
                tail = text[-10:]
            while data:
                now = time.monotonic()
                n, earliest = window.admit(len(data), now)
                # Who waits for its window does not hold up the others.
                if earliest > now:
                    await asyncio.sleep(earliest - now)
                last = link.leaves(n, time.monotonic()) + rtt / 2
                queue.put_nowait((last, bytes(data[:n])))
                data = data[n:]
                waiting += n
                ahead = last - rtt / 2 - time.monotonic()  # back-pressure: stay close to the wire
                if ahead > 0.02:
                    await asyncio.sleep(ahead - 0.01)
    except ConnectionError:
        pass
    queue.put_nowait((max(last, time.monotonic() + rtt / 2), None))
    try:
        await task
    except ConnectionError:
        pass


async def handle(reader, writer):
    counts[CONNECTIONS] += 1
    await asyncio.sleep(rtt)
    try:
        r, w = await asyncio.open_connection("127.0.0.1", target)
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, w, up), pump(r, writer, down), return_exceptions=True)
    for x in (w, writer):
        try:
            x.close()
        except OSError:
            pass


async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", listen, limit=1 << 17, backlog=512)
    async with server:
        await server.serve_forever()


asyncio.run(main())
