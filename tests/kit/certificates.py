"""An authority of the tests' own, what it signs, and a server that shows it: TLS as a store has it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ("Authority", "tls_before")

_DAY = dt.timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates of servers; its own and theirs are files in `folder`."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, folder: Path) -> Authority:
        """A new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(_name("authority"), _name("authority"), key, days=2)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        authority = cls(folder, key, made.sign(key, hashes.SHA256()))
        authority.path.write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
        return authority

    @property
    def path(self) -> Path:
        """What a client is to trust."""
        return self.folder / "authority.pem"

    def server(
        self, *, address: str = "127.0.0.1", days: int = 1, self_signed: bool = False
    ) -> ssl.SSLContext:
        """Of a server at `address`, whose certificate ends in `days`; less than none: it has ended."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = _name("server") if self_signed else self.certificate.subject
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        made = _builder(_name("server"), issuer, key, days=days).add_extension(alternative, critical=False)
        signed = made.sign(key if self_signed else self.key, hashes.SHA256())
        file = self.folder / f"server-{signed.serial_number}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + signed.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 9 * _DAY)
        .not_valid_after(now + days * _DAY)
    )


@contextlib.contextmanager
def tls_before(port: int, context: ssl.SSLContext) -> Iterator[str]:
    """The https endpoint of a server that passes on to `port` what it decrypts."""
    loop, ready, endpoint = asyncio.new_event_loop(), threading.Event(), list[str]()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(carry(reader, inner_writer), carry(inner_reader, writer))
        finally:
            inner_writer.transport.abort()
            writer.transport.abort()

    async def run() -> None:
        loop.set_exception_handler(lambda *_: None)  # handshakes that the client breaks off
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        endpoint.append(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        ready.set()
        async with server:
            await stop.wait()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports close in the next turns of the loop

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="tls")
    thread.start()
    try:
        assert ready.wait(10)
        yield endpoint[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
