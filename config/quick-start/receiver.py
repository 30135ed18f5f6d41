"""Stands for your receiver: takes every POST on port 3000, prints it, answers 200. It verifies nothing."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        print(
            f"{self.path} {body.decode(errors='replace')} verified by {self.headers.get('X-Webhook-Verified')}",
            flush=True,
        )
        answer = b'{"status":"ok"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", 3000), Receiver).serve_forever()
