"""A worker for tests: what it does with a request is what the body says."""

import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Worker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        print("took", body, "path", self.path, "attempt", self.headers.get("x-delivery-attempt"), flush=True)
        word, _, argument = body.partition(" ")
        if word == "crash":
            os._exit(9)
        if word == "sleep":
            time.sleep(float(argument.split()[0]))
        self.answer(422 if word == "poison" else 200, body.encode())
        print("done", body, flush=True)

    def do_GET(self):
        self.answer(200, f"{self.path} {os.environ.get('GREETING', '')}".encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def end_with(parent):
    """A failing test kills kubedaemon, which then cannot end its workers."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


threading.Thread(target=end_with, args=[os.getppid()], daemon=True).start()
port = int(os.environ["PORT"])
server = ThreadingHTTPServer(("127.0.0.1", port), Worker)
print(f"up pid={os.getpid()} args={sys.argv[1:]} in={os.path.basename(os.getcwd())}", flush=True)
server.serve_forever()
