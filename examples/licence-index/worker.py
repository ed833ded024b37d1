"""Counts the words of every text file that it is told about. Standard library only; nothing of Kubedaemon in here.

POST /message       body = the path of a text file; its word counts are stored under INDEX_DIR
GET  /words/<word>  how often a word stands in all files counted so far
"""

import collections
import hashlib
import json
import os
import pathlib
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INDEX = pathlib.Path(os.environ["INDEX_DIR"])


def count_words(path):
    return collections.Counter(word.decode() for word in re.findall(rb"[a-z]+", pathlib.Path(path).read_bytes().lower()))


def is_unlucky(path):
    """One file in twenty fails at its first attempt, as things in the world do."""
    return hashlib.sha256(path.encode()).digest()[0] % 20 == 0


def store(path, counts):
    """Written whole or not at all, and to the same place each time: doing it twice does no harm."""
    name = hashlib.sha256(path.encode()).hexdigest()
    unfinished = INDEX / f"{name}.{os.getpid()}.tmp"
    unfinished.write_text(json.dumps({"path": path, "words": counts}))
    unfinished.rename(INDEX / f"{name}.json")


class Worker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        path = self.rfile.read(int(self.headers["Content-Length"])).decode()
        attempt = int(self.headers["X-Delivery-Attempt"])
        if is_unlucky(path) and attempt == 1:
            return self.answer(500, "the disk hiccuped")
        if not pathlib.Path(path).is_file():
            return self.answer(422, f"there is no file {path}")
        store(path, count_words(path))
        with open(INDEX / "accepted.log", "a") as log:
            log.write(f"{path}\n")
        self.answer(200, "counted")

    def do_GET(self):
        word = self.path.removeprefix("/words/")
        total = sum(json.loads(file.read_text())["words"].get(word, 0) for file in INDEX.glob("*.json"))
        self.answer(200, str(total))

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    Server(("127.0.0.1", int(os.environ["PORT"])), Worker).serve_forever()
