"""A real HTTP server on loopback that speaks /v1/chat/completions, for tests.

It answers from the passage in the prompt, logs every request, and can be told to misbehave.
"""

import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ASKING = {"en": "Please tell me what is known about", "zh": "请讲讲", "ru": "Расскажите, пожалуйста, что известно про",
          "fr": "Expliquez-moi ce que l'on sait de", "es": "Explíqueme qué se sabe de"}


@dataclass
class Reply:
    """What the server sends: a status, headers, a body; `cut` promises more bytes than it sends, `delay` is in seconds, `reset`
    breaks the connection instead of answering."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    cut: bool = False
    delay: float = 0.0
    reset: bool = False


def completion(text: str, finish_reason: str = "stop") -> bytes:
    """The body of a chat completion."""
    return json.dumps({
        "id": "c", "object": "chat.completion", "created": 0, "model": "loopback-model",
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }).encode()


def grounded_text(messages: list[dict]) -> str:
    """A question about words of the quoted passage, or an answer in its sentences, decided by the prompt alone."""
    passage = re.search(r"<passage>\n(.*?)\n</passage>", "\n".join(message["content"] for message in messages), re.DOTALL)[1]
    rng = random.Random(json.dumps(messages))
    title, *paragraphs = passage.split("\n\n")
    body = " ".join(" ".join(paragraphs).split())
    language = ("zh" if re.search("[\u4e00-\u9fff]{4}", body) else "ru" if re.search("[а-я]{4}", body)
                else next((code for code, mark in (("es", " el "), ("fr", " le ")) if body.count(mark) > 3), "en"))
    if "<passage>\n" in messages[0]["content"]:
        sentences = [sentence for sentence in re.split(r"(?<=[.!?。！？])\s*", body) if sentence.strip()]
        start = rng.randrange(max(1, len(sentences) - 3))
        return ("" if language == "zh" else " ").join(sentences[start : start + 4])
    start = rng.randrange(max(1, len(body) - 60))
    return f"{ASKING[language]} {title}: {body[start : start + 50].strip()}?"


class ChatServer:
    """`with ChatServer() as server:` serves at `server.url`; `server.requests` are (seconds, body) as they arrived.

    respond: a function of (body, number of the request) that returns a `Reply`; by default every answer is grounded in the
    passage. port: of a server that comes back where it was; else a free one.
    """

    def __init__(self, respond: Callable[[dict, int], Reply] | None = None, delay: float = 0.0, port: int = 0):
        self.requests: list[tuple[float, dict]] = []
        self.delivered: list[dict] = []
        self.keys: list[str] = []
        self.connections = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                with lock:
                    outer.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(outer.requests)
                    outer.requests.append((time.monotonic(), body))
                    outer.keys.append(self.headers.get("Authorization", ""))
                reply = respond(body, number) if respond else Reply(body=completion(grounded_text(body["messages"])), delay=delay)
                time.sleep(reply.delay)
                if reply.reset:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True
                    return
                try:
                    self.send_response(reply.status)
                    for name, value in (("Content-Type", reply.content_type), *reply.headers):
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(reply.body) + (100 if reply.cut else 0)))
                    self.end_headers()
                    self.wfile.write(reply.body)
                    self.wfile.flush()
                    with lock:
                        outer.delivered.append(body)
                except OSError:  # the client was killed
                    self.close_connection = True
                if reply.cut:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:  # a client that was killed
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "ChatServer":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
