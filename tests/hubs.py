"""A stand-in of both hubs' HTTP interfaces on this machine, as far as their libraries ask for it.

One repository, `OWNER/CosyVoice2-0.5B`, served under the paths of both. What was asked is kept.
"""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

REPOSITORY = "FunAudioLLM/CosyVoice2-0.5B"
COMMIT, OLDER = "4adacdf7" * 5, "9bd5b08a" * 5
REVISIONS = {"main": COMMIT, "master": COMMIT, "v2.0": OLDER, COMMIT: COMMIT, OLDER: OLDER}
_GATED = "FunAudioLLM/Gated"
# Besides what a build reads.
STRAYS = (
    "flow.decoder.estimator.fp32.onnx", "flow.cache.pt", "flow.encoder.fp32.zip", "llm.rl.pt",
    "speech_tokenizer_v2.batch.onnx", "configuration.json", "CosyVoice-BlankEN/model.safetensors",
)  # fmt: skip


class Asked(NamedTuple):
    """A request: its method, its path without the query, the file it is about, and its header."""

    method: str
    path: str
    file: str
    range: str
    agent: str
    via_proxy: bool


@dataclass
class StandIn:
    """Both hubs.

    `breaks` are files whose first answer ends after so many bytes; that of `slow` does not end.
    """

    files: dict[str, bytes]
    breaks: dict[str, int] = field(default_factory=dict)
    slow: str = ""
    status: int = 200  # of every answer, if it is an error
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.closed = threading.Event()
        self.server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self})
        )
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def downloaded(self) -> list[str]:
        """Files whose content was asked for, once each time."""
        return [asked.file for asked in self.asked if asked.method == "GET" and asked.file]

    def close(self) -> None:
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()


def stand_in(checkpoint: Path) -> StandIn:
    """The hubs with the files of a checkpoint, and what a release has besides them."""
    paths = [path for path in checkpoint.rglob("*") if path.is_file()]
    files = {str(path.relative_to(checkpoint)): path.read_bytes() for path in paths}
    return StandIn({name: f"not what {name} should be".encode() for name in STRAYS} | files)


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        path = unquote(url.path)
        found = re.fullmatch(rf"/{REPOSITORY}/resolve/([^/]+)/(.+)", path)
        modelscope = re.fullmatch(rf"/api/v1/models/{REPOSITORY}/repo", path)
        file = found[2] if found else query.get("FilePath", "") if modelscope else ""
        self.hub.asked.append(
            Asked(
                self.command,
                path,
                file,
                self.headers.get("Range", ""),
                self.headers.get("User-Agent", ""),
                bool(url.netloc),
            )
        )
        if self.hub.status != 200:
            self._json({"error": "out of order", "Message": "out of order"}, self.hub.status)
        elif _GATED in path:
            self._json({"error": "gated"}, 403, {"X-Error-Code": "GatedRepo"})
        elif REPOSITORY not in path:
            self._json({"error": "none", "Message": "no such model"}, 404, MISSING)
        elif found:
            self._hugging_face_file(found[1], found[2])
        elif modelscope:
            self._modelscope_file(query)
        elif path.startswith("/api/v1/"):
            self._modelscope(path, query)
        else:
            self._hugging_face(path)

    def _hugging_face(self, path: str) -> None:
        revision = path.rpartition("/revision/")[2] if "/revision/" in path else "main"
        if revision not in REVISIONS:
            self._json({"error": "none"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": _etag(data)}
            for name, data in self.hub.files.items()
        ]
        self._json({"id": REPOSITORY, "sha": REVISIONS[revision], "siblings": siblings})

    def _hugging_face_file(self, revision: str, name: str) -> None:
        if name not in self.hub.files:
            self._json({"error": "none"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {
            "X-Repo-Commit": REVISIONS[revision],
            "ETag": f'"{_etag(self.hub.files[name])}"',
            "Accept-Ranges": "bytes",
        }
        self._content(name, headers)

    def _modelscope(self, path: str, query: dict[str, str]) -> None:
        if query.get("Revision", "master") not in REVISIONS:
            self._json({"Code": 10010205001, "Message": "no such revision"}, 404)
            return
        files = [
            {
                "Path": name,
                "Name": Path(name).name,
                "Type": "blob",
                "Size": len(data),
                "Sha256": hashlib.sha256(data).hexdigest(),
            }
            for name, data in self.hub.files.items()
        ]
        data: Any = {"Files": files} if path.endswith("/repo/files") else {"Path": REPOSITORY}
        self._json({"Code": 200, "Success": True, "Data": data})

    def _modelscope_file(self, query: dict[str, str]) -> None:
        self._content(query["FilePath"], {})

    def _content(self, name: str, headers: dict[str, str]) -> None:
        data = self.hub.files[name]
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send_response(206 if asked else 200)
        for key, value in (headers | {"Content-Length": str(len(data) - start)}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if name == self.hub.slow:
            self.wfile.write(data[:1000])
            self.hub.closed.wait(60)
            return
        least = self.hub.breaks.pop(name, None)
        self.wfile.write(data[start:] if least is None else data[start : start + least])
        self.close_connection = least is not None

    def _json(self, tree: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(tree).encode()
        self.send_response(status)
        own = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for key, value in (own | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


MISSING = {"X-Error-Code": "RepoNotFound"}


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
