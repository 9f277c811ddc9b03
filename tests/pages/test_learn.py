"""The Learn page: every step, every control, every link; and no torch while it is drawn."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from pgb_core import narration
from pgb_core.lesson import learn, preset
from tests.pages.visit import charts, healthy, query, visit, words
from tests.test_imports import ROOT
from ui.glossary import TERMS
from ui.lesson import encode


def weights(app: AppTest) -> np.ndarray:
    """What is written in the cells of the first heatmap."""
    text = json.loads(charts(app)[0].spec)["data"][0]["text"]
    return np.array([[float(cell.replace("−", "-")) for cell in row] for row in text])


def explained(app: AppTest) -> str:
    return next(block.value for block in app.markdown if "\n- " in block.value and "**" in block.value)


@pytest.mark.parametrize("step", range(1, 7))
def test_each_step_has_its_formula_its_symbols_two_pictures_and_the_real_numbers(step: int) -> None:
    app = visit("learn", step=str(step))
    name = narration.STEPS[step - 1]
    assert any(block.value == f"{step}. {name}" for block in app.subheader)
    assert len(app.latex) == 1
    assert len(charts(app)) == 4
    shown = learn(preset("planted", 0), groups=4, density=0.25, correlation=0.6)
    assert narration.look(shown, step) in words(app)


def test_all_steps_at_once() -> None:
    app = visit("learn", step="all")
    assert len(app.latex) == 6
    assert len(charts(app)) == 14
    assert sum(len(chart.spec) for chart in charts(app)) < 500_000
    assert not [button for button in app.button if button.label.startswith("Next")]


def test_back_and_next_walk_through_the_steps() -> None:
    app = visit("learn")
    assert query(app, "step") == "1"
    app.button(key="Next_1").click().run()
    assert query(healthy(app), "step") == "2"
    app.button(key="Back_2").click().run()
    assert query(healthy(app), "step") == "1"
    assert app.button(key="Back_1").disabled


def test_the_verdict_is_that_of_the_numbers() -> None:
    for name, verdict in (("planted", "PGB with 4 groups wins"), ("rows", "Whole rows win")):
        app = visit("learn", preset=name)
        assert verdict in explained(app)
    app = visit("learn", preset="rows", weights=encode(preset("planted", 0)))
    assert "PGB with 4 groups wins" in explained(app)


def test_density_decides_which_groups_there_are() -> None:
    app = visit("learn", groups="3")
    assert query(app, "groups") == "3"
    app.segmented_control(key="url_density").set_value("0.50").run()
    assert query(healthy(app), "groups") == "2"
    assert "50% of the weights each" in words(app)
    assert not app.warning


def test_inputs_decide_what_the_refit_can_do() -> None:
    app = visit("learn", step="6", inputs="independent")
    assert "independent" in words(app)
    app.segmented_control(key="url_inputs").set_value("alike").run()
    assert "makes up for" in words(healthy(app))


def test_a_matrix_in_the_link_is_shown_and_can_be_undone() -> None:
    start = preset("planted", 0)
    mine = start.copy()
    mine[0, 0] = -7.3
    app = visit("learn", weights=encode(mine))
    np.testing.assert_array_equal(weights(app), mine)
    button = next(button for button in app.button if button.label == "Undo edits")
    assert not button.disabled
    button.click().run()
    assert query(healthy(app), "weights") is None
    np.testing.assert_array_equal(weights(app), start)


def test_edits_outlast_a_look_into_the_glossary() -> None:
    mine = preset("planted", 0)
    mine[0, 0] = -7.3
    app = visit("learn", weights=encode(mine))
    app.segmented_control(key="url_view").set_value("glossary").run()
    app.segmented_control(key="url_view").set_value("lesson").run()
    np.testing.assert_array_equal(weights(healthy(app)), mine)


def test_another_preset_or_a_new_random_one_forgets_the_edits() -> None:
    code = encode(np.full((12, 12), 0.5))
    app = visit("learn", weights=code)
    app.segmented_control(key="url_preset").set_value("heavy").run()
    assert query(healthy(app), "weights") is None
    app = visit("learn", weights=code)
    next(button for button in app.button if button.label == "New random").click().run()
    assert query(healthy(app), "weights") is None
    seed = query(app, "seed")
    assert seed is not None
    np.testing.assert_array_equal(weights(app), preset("planted", int(seed)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights", "x" * 192),
        ("weights", "A" * 100_000),
        ("weights", "<script>"),
        ("seed", "-1"),
        ("seed", "99999999999"),
        ("seed", "٣"),
        ("step", "7"),
        ("density", "0.9"),
        ("groups", "5"),
        ("preset", "../etc"),
        ("inputs", "nan"),
        ("view", "x"),
    ],
)
def test_a_hostile_link_gets_a_friendly_line_and_the_page_all_the_same(key: str, value: str) -> None:
    app = visit("learn", **{key: value})
    assert len(app.warning) == 1
    assert len(charts(app)) == 4
    assert query(app, key) != value


@pytest.mark.parametrize("key", ["seed", "preset", "term"])
def test_what_a_link_says_is_no_markdown(key: str) -> None:
    app = visit("learn", **{key: "![x](http://e.example/i.png)\n\n# Free"})
    (warning,) = app.warning
    assert r"“\!\[x\]\(http\://e.example/i.png\) \# Free”" in warning.value


def test_a_matrix_of_zeros_is_no_error() -> None:
    app = visit("learn", step="all", weights=encode(np.zeros((12, 12))))
    assert "All weights are zero" in words(app)


def test_a_term_in_the_link_is_opened_first() -> None:
    app = visit("learn", term="regret")
    assert app.subheader[0].value == "Regret"
    assert {block.value for block in app.subheader} >= {term.title for term in TERMS.values()}
    assert {block.anchor for block in app.subheader} >= set(TERMS)
    app.selectbox(key="term").set_value("density").run()
    assert query(healthy(app), "term") == "density"
    assert app.subheader[0].value == "Density"


def test_an_unknown_term_is_said_to_be_unknown() -> None:
    app = visit("learn", term="no-such-term")
    assert "no-such-term" in app.warning[0].value
    assert app.selectbox(key="term").value is None


def test_the_glossary_gives_way_to_the_lesson() -> None:
    app = visit("learn", term="regret")
    app.segmented_control(key="url_view").set_value("lesson").run()
    assert query(healthy(app), "term") is None
    assert len(charts(app)) == 4


def test_drawing_the_page_loads_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys\nfrom tests.pages.visit import visit\n"
        "visit('learn', step='all')\n"
        "print([name for name in ('torch', 'sklearn', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=90
    )
    assert done.stdout.splitlines()[-1] == "[]"
