import csv
import io

import numpy as np
import plotly.graph_objects as go
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.figures.export import INK, PAPER, csv_text, file_name, stand_alone


def test_a_file_is_named_in_plain_words() -> None:
    assert file_name("Trade-off: accuracy, “BBC” / ../etc", "svg") == "trade-off-accuracy-bbc-etc.svg"
    assert len(file_name("long " * 100, "csv")) < 200


def test_a_page_stands_alone_white_and_described() -> None:
    figure = go.Figure(go.Scatter(x=[1], y=[2]), layout={"paper_bgcolor": "rgba(0,0,0,0)", "font": {"color": "white"}})
    page = stand_alone(figure, "a <b>", 'two "points" & more')
    assert "<title>a &lt;b&gt;</title>" in page
    assert 'aria-label="two &quot;points&quot; &amp; more"' in page
    assert f'"paper_bgcolor":"{PAPER}"' in page
    assert f'"color":"{INK}"' in page
    assert "<script src" not in page  # nothing is fetched
    assert figure.layout.font.color == "white"  # the figure on the page keeps its colors


def test_csv_holds_rows_or_columns_in_the_order_of_the_headings() -> None:
    rows = [{"a": 0.1, "b": "x, y", "c": None}, {"a": float("nan"), "b": ["pgb", "kwon"]}]
    expected = 'B,Share,c\n"x, y",0.1,\n"pgb, kwon",,\n'
    assert csv_text(rows, {"b": "B", "a": "Share", "c": "c"}) == expected
    columns = {"row": np.array([0, 1]), "0": np.array([0.5, np.nan], dtype=np.float32)}
    assert csv_text(columns, {"row": "row", "0": "0"}) == "row,0\n0,0.5\n1,\n"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])))
def test_no_text_is_taken_for_a_formula(text: str) -> None:
    (cell,) = list(csv.reader(io.StringIO(csv_text([{"a": text}], {"a": "A"}), newline="")))[1] or [""]
    assert not cell.startswith(("=", "+", "-", "@"))
    assert cell.removeprefix("'") == text.removeprefix("'")


def test_negative_numbers_stay_numbers() -> None:
    assert csv_text([{"a": -0.5}], {"a": "A"}) == "A\n-0.5\n"
