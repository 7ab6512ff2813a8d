"""The page at `/`: what is sent, to whom, under which policy. A browser is in tests/interop."""

import re

import pytest
from served import Serve, Served

KEY = b"0123456789abcdef0123456789abcdef"
LINK = re.compile(r'(?:src|href)="([^"]+)"|from "\./([^"]+)"')


def parts(served: Served) -> dict[str, bytes]:
    """The page and what it refers to, directly or through a script, by path."""
    found = {"/": served.get("/").body}
    new = ["/"]
    while new:
        for direct, script in LINK.findall(found[new.pop()].decode()):
            path = f"/{direct}" if direct else f"/page/{script}"
            if path not in found:
                answer = served.get(path)
                assert answer.status == 200, path
                found[path] = answer.body
                new.append(path)
    return found


def test_the_page_comes_with_all_that_it_refers_to(served: Served) -> None:
    kinds = {path.rpartition(".")[2] for path in parts(served)}
    assert kinds == {"/", "css", "js", "svg"}
    assert b"http" not in re.sub(rb'xmlns="[^"]+"', b"", b"".join(parts(served).values()))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"), ("/page/page.js", "text/javascript"), ("/page/style.css", "text/css"),
        ("/page/icon.svg", "image/svg+xml"),
    ],
)  # fmt: skip
def test_nothing_from_elsewhere_may_run_in_it(served: Served, path: str, kind: str) -> None:
    answer = served.get(path)
    assert answer.headers["content-type"].partition(";")[0] == kind
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"unsafe|\*|https?:|data:|blob:", policy)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/page/", "/page/__init__.py", "/page/..%2fapp.py", "/page/../app.py", "/page/index"]
)
def test_only_its_files_are_sent(served: Served, path: str) -> None:
    assert served.get(path).status == 404


def test_with_keys_the_page_is_open_and_nothing_else(serve: Serve) -> None:
    found = serve(keys=(KEY,))
    assert len(parts(found)) > 3
    for path in ("/v1/models", "/v1/audio/voices", "/metrics", "/pages", "//", "/page"):
        assert found.get(path).status == 401, path
    assert KEY not in b"".join(parts(found).values())


def test_models_tell_the_rate_that_samples_are_played_at(served: Served) -> None:
    assert b'"sample_rate":24000' in served.get("/v1/models").body
