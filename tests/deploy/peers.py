"""Runs in a container of the compose file, and tells as JSON what each port there says to one who has no certificate: port →
how it was spoken to → whether it was `served`, or why not. With the folder of a certificate as its argument it also shows
that, as the parts do."""

import json
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

GRPC = [("scheduler-1", 8093), ("scheduler-2", 8093), ("registry", 8094), ("admin", 8092), ("admin", 8100)]
HTTP = [("gateway-1", 8090), ("admin", 8091)]
NATS = ("nats-1", "nats-2", "nats-3")
POSTGRES = ("postgres", 5432)
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS = 4
_ALPN = ["h2", "postgresql"]
_SSL_REQUEST = struct.pack("!II", 8, 80877103)

Dress = Callable[[socket.socket, str], socket.socket]


def served_by_grpc(line: socket.socket, dress: Dress, host: str) -> bool:
    with dress(line, host) as dressed:
        dressed.sendall(_HTTP2)
        return len(head := dressed.recv(9)) == 9 and head[3] == _SETTINGS


def served_by_http(line: socket.socket, dress: Dress, host: str) -> bool:
    with dress(line, host) as dressed:
        dressed.sendall(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        head = dressed.recv(200)
        return head.startswith(b"HTTP/1.1 ") and not head.startswith(b"HTTP/1.1 400")


def served_by_nats(line: socket.socket, dress: Dress, host: str) -> bool:
    """Whether it goes on after the greeting: to PING there is an answer, if only that somebody has to say who he is."""
    greeting = b""
    while b"\r\n" not in greeting:
        if not (more := line.recv(4096)):
            return False
        greeting += more
    with dress(line, host) as dressed:
        dressed.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        return b"Authorization" in dressed.recv(4096)


def served_by_route(line: socket.socket, dress: Dress, host: str) -> bool:
    """Whether another server of the cluster would be greeted."""
    with dress(line, host) as dressed:
        return dressed.recv(4096).startswith(b"INFO ")


def served_by_postgres(line: socket.socket, dress: Dress, host: str) -> bool:
    """Whether the role may come in: with the password that it has."""
    if dress is not plain:
        line.sendall(_SSL_REQUEST)
        if line.recv(1) != b"S":
            return False
    with dress(line, host) as dressed:
        words = b"user\0forebay_admin\0database\0forebay\0\0"
        dressed.sendall(struct.pack("!II", 8 + len(words), 3 << 16) + words)
        answer = dressed.recv(4096)
        return answer[:1] == b"R"  # asked for a password, or let in: either is one step too far


def plain(line: socket.socket, host: str) -> socket.socket:
    return line


def told(host: str, port: int, serve: Callable[[socket.socket, Dress, str], bool], dress: Dress) -> str:
    try:
        with socket.create_connection((host, port), timeout=10) as line:
            return "served" if serve(line, dress, host) else "not served"
    except OSError as error:
        return f"not served: {error}"


def main() -> None:
    stranger = ssl.create_default_context()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    stranger.set_alpn_protocols(_ALPN)
    ways: dict[str, Dress] = {"plain": plain, "no certificate": lambda line, host: stranger.wrap_socket(line)}
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        part = ssl.create_default_context(cafile=folder / "ca.crt")
        part.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        part.set_alpn_protocols(_ALPN)
        ways["own certificate"] = lambda line, host: part.wrap_socket(line, server_hostname=host)
    ports: list[tuple[str, int, Callable[[socket.socket, Dress, str], bool]]] = [
        *((host, port, served_by_grpc) for host, port in GRPC),
        *((host, port, served_by_http) for host, port in HTTP),
        *((host, 4222, served_by_nats) for host in NATS),
        *((host, 6222, served_by_route) for host in NATS),
        (*POSTGRES, served_by_postgres),
    ]
    with ThreadPoolExecutor(len(ports)) as threads:  # most of them take seconds to give a silent one up
        found = {
            f"{host}:{port}": {way: threads.submit(told, host, port, serve, dress) for way, dress in ways.items()}
            for host, port, serve in ports
        }
        answers = {port: {way: answer.result() for way, answer in ways.items()} for port, ways in found.items()}
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
