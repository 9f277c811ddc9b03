"""Fetching through the real huggingface_hub client, from a server on this machine that answers like the Hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest
from huggingface_hub import constants

from pgb_core import curated, hub
from pgb_core.card import Origin, read_origin
from pgb_core.checkpoints import ask_ahead, describe, load_model, resolve
from pgb_core.curated import Curated
from pgb_core.errors import CheckpointError
from pgb_core.families import auto_map
from pgb_core.inspection import NEEDED, TOKENIZER_FILES
from pgb_core.settings import get_settings
from tests.test_checkpoints import split

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """One model, `owner/name`, with the `files` of a folder. `asked` records every path that was requested."""

    files: dict[str, bytes]
    status: int = 200
    code: str = ""
    """What the Hub calls the error, in a header, beside its `status`."""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if self.status != 200:
            return self.status, b"", {"X-Error-Code": self.code} if self.code else {}
        entries = [
            {"type": "file", "path": name, "rfilename": name, "size": len(content), "oid": self.etag(content)}
            for name, content in self.files.items()
        ]
        if path in ("/api/models/owner/name", f"/api/models/owner/name/revision/{REVISION}"):
            info = {
                "id": "owner/name",
                "sha": REVISION,
                "siblings": entries,
                "private": False,
                "tags": ["license:apache-2.0", "bert"],
            }
            info["config"] = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
            return 200, json.dumps(info).encode(), {"Content-Type": "application/json"}
        if path == f"/api/models/owner/name/tree/{REVISION}":
            return 200, json.dumps(entries).encode(), {"Content-Type": "application/json"}
        name = path.removeprefix(f"/owner/name/resolve/{REVISION}/")
        if name not in self.files:
            return 404, b"", {"X-Error-Code": "RepoNotFound"}
        return 200, self.files[name], {"X-Repo-Commit": REVISION, "ETag": f'"{self.etag(self.files[name])}"'}

    @staticmethod
    def etag(content: bytes) -> str:
        return hashlib.sha1(content, usedforsecurity=False).hexdigest()

    def handler(fake) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlparse(self.path).path
                fake.asked.append(path)
                status, body, headers = fake.answer(path)
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 - http.server's names

            def log_message(self, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def fake_hub(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fake = FakeHub({file.name: file.read_bytes() for file in tiny_checkpoint.iterdir()})
    fake.files |= {"pytorch_model.bin": b"evil", "modeling_evil.py": b"evil", "README.md": b"words"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), fake.handler())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point_to(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


def point_to(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


def refused(words: str, name: str = "owner/name") -> None:
    with pytest.raises(CheckpointError) as caught:
        hub.fetch(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    home = get_settings().cache_dir / "hub"
    assert not [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"]  # nothing half fetched


def test_a_model_is_fetched_pinned_and_loads(fake_hub: FakeHub, tiny_checkpoint: Path) -> None:
    found = resolve("owner/name", "csv")
    assert (found.source, found.revision) == ("hub", REVISION)
    weights = (tiny_checkpoint / "model.safetensors").read_bytes()
    assert found.fingerprint == hashlib.sha256(weights).hexdigest()
    assert {file.name for file in found.path.iterdir()} <= {*NEEDED, *TOKENIZER_FILES, hub.RECORD}
    assert read_origin(found.path) == Origin("owner/name", "apache-2.0", REVISION)
    assert not any(file.is_symlink() for file in found.path.iterdir())
    assert not [path for path in fake_hub.asked if path.endswith((".bin", ".py", ".md"))]
    assert load_model(found.path).config.num_labels == 2


def test_a_pruned_model_comes_with_its_manifest_and_without_its_code(fake_hub: FakeHub) -> None:
    config = json.loads(fake_hub.files["config.json"]) | {
        "model_type": "pgb_bert",
        "auto_map": auto_map("bert", "classification"),
    }
    fake_hub.files |= {"config.json": json.dumps(config).encode(), "pgb.json": b"{}", "modeling_pgb_bert.py": b"evil"}
    found = resolve("owner/name", "csv")
    assert found.source == "pruned"
    assert (
        {"pgb.json"}
        <= {file.name for file in found.path.iterdir()}
        <= {*NEEDED, *TOKENIZER_FILES, "pgb.json", hub.RECORD}
    )


def test_a_second_time_nothing_is_downloaded_and_offline_the_cache_serves(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hub.fetch("owner/name")
    fake_hub.asked.clear()
    assert hub.fetch("owner/name") == first
    assert fake_hub.asked == ["/api/models/owner/name"]
    fake_hub.status = 503
    assert hub.fetch("owner/name") == first
    point_to(monkeypatch, "http://127.0.0.1:9")
    assert hub.fetch("owner/name") == first


def test_what_a_killed_download_left_is_cleared_away_by_the_next(fake_hub: FakeHub) -> None:
    left = get_settings().cache_dir / "hub" / ".part-killed" / "files"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    folder, _ = hub.fetch("owner/name")
    assert (folder / "model.safetensors").is_file()
    assert not left.parent.exists()


def test_two_at_once_download_once(fake_hub: FakeHub) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(hub.fetch, ["owner/name"] * 2))
    assert found[0] == found[1]
    fetched = [path for path in fake_hub.asked if path.endswith("/model.safetensors")]
    fake_hub.asked.clear()
    shutil.rmtree(found[0][0])
    hub.fetch("owner/name")
    assert fetched == [path for path in fake_hub.asked if path.endswith("/model.safetensors")]


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """A server that accepts connections and sends a byte of `answer` a second, or nothing ever."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            for byte in answer or b"":
                connection.sendall(bytes([byte]))
                if over.wait(1.0):
                    return
            over.wait(20)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        over.set()
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


SLOW_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("answer", [None, SLOW_ANSWER], ids=["silent", "a byte a second"])
def test_a_hub_that_keeps_one_waiting_is_out_of_reach(monkeypatch: pytest.MonkeyPatch, answer: bytes | None) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with listening(answer) as endpoint:
        point_to(monkeypatch, endpoint)
        started = time.monotonic()
        refused("out of reach and 'owner/name' is not cached")
        assert time.monotonic() - started < 5


def test_a_command_hears_of_a_silent_hub_before_it_loads_torch() -> None:
    """Within five seconds, of which the Hub has three, the interpreter and its imports the rest."""
    with listening(None) as endpoint:
        command = [sys.executable, "-X", "importtime", "-m", "pgb_core", "evaluate", "--checkpoint=owner/name"]
        done = subprocess.run(
            [*command, "--task=csv", "--eval-file=none.csv"],
            env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert "is out of reach and 'owner/name' is not cached" in done.stderr.splitlines()[-1]
    assert not re.search(r"\| +(torch|transformers)$", done.stderr, re.MULTILINE)


def test_what_was_asked_ahead_is_not_asked_again(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "/api/models/owner/name"
    ask_ahead("demo", str(get_settings().cache_dir), "no id", "owner/name")
    assert fake_hub.asked == [asked]
    assert resolve("owner/name", "csv").revision == REVISION
    assert fake_hub.asked.count(asked) == 1
    resolve("owner/name", "csv")  # later, for which that answer was not meant
    assert fake_hub.asked.count(asked) == 2
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    ask_ahead("owner/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert hub.fetch("owner/name")[1] == REVISION  # from the cache: out of reach is an answer, too
    assert fake_hub.asked.count(asked) == 2
    fake_hub.asked.clear()
    ask_ahead(f"hub:owner/name@{REVISION}")
    assert fake_hub.asked == []


def test_a_hub_that_refuses_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point_to(monkeypatch, "http://127.0.0.1:9")  # the port that throws everything away; here nobody listens
    started = time.monotonic()
    refused("out of reach and 'owner/name' is not cached")
    assert time.monotonic() - started < 5


def test_what_takes_too_long_is_given_up() -> None:
    over = threading.Event()
    with pytest.raises(TimeoutError):
        hub.within(0.05, over.wait)  # as a name server that does not answer
    over.set()
    assert hub.within(5, lambda: 1) == 1
    with pytest.raises(KeyError):
        hub.within(5, lambda: {}[1])


def test_the_hub_says_what_a_model_is_before_it_is_downloaded(fake_hub: FakeHub) -> None:
    found = hub.look_up("owner/name")
    assert (found.revision, found.license, found.family) == (REVISION, "apache-2.0", "bert")
    assert found.architecture == "BertForSequenceClassification"
    assert found.files["model.safetensors"] == len(fake_hub.files["model.safetensors"])
    assert set(found.files) <= {*NEEDED, *TOKENIZER_FILES}
    assert fake_hub.asked == ["/api/models/owner/name"]


def test_a_revision_can_be_named(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, revision = hub.fetch(f"owner/name@{REVISION}")
    assert revision == folder.name == REVISION
    assert not [path for path in fake_hub.asked if path == "/api/models/owner/name"]
    fake_hub.asked.clear()
    assert resolve(f"hub:owner/name@{REVISION}", "csv").revision == REVISION
    assert fake_hub.asked == []
    fake_hub.status = 503
    refused_revision = "1" * 40
    with pytest.raises(CheckpointError, match="not cached"):
        hub.fetch(f"owner/name@{refused_revision}")


def test_weights_in_several_files_are_fetched(fake_hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(fake_hub.files.pop("model.safetensors"))
    split(tmp_path)
    fake_hub.files |= {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    fake_hub.files |= {"model-evil.safetensors": b"evil", "sub/model-00001-of-00001.safetensors": b"evil"}
    found = resolve("owner/name", "csv")
    assert len(list(found.path.glob("*.safetensors"))) == 3
    assert load_model(found.path).config.num_labels == 2


def test_labels_of_a_well_known_checkpoint_get_their_names(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads(fake_hub.files["config.json"]) | {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    fake_hub.files["config.json"] = json.dumps(config).encode()
    known = Curated("Owner/Name", "bert", "sst2", ("positive", "negative"), 2)
    monkeypatch.setattr(curated, "curated", lambda: (known,))
    folder, _ = hub.fetch("owner/name")
    assert describe(folder).labels == ("positive", "negative")
    assert resolve("owner/name", "sst2").note == (
        "the files of Owner/Name only number its labels; the list of well-known models names them: "
        "0 is positive, 1 is negative"
    )


@pytest.mark.parametrize(
    ("entry", "files"),
    [
        (
            Curated("owner/name", "bert", "sst2", ("positive", "negative"), 2),
            "sequence classifier with labels negative",
        ),
        (Curated("owner/name", "bert", "mnli", ("a", "b", "c"), 2), "sequence classifier with labels negative"),
        (Curated("owner/name", "bert", "squad", (), 2), "sequence classifier with labels negative"),
        (Curated("owner/name", "roberta", "sst2", ("negative", "positive"), 6), "family bert, 2 layers"),
    ],
)
def test_where_a_well_known_model_is_another_its_files_count_and_a_line_says_so(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, entry: Curated, files: str
) -> None:
    monkeypatch.setattr(curated, "curated", lambda: (entry,))
    found = resolve("owner/name", "sst2")
    assert describe(found.path).labels == ("negative", "positive")
    assert found.note is not None
    assert found.note.startswith("the list of well-known models is wrong about owner/name, whose own files count: ")
    assert files in found.note
    assert "\n" not in found.note


def test_numbered_labels_of_another_model_than_the_list_knows_stay_numbered(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads(fake_hub.files["config.json"]) | {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    fake_hub.files["config.json"] = json.dumps(config).encode()
    known = Curated("owner/name", "bert", "sst2", ("positive", "negative"), 12)
    monkeypatch.setattr(curated, "curated", lambda: (known,))
    found = resolve("owner/name", "sst2")
    assert describe(found.path).labels == ("LABEL_0", "LABEL_1")
    assert "2 layers" in str(found.note)


def test_a_well_known_model_that_is_as_the_list_says_needs_no_words(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Curated("owner/name", "bert", "sst2", ("negative", "positive"), 2)
    monkeypatch.setattr(curated, "curated", lambda: (known,))
    assert resolve("owner/name", "sst2").note is None
    monkeypatch.setattr(curated, "curated", lambda: ())
    assert resolve("owner/name", "sst2").note is None


def test_a_tokenizer_that_is_too_large_is_refused_before_download(fake_hub: FakeHub) -> None:
    fake_hub.files["tokenizer.json"] = b" " * (2**23 + 1)
    refused("tokenizer.json of owner/name has 8 MB")
    assert fake_hub.asked == ["/api/models/owner/name"]


def test_offline_mode_is_out_of_reach() -> None:
    refused("out of reach")


def test_an_unknown_model_is_told(fake_hub: FakeHub) -> None:
    fake_hub.status, fake_hub.code = 404, "RepoNotFound"
    refused("no public model 'owner/name'")


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "RevisionNotFound", f"the Hub has no revision {'1' * 40} of owner/name"),
        (403, "GatedRepo", "with its owner's permission; log in with `hf auth login`"),
        (401, "", "answered 401 (it wants a valid token; log in"),
        (403, "", "answered 403 (that is not allowed"),
        (429, "", "answered 429 (too many requests; wait"),
        (503, "", "answered 503 and 'owner/name"),
    ],
)
def test_why_the_hub_refuses_is_told(fake_hub: FakeHub, status: int, code: str, words: str) -> None:
    fake_hub.status, fake_hub.code = status, code
    refused(words, f"owner/name@{'1' * 40}")


def test_weights_that_can_run_code_are_refused_before_download(fake_hub: FakeHub) -> None:
    del fake_hub.files["model.safetensors"]
    refused("pytorch_model.bin is refused")
    assert fake_hub.asked == ["/api/models/owner/name"]


def test_a_model_over_the_limit_is_refused_before_download(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_MAX_PARAMETERS", "100")
    refused("the limit is")
    assert fake_hub.asked == ["/api/models/owner/name"]


def test_a_download_that_breaks_leaves_nothing(fake_hub: FakeHub) -> None:
    answer = fake_hub.answer

    def broken(path: str) -> tuple[int, bytes, dict[str, str]]:
        return (403, b"", {}) if path.endswith("/model.safetensors") else answer(path)

    fake_hub.answer = broken  # type: ignore[method-assign]
    refused("failed")


@pytest.mark.parametrize("name", ["owner", "owner/../name", "../name", "owner/name/x", "o w/name", "a--b/c", "/name"])
def test_what_is_no_hub_id_is_refused_without_asking(name: str) -> None:
    refused("is not a Hub id", name)


@pytest.mark.parametrize("revision", ["main", "0123456", "0123456789abcdef"])
def test_a_revision_that_is_no_whole_commit_is_refused_with_how_it_is_named(revision: str) -> None:
    refused("owner/name@commit with all 40 hexadecimal digits", f"owner/name@{revision}")
    with pytest.raises(CheckpointError, match="owner/name@ and the 40 hexadecimal digits"):
        resolve(f"owner/name@{revision}", "csv")


def test_libraries_are_online_again_after_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point_to(monkeypatch, "http://127.0.0.1:9")
    with hub.offline_unless_reachable("nyu-mll/glue"):
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_a_record_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / hub.RECORD)
    assert hub.read_record(tmp_path) == {}
