import time
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pgb_core import disk, quota, store
from pgb_core.label import Label
from pgb_core.settings import get_settings
from tests.pages.visit import healthy, query, visit, words
from tests.sample_run import make_sample_run, make_unfinished_run
from ui import history

HOSTILE = "**b** <img src=x onerror=alert(1)> :red[r] [l](http://a.b) =1+1"


@pytest.fixture
def runs() -> list[str]:
    """A named and pinned run, one of another method, and one that failed."""
    folder = get_settings().runs_dir
    first = make_sample_run(folder, sparsity=0.3, seed=1).name
    store.write_label(folder, first, Label("For Monday", "shown in the lecture", pinned=True))
    second = make_sample_run(folder, method="structured", checkpoint="mine", task="csv", seed=2).name
    failed = make_unfinished_run(folder, store.Status("failed", message="no memory", created=time.time())).name
    return [first, second, failed]


def listed(app: AppTest) -> list[tuple[str, str]]:
    """Name and method of the rows of the table."""
    table = app.dataframe[0].value
    return list(zip(table["name"], table["method"], strict=True))


def label_of(run: str) -> Label:
    return store.find_run(get_settings().runs_dir, run).label


def button(app: AppTest, name: str) -> Any:
    return next(entry for entry in app.button if entry.label == name)


def plain(app: AppTest) -> list[str]:
    return [entry.value for entry in app.text]


def test_without_runs_the_page_says_what_to_do() -> None:
    app = visit("runs")
    assert app.title[0].value == "Runs"
    assert "No run yet" in words(app)


def test_the_quota_and_what_went_for_it_are_said(runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "quota" not in words(visit("runs"))
    used = {run.id: disk.use(run) for run in store.list_own(get_settings().runs_dir)}
    monkeypatch.setenv("PGB_QUOTA_GIGABYTES", str((used[runs[0]] + used[runs[2]]) / 1e9))
    quota.make_room(get_settings().runs_dir)
    app = visit("runs")
    assert "of a quota of" in words(app)
    assert [entry.label for entry in app.expander][-1] == "Removed to hold the disk quota: 1 run"
    assert list(app.dataframe[-1].value["run"]) == [runs[1]]
    assert len(listed(app)) == 2


def test_all_runs_are_listed_with_what_they_take(runs: list[str]) -> None:
    app = visit("runs")
    assert len(listed(app)) == 3
    assert "3 runs of this server" in words(app)
    assert set(app.dataframe[0].value["state"]) == {"done", "failed"}
    assert app.dataframe[0].value["megabytes"].max() > 0.05


@pytest.mark.parametrize(
    ("text", "count"),
    [("monday", 1), ("LECTURE for", 1), ("mine", 1), ("structured csv", 1), ("structured bbc", 0), ("failed", 1),
     ("pinned", 1), ("bbc-news", 2), ("", 3), ("<script>", 0), ("(*+?[", 0)],
)  # fmt: skip
def test_a_search_finds_runs_by_every_word_and_goes_to_the_url(runs: list[str], text: str, count: int) -> None:
    app = visit("runs")
    app.text_input(key="url_q").set_value(text).run()
    assert query(healthy(app), "q") == (text or None)
    assert (len(listed(app)) if app.dataframe else 0) == count
    assert (count == 0) == ("No run matches" in words(app))


def test_a_link_restores_search_state_and_selection(runs: list[str]) -> None:
    app = visit("runs", q="demo", state="done", run=runs[0])
    assert app.text_input(key="url_q").value == "demo"
    assert listed(app) == [("For Monday", "pgb")]
    assert plain(app)[0].startswith("For Monday · demo · bbc-news · pgb · 30% removed")
    assert (query(app, "q"), query(app, "state"), query(app, "run")) == ("demo", "done", runs[0])
    app.selectbox(key="url_state").set_value("cancelled").run()
    assert query(healthy(app), "state") == "cancelled"
    assert "No run matches" in words(app)
    assert plain(app)[0].startswith("For Monday")  # selected all the same


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run", "../../etc"),
        ("run", "20200101-000000-000000"),
        ("run", "<script>"),
        ("state", "gone"),
        ("q", "x" * 5000),
    ],
)
def test_a_bad_query_gets_the_page_all_the_same(runs: list[str], key: str, value: str) -> None:
    app = visit("runs", **{key: value})
    assert app.title[0].value == "Runs"
    if key == "q":
        assert app.text_input(key="url_q").value == "x" * history.SEARCH_LENGTH
    else:
        assert len(app.warning) == 1
        assert query(app, key) != value


def test_a_run_is_renamed_and_gets_notes(runs: list[str]) -> None:
    app = visit("runs", run=runs[1])
    app.text_input(key=f"name_{runs[1]}").set_value("  A better\nname ")
    app.text_area(key=f"notes_{runs[1]}").set_value("one\ntwo")
    button(app, "Save").click().run()
    assert label_of(runs[1]) == Label("A better name", "one\ntwo")
    assert app.toast[0].value == "Saved."
    assert plain(healthy(app))[0].startswith("A better name · mine")
    assert ("A better name", "structured") in listed(app)
    other = visit("layers", run=runs[1])
    assert next(text for text in other.selectbox(key="url_run").options if text.startswith("A better name"))


def test_a_hostile_name_is_shown_as_it_is_and_nowhere_as_markup(runs: list[str]) -> None:
    store.write_label(get_settings().runs_dir, runs[0], Label(HOSTILE, HOSTILE))
    for page in ("runs", "prune"):
        app = visit(page, run=runs[0])
        assert any(text.startswith(HOSTILE) for text in plain(app))
        assert "onerror" not in words(app)
    assert not [entry for entry in visit("runs", run=runs[0]).markdown if entry.allow_html]
    app = visit("runs", run=runs[0])
    app.text_input(key="url_q").set_value(HOSTILE).run()
    assert len(listed(healthy(app))) == 1


def test_a_pin_locks_delete_and_is_taken_off(runs: list[str]) -> None:
    app = visit("runs", run=runs[0], state="pinned")
    assert listed(app) == [("For Monday", "pgb")]
    assert "Delete for good" not in [entry.label for entry in app.button]
    button(app, "Unpin").click().run()
    assert label_of(runs[0]) == Label("For Monday", "shown in the lecture", pinned=False)
    assert "Delete for good" in [entry.label for entry in healthy(app).button]
    button(app, "Pin").click().run()
    assert label_of(runs[0]).pinned


def test_a_run_is_deleted_by_its_second_button_only(runs: list[str]) -> None:
    folder = get_settings().runs_dir
    app = visit("runs", run=runs[1])
    assert (folder / runs[1]).is_dir()
    assert "cannot be undone" in words(app)
    button(app, "Delete for good").click().run()
    assert not (folder / runs[1]).exists()
    assert app.toast[0].value == "Deleted."
    assert query(healthy(app), "run") is None
    assert len(listed(app)) == 2
    assert "no longer good" in words(visit("runs", run=runs[1]))


@pytest.mark.parametrize("parameters", [{"delete": "1"}, {"action": "delete"}, {"delete_for_good": "true"}])
def test_no_link_deletes(runs: list[str], parameters: dict[str, str]) -> None:
    visit("runs", run=runs[1], **parameters)
    assert (get_settings().runs_dir / runs[1]).is_dir()


def test_an_active_run_is_not_deleted(runs: list[str]) -> None:
    folder = get_settings().runs_dir
    status = store.this_process(store.Status("running", "importance", 0.2, created=time.time(), started=time.time()))
    running = make_unfinished_run(folder, status).name
    app = visit("runs", run=running, state="active")
    assert listed(app) == [("", "pgb")]
    assert "Delete for good" not in [entry.label for entry in app.button]
    assert "nothing to download" in words(app)


def test_a_run_that_became_pinned_meanwhile_is_not_deleted(runs: list[str]) -> None:
    app = visit("runs", run=runs[1])
    store.write_label(get_settings().runs_dir, runs[1], Label(pinned=True))
    button(app, "Delete for good").click().run()
    assert "Delete for good" not in [entry.label for entry in healthy(app).button]
    assert (get_settings().runs_dir / runs[1]).is_dir()


def test_a_run_that_was_deleted_meanwhile_is_told(runs: list[str]) -> None:
    app = visit("runs", run=runs[1])
    store.delete_run(get_settings().runs_dir, runs[1])
    button(app, "Save").click().run()
    assert "There is no run" in healthy(app).warning[0].value
    assert query(app, "run") is None


def test_downloads_say_their_size_and_a_model_past_the_limit_is_locked(
    runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = visit("runs", run=runs[0])
    labels = [entry.label for entry in app.get("download_button")]
    assert {"Result, JSON", "Scores, CSV", "Layers, CSV", "Figures, ZIP", "This table as CSV"} < set(labels)
    assert next(text for text in labels if text.startswith("Model, ZIP, ") and text.endswith("kB"))
    monkeypatch.setenv("PGB_MAX_DOWNLOAD_MEGABYTES", "0")
    app = visit("runs", run=runs[0])
    model = next(entry for entry in app.get("download_button") if entry.label.startswith("Model"))
    assert model.disabled
    assert f"export --run {runs[0]}" in words(app)


def test_the_command_and_the_snippet_are_shown_without_paths(runs: list[str]) -> None:
    app = visit("runs", run=runs[0])
    command, snippet, conditions = (entry.value for entry in app.code)
    assert "python -m pgb_core prune --checkpoint=demo" in command
    assert "prune(spec" in snippet
    assert "SHA-256" in conditions
    assert str(Path(get_settings().runs_dir).parent) not in command + snippet + conditions


def test_a_sample_is_only_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_SHOW_SAMPLES", "1")
    sample = store.list_runs(get_settings().runs_dir)[0]
    app = visit("runs", run=sample.id)
    assert "Shipped sample, measured on" in words(app)
    assert "0 runs of this server" in words(app)
    assert not {"Save", "Pin", "Delete for good"} & {entry.label for entry in app.button}
    assert not [entry for entry in app.get("download_button") if entry.label.startswith("Model")]
    assert len(app.code) == 3
