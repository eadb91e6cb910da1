"""JupyterLab itself: a notebook opened and run through its server gives what is committed."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import websocket
from nbval.plugin import get_sanitize_patterns

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NOTEBOOK = "01_quickstart.ipynb"
SANITIZE = get_sanitize_patterns((NOTEBOOKS / "nbval.cfg").read_text(encoding="utf-8"))
PATIENCE = 120  # seconds: how long a step may take on a machine that is busy
PNG = "iVBORw0KGgo"  # how one begins, in base 64
Json = Any


@dataclass
class Server:
    """A JupyterLab that runs, and how it is talked to."""

    process: subprocess.Popen[bytes]
    address: str  # host:port
    token: str

    def get(
        self, path: str, *, method: str = "GET", body: Json = None, token: bool = True
    ) -> tuple[str, str]:
        """Give the path where a request ended, and the text found there; a refusal raises."""
        headers = {"Authorization": f"token {self.token}"} if token else {}
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://{self.address}{path}", data, headers, method=method)
        with build_opener(ProxyHandler({})).open(request, timeout=PATIENCE) as answer:
            return urlsplit(answer.url).path, answer.read().decode()

    def api(self, path: str, **request: Any) -> Json:
        text = self.get(f"/api/{path}", **request)[1]
        return json.loads(text) if text else None

    def listens(self) -> bool:
        host, port = self.address.split(":")
        with closing(socket.socket()) as tried:
            return tried.connect_ex((host, int(port))) == 0


def until(found: Callable[[], Json], what: str) -> Json:
    """Wait for something to be there, or to be true."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not within {PATIENCE} seconds")


def free_port() -> int:
    """Give a port that nobody has; the server takes another, and says so, if it is gone by then."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def jupyterlab(root: Path, home: Path) -> Iterator[Server]:
    """Start JupyterLab on a folder, with a home of its own; what it logs is shown if the test fails."""
    own = {f"JUPYTER_{what}_DIR": str(home / what.lower()) for what in ("CONFIG", "DATA", "RUNTIME")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    environment |= {**own, "IPYTHONDIR": str(home / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1"}
    token, log = secrets.token_hex(16), home / "log.txt"
    home.mkdir()
    command = [
        *(Path(sysconfig.get_path("scripts"), "jupyter"), "lab", "--no-browser", "--allow-root"),
        *(f"--ServerApp.root_dir={root}", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={free_port()}"),
        f"--IdentityProvider.token={token}",
        # nothing is fetched from the network
        *("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
        "--LabApp.extension_manager=readonly",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )

    def started() -> Server | None:
        if process.poll() is not None:
            raise RuntimeError(f"JupyterLab ended with {process.returncode}")
        with suppress(OSError, ValueError):  # the file is not there yet, or half written
            told = json.loads((home / "runtime" / f"jpserver-{process.pid}.json").read_bytes())
            server = Server(process, f"127.0.0.1:{told['port']}", token)
            return server if server.listens() else None  # the file comes first
        return None

    try:
        yield until(started, "JupyterLab")
    finally:
        process.terminate()  # if it is there still; its kernels go with it
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        process.kill()
        process.wait()
        print(log.read_text(encoding="utf-8", errors="replace"))


def channels(server: Server, session: Json) -> websocket.WebSocket:
    """Reach the kernel of a session, as the browser reaches it."""
    return websocket.create_connection(
        f"ws://{server.address}/api/kernels/{session['kernel']['id']}/channels?session_id={session['id']}",
        timeout=PATIENCE,
        header=[f"Authorization: token {server.token}"],
        http_no_proxy=["127.0.0.1"],
    )


def run(kernel: websocket.WebSocket, code: str) -> list[Json]:
    """Run a cell, and give its outputs as a notebook holds them."""
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "test", "version": "5.3"}
    request = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}}
    kernel.send(json.dumps({**request, "content": {"code": code, "silent": False, "allow_stdin": False}}))
    outputs: list[Json] = []
    waited = {"idle", "reply"}  # they come on two channels, in either order
    while waited:
        message = json.loads(kernel.recv())
        if message["parent_header"].get("msg_id") != header["msg_id"]:
            continue
        kind, said = message["header"]["msg_type"], message["content"]
        if kind == "status" and said["execution_state"] == "idle":
            waited.discard("idle")
        elif kind == "execute_reply":
            waited.discard("reply")
        elif kind in ("stream", "display_data", "execute_result", "error"):
            outputs.append({"output_type": kind, **said})
    return outputs


def shown(outputs: list[Json]) -> dict[str, str]:
    """Give what outputs say in plain text, by their kind and as nbval compares it, and how many pictures."""
    images = [output.get("data", {}).get("image/png", "") for output in outputs]
    found = {"pictures": "|" * sum(image.startswith(PNG) for image in images)}
    for output in outputs:
        kind = output["output_type"]
        text = output["text"] if kind == "stream" else output.get("data", {}).get("text/plain", "")
        found[kind] = found.get(kind, "") + "".join(text)
    for regex, replacement in SANITIZE:
        found = {kind: re.sub(regex, replacement, text) for kind, text in found.items()}
    return found


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the server is started as on Linux and macOS")
def test_a_notebook_runs_in_jupyterlab_and_shows_what_is_committed(tmp_path: Path) -> None:
    root = Path(shutil.copytree(NOTEBOOKS, tmp_path / "notebooks"))
    with jupyterlab(root, tmp_path / "home") as server:
        assert server.get("/lab", token=False)[0] == "/login"
        with pytest.raises(HTTPError, match="403") as refused:
            server.api("contents", token=False)
        refused.value.close()
        path, page = server.get("/lab")
        assert (path, "<title>JupyterLab</title>" in page) == ("/lab", True)

        listed = {entry["name"] for entry in server.api("contents")["content"]}
        assert listed == {path.name for path in root.iterdir() if path.name[0] != "."}
        cells = server.api(f"contents/{NOTEBOOK}")["content"]["cells"]
        wanted = {"path": NOTEBOOK, "name": NOTEBOOK, "type": "notebook", "kernel": {"name": "python3"}}
        session = server.api("sessions", method="POST", body=wanted)
        pictures = ""
        with closing(channels(server, session)) as kernel:
            (prefix,) = run(kernel, "import sys; print(sys.prefix)")
            assert prefix["text"].strip() == sys.prefix  # the kernel is this environment's
            for cell in cells:
                if cell["cell_type"] == "code":
                    now = shown(run(kernel, "".join(cell["source"])))
                    assert now == shown(cell["outputs"]), cell["source"]
                    assert "error" not in now
                    pictures += now["pictures"]
        assert pictures

        server.api(f"sessions/{session['id']}", method="DELETE")
        assert server.api("kernels") == []
        server.api("shutdown", method="POST")
        assert server.process.wait(PATIENCE) == 0
        assert not server.listens()
