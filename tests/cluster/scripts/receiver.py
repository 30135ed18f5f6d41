"""The receiver of the cluster test: answers every POST with 200 after it has read the body, and ends within a second of SIGTERM.

Run by the sidecar's own image, so it needs the standard library only. PORT and ADDRESS are its environment. With LINGERS it still answers for so
many seconds after SIGTERM, and each answer closes its connection.
"""

import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ending = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        content = b"taken\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        if ending.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


def main() -> None:
    server = ThreadingHTTPServer((os.environ.get("ADDRESS", "0.0.0.0"), int(os.environ.get("PORT", "3000"))), Handler)

    def end() -> None:
        """`shutdown` waits for the loop that `serve_forever` runs in the main thread."""
        ending.set()
        time.sleep(float(os.environ.get("LINGERS", "0")))
        server.shutdown()

    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end).start())
    server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
