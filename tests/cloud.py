"""An object store for tests, in this process: what is asked of it is written down, and can be made to fail.

    with cloud.bucket(monkeypatch, tmp_path / "scratch") as bucket:
        bucket.upload(folder, "raw")
        cb.read_raw(bucket.url("raw"))

`Bucket` looks into the store by boto3, and what it asks for is neither logged nor made to fail. `Server.log`
has the requests of others. `Bucket.watched` keeps what the bucket held after each change, and
`Server.failing` makes requests fail.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs
from xml.etree import ElementTree

import boto3
import pytest
import s3fs
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wsgi import get_input_stream

Verb = Literal["put", "part", "delete", "get", "head", "list", "other"]
Fault = Literal["500", "403", "refused", "lost", "cut"]
"""How a request fails: by a code, or without an answer, and nothing is done; done, but no answer, or half."""

CHANGES: tuple[Verb, ...] = ("put", "part", "delete")
REGION = "us-east-1"
_OURS = "looks-on-for-the-tests"
_CODES = {
    "500": ("500 Internal Server Error", "InternalError"),
    "403": ("403 Forbidden", "InvalidAccessKeyId"),
}
_UNDONE = (*_CODES, "refused")
_numbers = itertools.count()


@dataclass(frozen=True)
class Request:
    """What was asked of the store: ``part`` is anything of an upload in parts but its end, which is a put.

    ``keys`` are those of objects, or what the keys that are listed begin with; ``size`` is that of the
    answer, bytes.
    """

    verb: Verb
    bucket: str
    keys: tuple[str, ...] = ()
    fault: Fault | None = None
    size: int = 0


Rule = Callable[[Request], Fault | None]


class Failing:
    """Let the n-th change fail: for good (``then="same"``), with all that come later (``"all"``), or once.

    A change is counted by its verb and key, so that trying it again is no other one.
    """

    def __init__(
        self,
        nth: int,
        fault: Fault,
        *,
        verbs: Iterable[Verb] = ("put", "part"),
        then: Literal["same", "all", "once"] = "same",
    ) -> None:
        self.hits = 0
        self._nth, self._fault, self._verbs, self._then = nth, fault, tuple(verbs), then
        self._seen: dict[Any, int] = {}
        self._lock = threading.Lock()

    @property
    def seen(self) -> int:
        """How many changes there were."""
        return len(self._seen)

    def __call__(self, request: Request) -> Fault | None:
        if request.verb not in self._verbs:
            return None
        with self._lock:
            number = self._seen.setdefault((request.verb, request.keys), len(self._seen) + 1)
            fails = number >= self._nth if self._then == "all" else number == self._nth
            if not fails or (self._then == "once" and self.hits):
                return None
            self.hits += 1
            return self._fault


class Server:
    """A server of moto's, with an ear on the line."""

    def __init__(self) -> None:
        self.log: list[Request] = []
        self.after: Callable[[Request], None] | None = None
        self._rule: Rule | None = None
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, True, request_handler=_Silent)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="onlooker",
            aws_secret_access_key="onlooker",
            config=Config(user_agent_extra=_OURS, proxies={}),
        )

    @contextmanager
    def failing(self, rule: Rule) -> Iterator[None]:
        """Let requests fail as a rule has it, while the block runs."""
        self._rule = rule
        try:
            yield
        finally:
            self._rule = None

    def asked(self, *verbs: Verb) -> list[str]:
        """Give the keys of the requests of these kinds that were answered, in their order."""
        return [key for one in self.log if one.verb in verbs and one.fault is None for key in one.keys]

    def sent(self, key: str) -> int:
        """Give how many bytes of an object were sent."""
        return sum(one.size for one in self.log if one.verb == "get" and one.keys == (key,))

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        if _OURS in environ.get("HTTP_USER_AGENT", ""):
            return self._app(environ, start)
        request = _read(environ)
        fault = None if self._rule is None else self._rule(request)
        answer = b""
        if fault in _UNDONE:
            get_input_stream(environ).read()  # or the client meets a broken pipe first
        else:
            with closing(self._app(environ, start)) as told:
                answer = b"".join(told)
        self.log.append(replace(request, fault=fault, size=len(answer)))
        if self.after is not None and fault not in _UNDONE:
            self.after(request)
        if fault in _CODES:
            status, code = _CODES[fault]
            start(status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>made to fail</Message></Error>".encode()]
        if fault in ("refused", "lost"):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionError(fault)
        return [answer[: len(answer) // 2] if fault == "cut" else answer]

    def stop(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()


class _Silent(MotoRequestHandler):
    def log_request(self, *_: object) -> None:
        pass


def _read(environ: dict[str, Any]) -> Request:
    """Tell what is asked for."""
    method, query = environ["REQUEST_METHOD"], parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    path = environ["PATH_INFO"].encode("latin1").decode()
    bucket, _, key = path.removeprefix("/").partition("/")
    if not key:
        if method == "POST" and "delete" in query:
            body = get_input_stream(environ).read()
            environ["wsgi.input"] = BytesIO(body)
            named = [one.text or "" for one in ElementTree.fromstring(body).iterfind(".//{*}Key")]
            return Request("delete", bucket, tuple(named))
        if method == "GET" and "prefix" in query:
            return Request("list", bucket, (query["prefix"][0],))
        return Request("other", bucket)
    verbs: dict[str, Verb] = {"GET": "get", "HEAD": "head", "PUT": "put", "DELETE": "delete", "POST": "put"}
    verb = verbs.get(method, "other")
    if "uploads" in query or ("uploadId" in query and method != "POST"):
        verb = "part"
    return Request(verb, bucket, (key,))


@dataclass(frozen=True)
class Bucket:
    """A bucket of the server's."""

    server: Server
    name: str

    def url(self, *path: str) -> str:
        """Give the URL of a key."""
        return "/".join(("s3:/", self.name, *path))

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.server.client.put_object(Bucket=self.name, Key=key, Body=content)

    def get(self, key: str) -> bytes:
        """Read an object."""
        content: bytes = self.server.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def delete(self, *keys: str) -> None:
        """Delete objects."""
        for key in keys:
            self.server.client.delete_object(Bucket=self.name, Key=key)

    def listed(self, prefix: str = "") -> list[str]:
        """Give the keys that begin so, sorted."""
        pages = self.server.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return sorted(one["Key"] for page in pages for one in page.get("Contents", ()))

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Give the objects whose keys begin so."""
        return {key: self.get(key) for key in self.listed(prefix)}

    def uploads(self) -> list[str]:
        """Give the keys of uploads in parts that were begun, and neither ended nor given up."""
        told = self.server.client.list_multipart_uploads(Bucket=self.name)
        return [one["Key"] for one in told.get("Uploads", ())]

    def upload(self, folder: Path, prefix: str = "") -> None:
        """Write the files of a folder, also of its sub-folders, but no locks."""
        for name in files(folder):
            self.put(f"{prefix}/{name}" if prefix else name, (folder / name).read_bytes())

    def download(self, to: Path, prefix: str) -> Path:
        """Write the objects under a prefix into a folder."""
        return laid_out(self.objects(f"{prefix}/"), prefix, to)

    @contextmanager
    def watched(self) -> Iterator[list[dict[str, bytes]]]:
        """Give a list that gets what the bucket holds after each change, while the block runs."""
        now, lock = self.objects(), threading.Lock()
        moments: list[dict[str, bytes]] = []

        def look(request: Request) -> None:
            if request.verb in ("put", "delete") and request.bucket == self.name:
                with lock:  # some may be written side by side
                    for key in request.keys:
                        now.pop(key, None)
                        if request.verb == "put":
                            now[key] = self.get(key)
                    moments.append(now.copy())

        self.server.after = look
        try:
            yield moments
        finally:
            self.server.after = None
        assert now == self.objects()


def laid_out(objects: Mapping[str, bytes], prefix: str, to: Path) -> Path:
    """Write the objects under a prefix into a folder, as files."""
    to.mkdir(parents=True, exist_ok=True)
    for key, content in objects.items():
        if key.startswith(f"{prefix}/"):
            path = to / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return to


def files(root: Path) -> list[str]:
    """Give the files under a folder but the locks, as keys below it, sorted."""
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith((".lock", ".holder.json")))


@functools.cache
def server() -> Server:
    """Give the server of this process, which ends with it."""
    made = Server()
    atexit.register(made.stop)
    return made


@contextmanager
def opened_anew() -> Iterator[None]:
    """Have the store opened anew in the block, whose environment is another: s3fs keeps what it opened."""
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        yield
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def bucket(
    monkeypatch: pytest.MonkeyPatch, scratch: Path, *, endpoint: str | None = None
) -> Iterator[Bucket]:
    """Give a new bucket, in an environment in which s3:// leads to its server, or to another endpoint.

    Temporary files go to the folder scratch, in which nothing must be left at the end.
    """
    made = Bucket(server(), f"bucket-{next(_numbers)}")
    made.server.client.create_bucket(Bucket=made.name)
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    settings = {
        "AWS_ENDPOINT_URL": endpoint or made.server.endpoint,
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "a secret",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ALLOW_HTTP": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",  # what fails for good need not be waited for
        "TMPDIR": str(scratch),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    made.server.log.clear()
    with opened_anew() if endpoint else nullcontext():
        yield made
    made.server.after = None
    assert list(scratch.iterdir()) == []
