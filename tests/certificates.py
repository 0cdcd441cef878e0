"""A certificate authority of a test's own."""

import ipaddress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def named(name: str) -> Any:
    """A subject of this common name; of none where it is empty."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])


class Authority:
    """Issues certificates, as files in a folder."""

    def __init__(self, folder: str | Path, name: str = "test CA") -> None:
        self.folder = Path(folder)
        self._name, self._key = named(name), ec.generate_private_key(ec.SECP256R1())
        own = self._signed(self._name, self._key, x509.BasicConstraints(True, None))
        self.certificate = self._kept(f"{name}.pem", own)

    def issue(self, name: str, *hosts: Any) -> tuple[str, str]:
        """A certificate and its key (the paths of them) for a name and IP addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        addresses = [x509.IPAddress(ipaddress.ip_address(host)) for host in hosts]
        names = [x509.DNSName("localhost"), *addresses]
        certificate = self._signed(named(name), key, x509.SubjectAlternativeName(names))
        kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        secret = key.private_bytes(*kinds, serialization.NoEncryption())
        (self.folder / f"{name}.key").write_bytes(secret)
        return self._kept(f"{name}.crt", certificate), str(self.folder / f"{name}.key")

    def _signed(self, subject: Any, key: Any, extension: Any) -> Any:
        now = datetime.now(timezone.utc)
        builder = x509.CertificateBuilder(
            self._name,
            subject,
            key.public_key(),
            x509.random_serial_number(),
            now - timedelta(hours=1),
            now + timedelta(hours=1),
            [],
        )
        return builder.add_extension(extension, critical=True).sign(self._key, hashes.SHA256())

    def _kept(self, name: str, certificate: Any) -> str:
        path = self.folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return str(path)
