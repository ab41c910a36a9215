"""A server before the gateway that misbehaves, for `try`: each new request meets the next fault, and is forwarded
when it is sent again.

    python3 integrations/faults.py http://127.0.0.1:3000

prints the port that it listens on. `GET /faults` answers with the faults that are left, and with what clients did wrong.
"""

import json
import socket
import struct
import sys
import time
import urllib.error
import urllib.request
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

STATUSES = [408, 425, 429, 500, 501, 502, 503, 504, 507, 520, 521, 522, 523, 524, 525, 526, 527, 529]
CUTS = {
    "cut in its body": b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\n{\"success\":true,",
    "cut in its chunks": b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"success\":true,\r\n",
    "cut in an error": b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\n{\"status\":",
    "no answer": b"",
    "not HTTP": b"220 smtp.example.org ESMTP\r\n",
}
# What is answered, the Retry-After with it, and the least pause that follows.
WAITS = {
    "Retry-After: 0": (503, lambda: "0", 0.4),
    "Retry-After of the past": (429, lambda: formatdate(0, usegmt=True), 0.4),
    "Retry-After without a meaning": (503, lambda: "soon", 0.4),
    "Retry-After in seconds": (503, lambda: "1", 1),
    "Retry-After as a date": (529, lambda: formatdate(time.time() + 3, usegmt=True), 1.5),
}
FAULTS = [*STATUSES, *CUTS, "reset", *WAITS]


class State:
    """What is left, and what each request has met."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.lock = Lock()
        self.left = list(FAULTS)
        self.met = {}
        self.wrong = []

    def fault_of(self, request):
        """The fault that a request meets; None when it is to be forwarded."""
        now = time.monotonic()
        with self.lock:
            if request in self.met:
                fault, since = self.met.pop(request)
                least = WAITS[fault][2] if fault in WAITS else 0.4
                if now - since < least:
                    self.wrong.append(f"{fault}: sent again after {now - since:.3f} s, sooner than {least} s")
                return None
            if not self.left:
                return None
            fault = self.left.pop(0)
            self.met[request] = (fault, now)
            return fault


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, retry_after=None):
        self.send_response(status, "As configured")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def forward(self, body):
        headers = {name: self.headers[name] for name in ("Content-Type", "Authorization") if name in self.headers}
        request = urllib.request.Request(self.server.state.gateway + self.path, body or None, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                self.answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read(), error.headers.get("Retry-After"))

    def do_GET(self):
        state = self.server.state
        if self.path == "/faults":
            left = [*state.left, *(fault for fault, _ in state.met.values())]
            return self.answer(200, json.dumps({"left": left, "wrong": state.wrong}).encode())
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = state.fault_of((self.path, body))
        if fault is None:
            return self.forward(body)
        if fault in WAITS:
            status, after, _ = WAITS[fault]
            return self.answer(status, b"{}", after())
        if fault in CUTS:
            self.wfile.write(CUTS[fault])
            self.wfile.flush()
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            return self.answer(fault, b'{"status":%d}' % fault)
        self.close_connection = True
        if fault != "reset":
            self.connection.shutdown(socket.SHUT_WR)
        return None

    do_POST = do_GET

    def log_message(self, *_):
        pass


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.state = State(sys.argv[1])
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
