"""A chat endpoint on loopback that does nothing but answer after a while, for `throughput.py`.

    python benchmarks/answering_server.py --delay 0.2

It prints its address, answers every POST with the same completion, and takes about 50 µs of processor time a request, so that
what is measured is the client.
"""

import argparse
import asyncio
import json

TEXT = "The bridge was built. " * 40
ANSWER = json.dumps({
    "id": "c", "object": "chat.completion", "created": 0, "model": "answering",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}],
    "usage": {"prompt_tokens": 500, "completion_tokens": 200, "total_tokens": 700},
}).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER)


class Answering(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, bodies by Content-Length."""

    def __init__(self, delay: float):
        self.delay, self.received = delay, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            headers = self.received[:end].lower()
            at = headers.find(b"content-length:")
            length = int(headers[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.received) < end + 4 + length:
                return
            self.received = self.received[end + 4 + length :]
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self.answer)
            else:
                self.answer()

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(RESPONSE)


async def main(delay: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Answering(delay), "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay", type=float, default=0.2, help="seconds before an answer")
    try:
        asyncio.run(main(parser.parse_args().delay))
    except KeyboardInterrupt:
        pass
