"""What if: the budget solved anew for any target, without a run; and why a sublayer is dropped."""

from __future__ import annotations

import streamlit as st

from pgb_core import demo_mode, experience, jobs, replan, scored, store
from pgb_core.errors import PGBError, RunError
from pgb_core.experience import Experience
from pgb_core.figures import what_if as figures
from pgb_core.latency_table import LatencyTable
from pgb_core.replan import Plan
from pgb_core.scored import Record
from pgb_core.settings import get_settings
from pgb_core.spec import PruneSpec
from ui import frame, plan, read_only, records, scoring, session, units, url, wishes, words
from ui.wishes import Wish


def main() -> None:
    """Draw the page."""
    frame.require("what_if")
    frame.heading("What if", "Move the target: what would be kept of every layer, how small and fast, at which loss.")
    if scoring.running():
        return
    record, place = choose()
    if record is None:
        return
    latency = records.latency_of(record)
    if latency is None and not demo_mode.on():
        offer_latency(record)
    runs = store.list_runs(get_settings().runs_dir)
    past = experience.past_runs(runs, record.spec["fingerprint"], record.spec["task"])
    explore(place, latency, experience.learn(past), len(past))


def choose() -> tuple[Record | None, str]:
    """The record that the URL names; without any, what to do."""
    places = scored.find(get_settings().runs_dir)
    found: dict[str, tuple[Record, str]] = {}
    for key, path in places.items():
        try:
            found[key] = (records.record_at(place := records.place_of(path)), place)
        except RunError as error:
            st.warning(units.plain(str(error)))
    if not found:
        with st.container(border=True):
            st.subheader("Nothing is scored yet", anchor=False)
            st.write(
                "Once a checkpoint has been scored on a task, every target can be tried here at once, without a run: "
                "the scoring prices all that could be kept of each layer, and the page chooses anew as you move."
            )
            scoring.form()
        return None, ""
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        key = url.select(
            st.selectbox,
            "Scored checkpoint and task",
            "record",
            {key: records.label(record) for key, (record, _) in found.items()},
            resets=("pins", "layer", "kind", "target"),
            help=words.RECORD,
        )
    with right, st.popover("Score another", icon=":material/query_stats:", width="stretch"):
        scoring.form()
    return found[key]


def offer_latency(record: Record) -> None:
    """Without a latency table of this server: how to get one."""
    spec = {"device": "auto", **records.spec_of(record)}
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("The latency of this shape has not been measured on this server yet.")
        if st.button("Measure latency", icon=":material/timer:", help=words.PREDICTED_LATENCY):
            scoring.start(spec)


@st.fragment
def explore(place: str, latency: LatencyTable | None, learned: Experience | None, past: int) -> None:
    """The controls and all that follows from them; only this is drawn anew when the slider moves."""
    record = records.record_at(place)
    try:
        with st.container(border=True):
            wish, market = wishes.ask(record, place, latency)
        found = replan.solve(market, [wish.target], wish.constraints)[0]
        ahead = records.prospect(place, wish.method, wish.goal, latency, wish.constraints)
    except PGBError as error:
        st.error(units.plain(str(error)))
        return
    band = learned.band(found.loss) if learned else None
    totals = replan.totals(record, found.options, latency)
    plan.headline(record, totals, found, latency)
    st.markdown(figures.explain_band(band, learned, past), help=words.BAND)
    left, right = st.columns([5, 4], gap="medium")
    with left:
        selected = plan.choose(record, found)
        plan.picture(record, wish, found, selected)
    with right:
        plan.curve(record, wish, found, ahead.path, learned)
        plan.why(market, found, ahead, wish, selected)
    real_run(record, place, wish, totals, latency)
    url.settle()  # the frame does it only when the whole page is drawn


def real_run(record: Record, place: str, wish: Wish, totals: replan.Totals, latency: LatencyTable | None) -> None:
    """The button that makes a run of the plan, and in what that may differ."""
    st.subheader("Make it real", anchor=False)
    if read_only.instead("make a run of this plan"):
        return
    budget, sparsity = (wish.goal, wish.target) if wish.goal != replan.LATENCY else ("weights", totals.sparsity)
    notes = [
        "A run scores and prices anew, checks with the model what several dropped sublayers do together, and measures."
    ]
    if wish.goal == replan.LATENCY:
        notes.append(
            f"It takes a share of weights, not a latency: {units.percent(sparsity)}, as this plan removes. Its choice "
            "at that share may be another than this plan's" + _of_the_run(record, place, wish, sparsity, latency)
        )
    st.caption(" ".join(notes))
    if removed := records.uploads_removed(record):
        st.caption("The files that this was scored on are no longer on the server: upload them on the Prune page.")
    if st.button("Prune like this", type="primary", icon=":material/content_cut:", disabled=removed):
        constraints = wish.constraints
        start(
            {
                **records.spec_of(record),
                "method": wish.method,
                "sparsity": sparsity,
                "budget": budget,
                "min_groups": constraints.min_groups,
                "max_groups": constraints.max_groups,
                "pins": tuple(map(str, constraints.pins)),
            }
        )


def _of_the_run(record: Record, place: str, wish: Wish, sparsity: float, latency: LatencyTable | None) -> str:
    """What the run would take, by the same tables."""
    try:
        market = records.market(place, wish.method, "weights", latency)
        there: Plan = replan.solve(market, [sparsity], wish.constraints)[0]
    except PGBError:
        return "."
    milliseconds = replan.totals(record, there.options, latency).milliseconds
    return "." if milliseconds is None else f"; the tables give it {units.milliseconds(milliseconds)}."


def start(values: dict[str, object]) -> None:
    """Start the run and go to its page."""
    try:
        run_id = jobs.submit(PruneSpec(**values), session=session.token())  # type: ignore[arg-type]
    except PGBError as error:
        st.error(units.plain(str(error)))
    else:
        st.switch_page(frame.path("prune"), query_params={"run": run_id, **session.proof()})


main()
