"""A session's secrets, made new for each: a token for the web pages, a CA and one certificate for all Dask traffic.

Only text comes out; where it is written (0600, never argv, logs or environments) is the store's business.
The CA's own key is thrown away as soon as it has signed: nothing can ever be added to what it vouches for.
"""

from __future__ import annotations

import datetime
import secrets
from dataclasses import dataclass, field

VALID_DAYS = 400


@dataclass(frozen=True, kw_only=True)
class Credentials:
    token: str = field(repr=False)
    ca_pem: str
    certificate_pem: str
    key_pem: str = field(repr=False)


def new_token() -> str:
    return secrets.token_urlsafe(18)


def new_credentials(session: str, *, now: datetime.datetime | None = None) -> Credentials:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = now or datetime.datetime.now(datetime.UTC)
    # a compute node's clock may be behind ours
    begin, end = now - datetime.timedelta(days=1), now + datetime.timedelta(days=VALID_DAYS)

    def name(role: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"hpclab {role} {session}"[:64])])

    def builder(role: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(role))
            .issuer_name(name("CA"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=role == "CA", path_length=None), critical=True)
        )

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = builder("CA", ca_key).sign(ca_key, hashes.SHA256())
    certificate = builder("member", key).sign(ca_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    key_pem = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credentials(
        token=new_token(),
        ca_pem=ca.public_bytes(pem).decode(),
        certificate_pem=certificate.public_bytes(pem).decode(),
        key_pem=key_pem.decode(),
    )
