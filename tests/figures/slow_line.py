"""A line of so many megabytes a second to a server on this machine: `slow_line.py PORT SERVER_PORT MB_PER_SECOND`."""

import asyncio
import sys
import time

PIECE = 64 << 10


class Line:
    """What all connections share on the way to the server."""

    def __init__(self, bytes_per_second):
        self.rate, self.free_at = bytes_per_second, time.monotonic()

    async def take(self, size):
        self.free_at = max(self.free_at, time.monotonic()) + size / self.rate
        await asyncio.sleep(self.free_at - time.monotonic())


async def pump(reader, writer, line=None):
    try:
        while piece := await reader.read(PIECE):
            if line:
                await line.take(len(piece))
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main(port, server_port, rate):
    line = Line(rate * 1e6)

    async def serve(reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", server_port)
        await asyncio.gather(pump(reader, back, line), pump(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
