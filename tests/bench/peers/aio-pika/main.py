"""A dispatcher as one writes it with aio-pika and aiohttp, on uvloop: a task for each delivery, one session that has as
many connections as posts may be in flight, an acknowledgement by hand after a 2xx. With --multiple it acknowledges
settled prefixes together, by the option `multiple` of aio-pika's `ack`."""

import argparse
import asyncio
import signal
from collections.abc import Awaitable, Callable

import aio_pika
import aiohttp
import uvloop
from aio_pika.abc import AbstractIncomingMessage


class Window:
    """Acknowledges the longest settled prefix of delivery tags, a millisecond after the first or every 32 messages."""

    def __init__(self) -> None:
        self.settled: dict[int, AbstractIncomingMessage] = {}
        # `next` is the lowest tag that is not settled, `last` the message before it that the broker was not told of.
        self.next = 1
        self.last: AbstractIncomingMessage | None = None
        self.waiting = 0
        self.timer: asyncio.Task[None] | None = None

    async def settle(self, message: AbstractIncomingMessage) -> None:
        assert message.delivery_tag is not None
        self.settled[message.delivery_tag] = message
        while self.next in self.settled:
            self.last = self.settled.pop(self.next)
            self.next += 1
            self.waiting += 1
        if self.waiting >= 32:
            await self.flush()
        elif self.waiting > 0 and self.timer is None:
            self.timer = asyncio.create_task(self.flush_soon())

    async def flush_soon(self) -> None:
        await asyncio.sleep(0.001)
        self.timer = None
        await self.flush()

    async def flush(self) -> None:
        if self.waiting > 0 and self.last is not None:
            self.waiting = 0
            await self.last.ack(multiple=True)


async def settle_each(message: AbstractIncomingMessage) -> None:
    await message.ack()


async def run(options: argparse.Namespace) -> None:
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    window = Window()
    settle: Callable[[AbstractIncomingMessage], Awaitable[None]] = window.settle if options.multiple else settle_each
    under_way: set[asyncio.Task[None]] = set()
    connector = aiohttp.TCPConnector(limit=options.in_flight)
    connection = await aio_pika.connect_robust(options.broker)
    async with connection, aiohttp.ClientSession(connector=connector) as session:

        async def post(body: bytes) -> bool:
            headers = {"Content-Type": "application/octet-stream"}
            try:
                async with session.post(options.sink, data=body, headers=headers) as response:
                    await response.read()
                    return response.status // 100 == 2
            except aiohttp.ClientError:
                return False

        async def handle(message: AbstractIncomingMessage) -> None:
            # aio-pika calls this in a task of its own for each delivery.
            task = asyncio.current_task()
            assert task is not None
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            if await post(message.body):
                await settle(message)
            else:
                await message.nack(requeue=True)

        channel = await connection.channel()
        await channel.set_qos(prefetch_count=options.prefetch)
        queue = await channel.get_queue(options.queue)
        tag = await queue.consume(handle)
        await terminated.wait()
        await queue.cancel(tag)
        await asyncio.gather(*under_way)
        await window.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--broker", "--queue", "--sink"):
        parser.add_argument(name, required=True)
    for name in ("--prefetch", "--in-flight"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--multiple", action="store_true")
    uvloop.run(run(parser.parse_args()))


main()
