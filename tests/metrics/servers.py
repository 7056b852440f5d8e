"""A web server on this machine whose connections can be made to break."""

import contextlib
import http.server
import threading


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append({name.lower(): value for name, value in self.headers.items()})
        if server.status:
            self.send_error(server.status)
            return
        start = self._start()
        body = server.data[start:]
        if start and not body:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            last = len(server.data) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        for name, value in server.headers.items():
            self.send_header(name, value)
        if server.tells_length:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body[:cut])
        self.close_connection = True

    def _start(self):
        """Where the answer begins: as asked, if the file is still the one that is meant."""
        asked, wanted = self.headers.get("Range"), self.headers.get("If-Range")
        if not (asked and self.server.resumes):
            return 0
        known = wanted in (None, *self.server.headers.values())
        return int(asked.removeprefix("bytes=").removesuffix("-")) if known else 0

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serve(data, *, cuts=(), resumes=True, headers=None, tells_length=True, status=None):
    """Serves `data` under `url`, noting the headers of the `requests`.

    Args:
        data: What the file holds; may be replaced meanwhile.
        cuts: After how many bytes the first connections break.
        resumes: Whether parts of the file are served.
        headers: Of every answer, by default an ETag.
        tells_length: Whether answers tell their length.
        status: An error, instead of the file.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.data, server.cuts, server.resumes, server.status = data, list(cuts), resumes, status
    server.headers = {"ETag": '"one"'} if headers is None else headers
    server.tells_length = tells_length
    server.requests = []
    server.url = f"http://127.0.0.1:{server.server_port}/file.tar.gz"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
