"""A web server on the loopback address whose answers a test writes byte by byte."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Answer = Callable[[socket.socket], None]


def answer(status: str, body: bytes = b"", *headers: str) -> Answer:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""])
    return lambda connection: connection.sendall(head.encode() + body)


def drip(parts: bytes, seconds: float) -> Answer:
    """Send byte by byte."""

    def send(connection: socket.socket) -> None:
        for byte in parts:
            connection.sendall(bytes([byte]))
            time.sleep(seconds)

    return send


def silence(connection: socket.socket) -> None:
    connection.recv(1)  # until the client closes


class PictureServer:
    """``answers``: path -> an answer, or a list of answers that are given in turn (the last again and again)."""

    def __init__(self, context: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.requests: list[tuple[str, str]] = []
        """(path, Host header), in order."""
        self.connections = 0
        self._context = context
        self._listener = socket.create_server(
            (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET
        )
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{'https' if self._context else 'http'}://{host}:{self.port}{path}"

    def close(self) -> None:
        # shutdown, not only close: it wakes the threads that wait for a connection or for bytes
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError, IndexError, ValueError):
            connection = self._context.wrap_socket(plain, server_side=True) if self._context else plain
            self._open.append(connection)
            with connection:
                while self._serve_request(connection):
                    pass

    def _serve_request(self, connection: socket.socket) -> bool:
        request = b""
        while b"\r\n\r\n" not in request:
            received = connection.recv(4096)
            if not received:
                return False
            request += received
        lines = request.decode().split("\r\n")
        path = lines[0].split(" ")[1]
        host = next(line.partition(": ")[2] for line in lines if line.lower().startswith("host:"))
        self.requests.append((path, host))
        scripted = self.answers.get(path, answer("404 Not Found", b"<html>"))
        if isinstance(scripted, list):
            scripted = scripted.pop(0) if len(scripted) > 1 else scripted[0]
        scripted(connection)
        return True


@contextlib.contextmanager
def picture_server(context: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Iterator[PictureServer]:
    server = PictureServer(context, address)
    try:
        yield server
    finally:
        server.close()


def certificate(folder: Path, name: str) -> Path:
    """Write a certificate for ``name`` that signs itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "certificate.pem"
    file.write_bytes(pem)
    return file
