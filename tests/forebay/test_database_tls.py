"""Debian's PostgreSQL with `hostssl … cert clientcert=verify-full`: only a certificate lets in, the schema is made over TLS
by Alembic, and new files are what new connections use."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from forebay.database import Database, open_database
from forebay.errors import Unavailable
from forebay.pki.folder import Folder, Step, make_folder

_BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))
pytestmark = pytest.mark.skipif(
    _BIN is None or not (_BIN / "initdb").exists(), reason="PostgreSQL's own server with TLS is not installed here"
)

ROLE = "forebay_admin"
YEAR = timedelta(days=365)
MIGRATION = """
from alembic import op
revision, down_revision = "0001", None
def upgrade() -> None:
    op.execute("CREATE TABLE admin.kept (word text)")
"""


def now() -> datetime:
    return datetime.now(UTC)


class Server:
    """Speaks TLS to those who show a certificate that is mapped to their role, and to nobody else."""

    def __init__(self, home: Path, folder: Folder) -> None:
        assert _BIN is not None
        self._home, self._folder = home, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # PostgreSQL refuses to be root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._own(home)
        self._run("initdb", "-U", "postgres", "-A", "reject", "--no-sync")
        data = home / "data"
        (data / "pg_hba.conf").write_text(
            f"local all postgres peer map=here\nhostssl forebay {ROLE} 127.0.0.1/32 cert clientcert=verify-full map=parts\n"
        )
        user = self._nobody.pw_name if self._nobody else pwd.getpwuid(os.geteuid()).pw_name
        (data / "pg_ident.conf").write_text(f"parts admin {ROLE}\nhere {user} postgres\n")
        self.carry()

    def url(self, part: str = "admin") -> str:
        place = self._folder.part(part)
        files = f"sslrootcert={place / 'ca.crt'}&sslcert={place / 'tls.crt'}&sslkey={place / 'tls.key'}"
        return f"postgresql://{ROLE}@127.0.0.1:{self.port}/forebay?sslmode=verify-full&{files}"

    @property
    def plain_url(self) -> str:
        return f"postgresql://{ROLE}@127.0.0.1:{self.port}/forebay?sslmode=disable"

    def carry(self) -> None:
        """What a deployment does with the folder of a part: the files to where the server reads them, then a reload."""
        for name in ("ca.crt", "tls.crt", "tls.key"):
            copy = self._home / name
            fresh = copy.with_suffix(".new")
            shutil.copy(self._folder.part("postgres") / name, fresh)
            fresh.chmod(0o600)
            self._own(fresh)
            fresh.replace(copy)
        if self._process is not None:
            self._run("pg_ctl", "reload")

    def start(self) -> None:
        files = {"ssl_cert_file": "tls.crt", "ssl_key_file": "tls.key", "ssl_ca_file": "ca.crt"}
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._home),
            "fsync": "off",
            "ssl": "on",
            **{option: str(self._home / name) for option, name in files.items()},
        }
        flags = [word for option, value in options.items() for word in ("-c", f"{option}={value}")]
        self._process = self._popen("postgres", "-p", str(self.port), *flags)
        until = time.monotonic() + 60
        while self._run("pg_isready", "-h", str(self._home), "-p", str(self.port), check=False) != 0:
            assert time.monotonic() < until, self.log
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(2)
            self._process.wait(30)
            self._process = None

    def sql(self, statement: str, database: str = "forebay") -> str:
        assert _BIN is not None
        command = [str(_BIN / "psql"), "-XAtq", "-U", "postgres", "-h", str(self._home), "-p", str(self.port), database]
        done = subprocess.run(
            [*command, "-c", statement],
            capture_output=True,
            text=True,
            cwd="/",
            user=self._nobody.pw_uid if self._nobody else None,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def sessions(self) -> list[str]:
        """The serial numbers of the certificates that this role's connections over TLS came with."""
        found = self.sql(
            "SELECT s.client_serial FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) "
            f"WHERE s.ssl AND a.usename = '{ROLE}' ORDER BY a.backend_start"
        )
        return found.splitlines()

    @property
    def log(self) -> str:
        return (self._home / "log").read_text()

    def _own(self, path: Path) -> None:
        if self._nobody:
            os.chown(path, self._nobody.pw_uid, self._nobody.pw_gid)

    def _run(self, program: str, *argv: str, check: bool = True) -> int:
        status = self._popen(program, *argv).wait(60)
        assert status == 0 or not check, self.log
        return status

    def _popen(self, program: str, *argv: str) -> subprocess.Popen[bytes]:
        assert _BIN is not None
        environ = {"PGDATA": str(self._home / "data"), "LC_ALL": "C", "PATH": os.environ["PATH"]}
        with (self._home / "log").open("ab") as log:
            return subprocess.Popen(
                [str(_BIN / program), *argv],
                env=environ,
                stdout=log,
                stderr=log,
                cwd="/",
                user=self._nobody.pw_uid if self._nobody else None,
                group=self._nobody.pw_gid if self._nobody else None,
                extra_groups=[] if self._nobody else None,
            )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = make_folder(tmp_path / "pki", now())
    for name in ("postgres", "admin", "registry"):
        made.issue(name, (), now(), YEAR)
    return made


@pytest.fixture
def server(folder: Folder) -> Iterator[Server]:
    home = Path(tempfile.mkdtemp(prefix="fb-tls-", dir="/tmp"))  # a socket's path may not be long
    running = Server(home, folder)
    running.start()
    try:
        running.sql(f"CREATE ROLE {ROLE} LOGIN", "postgres")
        running.sql(f"CREATE DATABASE forebay OWNER {ROLE}", "postgres")
        yield running
    finally:
        running.stop()
        shutil.rmtree(home)


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    async with open_database(server.url(), "admin") as opened:
        yield opened


async def answers(url: str) -> bool:
    async with open_database(url, "admin") as opened:
        try:
            async with opened.reading() as connection:
                return bool(await connection.scalar(text("SELECT 1")) == 1)
        except Unavailable:
            return False


def serial(folder: Folder, part: str) -> str:
    """As PostgreSQL tells it."""
    from cryptography import x509

    return str(x509.load_pem_x509_certificate((folder.part(part) / "tls.crt").read_bytes()).serial_number)


async def test_the_schema_is_made_and_rows_are_written_over_mtls(
    server: Server, database: Database, folder: Folder, tmp_path: Path
) -> None:
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "v0001.py").write_text(MIGRATION)
    await database.prepare(tmp_path / "migrations")
    async with database.writing() as connection:
        await connection.execute(text("INSERT INTO admin.kept VALUES ('over TLS')"))
    assert server.sql("SELECT word FROM admin.kept") == "over TLS"
    assert set(server.sessions()) == {serial(folder, "admin")}


async def test_only_the_certificate_that_is_mapped_to_the_role_lets_in(server: Server, folder: Folder) -> None:
    assert await answers(server.url())
    assert not await answers(server.url("registry"))
    assert not await answers(server.plain_url)
    without = f"{server.plain_url.replace('disable', 'verify-full')}&sslrootcert={folder.part('admin') / 'ca.crt'}"
    assert not await answers(without)


async def test_a_server_of_another_authority_is_not_believed(server: Server, folder: Folder, tmp_path: Path) -> None:
    other = make_folder(tmp_path / "other", now())
    other.issue("admin", (), now(), YEAR)
    known, stranger = folder.part("admin") / "ca.crt", other.part("admin") / "ca.crt"
    assert not await answers(server.url().replace(str(known), str(stranger)))


async def test_new_connections_come_with_new_files_while_those_that_are_open_go_on(
    server: Server, database: Database, folder: Folder
) -> None:
    async with database.reading() as held:
        assert await held.scalar(text("SELECT 1")) == 1
        old = serial(folder, "admin")
        assert server.sessions() == [old]
        for step in Step:
            folder.rotate(step, now(), YEAR)
            server.carry()
        # The next one is another connection, since that one is taken.
        async with database.reading() as second:
            assert await second.scalar(text("SELECT 2")) == 2
            assert server.sessions() == [old, serial(folder, "admin")]
        assert await held.scalar(text("SELECT 3")) == 3
    assert serial(folder, "admin") != old


async def test_a_connection_is_replaced_when_it_is_old(
    server: Server, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.database._RECYCLE_S", 0)
    async with open_database(server.url(), "admin") as database:
        async with database.reading() as connection:
            await connection.scalar(text("SELECT 1"))
        folder.renew(now(), YEAR, everything=True)
        async with database.reading() as connection:
            await connection.scalar(text("SELECT 1"))
            assert server.sessions() == [serial(folder, "admin")]
