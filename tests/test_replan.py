"""Plans without a model: the same as with one, monotone, within their targets, and counted as the modules are."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.synthetic_record import make_record
from pgb_core import evaluation, planning, replan, results, scored, what_if
from pgb_core.batching import batches
from pgb_core.checkpoints import resolve
from pgb_core.constraints import Constraints, Pin
from pgb_core.errors import SpecError
from pgb_core.grouped import cut, install
from pgb_core.options import TABLE_METHODS, Option
from pgb_core.pricing import price_candidates
from pgb_core.replan import LATENCY, Market
from pgb_core.scored import Record
from pgb_core.settings import get_settings
from tests.network import Network
from tests.sample_latency import sample_table

SIZES = {"layers": 2, "hidden": 32, "heads": 4, "neurons": 64}
LATENCIES = sample_table(SIZES)
NONE = Constraints()
LIMITS = [NONE, Constraints(max_groups=2), Constraints(min_groups=3), Constraints(pins=(Pin(0, "attention", 2),))]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    runs_dir = tmp_path_factory.mktemp("runs")
    make_record(runs_dir, SIZES, seed=2)
    return scored.read(next(iter(scored.find(runs_dir).values())))


@pytest.fixture(scope="module")
def tables(network: Network) -> list[list[Option]]:
    found = list(batches(network.examples, 16))
    return price_candidates(
        network.model, network.sublayers, network.statistics, network.candidates, found[:3], found[3:]
    )


@pytest.fixture
def real(network: Network, tables: list[list[Option]], tiny_checkpoint: Path) -> Record:
    """The record of the tiny checkpoint, as a run leaves it."""
    checkpoint = resolve(str(tiny_checkpoint), "csv")
    spec = {"checkpoint": "tiny", "fingerprint": "", "task": "tiny", "importance": "compensated", "seed": 0}
    spec |= {"calibration_samples": 96, "max_length": 32}
    runs_dir = get_settings().runs_dir
    results.save_record(runs_dir, spec, checkpoint, network.model, network.sublayers, tables)
    return scored.read(next(iter(scored.find(runs_dir).values())))


# --- the same as a run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", ["weights", "flops"])
@pytest.mark.parametrize("method", list(TABLE_METHODS))
def test_a_plan_is_what_a_run_would_choose(
    network: Network, tables: list[list[Option]], real: Record, method: str, budget: str
) -> None:
    for sparsity, constraints in product((0.0, 0.3, 0.62, 0.8), LIMITS):
        goal = planning.Goal(sparsity, budget, constraints)
        choice = planning.choose_options(network.sublayers, tables, method, goal)
        (plan,) = replan.solve(replan.market_of(real, method, budget), [sparsity], constraints)
        assert plan.options == choice.options
        assert plan.loss == pytest.approx(choice.loss)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8])
def test_totals_are_those_of_the_modules(
    network: Network, tables: list[list[Option]], real: Record, sparsity: float
) -> None:
    (plan,) = replan.solve(replan.market_of(real, "pgb-mixed", "weights"), [sparsity], NONE)
    layouts = [table[n].layout for table, n in zip(tables, plan.options, strict=True)]
    modules = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    model = install(network.model, network.sublayers, modules)
    found = replan.totals(real, plan.options)
    assert found.encoder == evaluation.encoder_weights(model)
    assert found.parameters == evaluation.parameters(model)
    assert found.flops == evaluation.flops(model, batch=1, length=128)
    assert found.dropped == sum(layout.dropped for layout in layouts)
    assert found.heads == sum(layout.kept_units for layout in layouts if layout.shape.kind == "attention")
    tensors = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    dense = sum(t.numel() * t.element_size() for t in network.model.parameters())
    embedded = sum(b.numel() * b.element_size() for b in network.model.buffers())  # not saved
    assert found.bytes - real.dense["bytes"] == tensors - embedded - dense


def test_an_untouched_plan_has_the_sizes_of_the_dense_model(record: Record) -> None:
    (plan,) = replan.solve(replan.market_of(record, "pgb", "weights"), [0.0], NONE)
    found = replan.totals(record, plan.options)
    assert {name: getattr(found, name) for name in record.dense} == record.dense
    assert (found.dropped, found.groups, found.milliseconds, plan.loss) == (0, 0, None, 0.0)


# --- targets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", ["weights", "flops", LATENCY])
@pytest.mark.parametrize("method", list(TABLE_METHODS))
def test_less_is_never_better_and_mixed_is_never_worse(record: Record, method: str, goal: str) -> None:
    market = replan.market_of(record, method, goal, LATENCIES)
    path = replan.curve(market, NONE)
    assert len(path) >= 40
    assert [plan.target for plan in path] == sorted(plan.target for plan in path)
    first, *_, last = (plan.loss for plan in (path[::-1] if goal == LATENCY else path))
    assert first < last
    if goal == LATENCY:  # what is faster will do: here it holds exactly, with no window to be met
        assert all(later.loss <= earlier.loss for earlier, later in pairwise(path))
        mixed = replan.market_of(record, "pgb-mixed", goal, LATENCIES)
        best = replan.solve(mixed, [plan.target for plan in path], NONE)
        assert all(least.loss <= plan.loss + 1e-12 for least, plan in zip(best, path, strict=True))


@given(st.floats(0.0, 1.0), st.sampled_from(LIMITS), st.sampled_from(("pgb", "pgb-mixed")))
def test_a_latency_is_never_exceeded(record: Record, share: float, constraints: Constraints, method: str) -> None:
    market = replan.market_of(record, method, LATENCY, LATENCIES)
    low, high = replan.reach(market, constraints)
    target = low + share * (high - low) + 0.01
    (plan,) = replan.solve(market, [target], constraints)
    milliseconds = replan.totals(record, plan.options, LATENCIES).milliseconds
    assert milliseconds is not None
    assert milliseconds <= target + 0.002  # four sublayers, each rounded to a microsecond
    options = zip(record.sublayers, plan.options, strict=True)
    for sub, n in options:
        option = sub.options[n]
        assert method in option["methods"]
        assert constraints.admit(sub.layer, sub.shape.kind, (option["groups"],), option["units"])


def test_what_is_out_of_reach_says_what_is_in_reach(record: Record) -> None:
    market = replan.market_of(record, "pgb", LATENCY, LATENCIES)
    low, _ = replan.reach(market, NONE)
    with pytest.raises(SpecError, match=rf"0.5 ms is out of reach.* {low:.1f} ms"):
        replan.solve(market, [0.5], NONE)
    pinned = Constraints(pins=tuple(Pin(n, "feed_forward", 64) for n in range(2)))
    with pytest.raises(SpecError, match=r"sparsity 0.9 is out of reach"):
        replan.solve(replan.market_of(record, "structured", "weights"), [0.9], pinned)
    with pytest.raises(SpecError, match="has not been measured"):
        replan.market_of(record, "pgb", LATENCY)
    with pytest.raises(SpecError, match="does not choose from this table"):
        replan.market_of(record, "kwon", "weights")


# --- why -----------------------------------------------------------------------------------------------------------


def dropped_plan(market: Market) -> tuple[replan.Plan, int]:
    """A plan with a dropped sublayer, and its place."""
    for target in (0.8, 0.9, 0.95, 0.97):
        (plan,) = replan.solve(market, [target], NONE)
        for place, (sub, n) in enumerate(zip(market.record.sublayers, plan.options, strict=True)):
            if sub.options[n]["groups"] == 0:
                return plan, place
    raise AssertionError("nothing is dropped")


def test_a_dropped_sublayer_comes_back_where_the_curve_keeps_it_and_not_before(record: Record) -> None:
    market = replan.market_of(record, "structured", "weights")
    path = replan.curve(market, NONE)
    plan, place = dropped_plan(market)
    back = replan.comes_back(market, path, place, plan.target, NONE)
    assert back is not None
    assert back.target is not None
    assert back.target < plan.target
    kept = {p.target: record.sublayers[place].options[p.options[place]]["units"] > 0 for p in path}
    assert kept[back.target]
    assert not any(held for target, held in kept.items() if back.target < target < plan.target)


def test_at_the_price_of_return_that_option_and_dropping_are_worth_the_same(record: Record) -> None:
    market = replan.market_of(record, "structured", "weights")
    plan, place = dropped_plan(market)
    back = replan.comes_back(market, replan.curve(market, NONE), place, plan.target, NONE)
    assert back is not None
    options = [o for o in record.sublayers[place].options if "structured" in o["methods"]]
    worth = {o["label"]: o["loss"] + back.price * o["cost"] for o in options}
    assert worth[back.label] == pytest.approx(worth["dropped"])
    assert min(worth.values()) == pytest.approx(worth["dropped"])


def test_a_pinned_sublayer_has_no_price_of_return_where_no_option_is_left(record: Record) -> None:
    market = replan.market_of(record, "pgb", "weights")
    plan, place = dropped_plan(replan.market_of(record, "structured", "weights"))
    only_wide = Constraints(pins=(Pin(record.sublayers[place].layer, record.sublayers[place].shape.kind, 10_000),))
    assert replan.comes_back(market, [plan], place, plan.target, only_wide) is None


def test_the_tables_of_a_plan_are_rated_like_those_of_a_run(record: Record) -> None:
    market = replan.market_of(record, "pgb", LATENCY, LATENCIES)
    constraints = Constraints(max_groups=2)
    low, high = replan.reach(market, constraints)
    (plan,) = replan.solve(market, [(low + high) / 2], constraints)
    tables = replan.tables_of(market, plan, replan.offered(market, constraints))
    ratings = what_if.rate(tables, "pgb", LATENCY)
    for table, rating in zip(tables, ratings, strict=True):
        assert rating[table["chosen"]].allowed
        assert rating[table["chosen"]].regret == pytest.approx(0)
        barred = [o for o, r in zip(table["options"], rating, strict=True) if not r.allowed]
        assert all(o["groups"] > 2 or "pgb" not in o["methods"] for o in barred)
    assert what_if.margin(tables, "pgb", LATENCY) >= 0
