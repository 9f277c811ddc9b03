"""What the numbers of a lesson say, in sentences: what to look at in each step, and which shape wins and why.

Every sentence follows from the computed values, never from the name of the matrix one began with. Rows and columns are
counted from 1.
"""

from __future__ import annotations

import numpy as np

from pgb_core.grouping import FloatArray
from pgb_core.layout import IntArray
from pgb_core.lesson import HEAD, SIZE, STRUCTURED, Lesson, Method

EVEN = 0.02
"""Numbers that differ by no more than this share of the larger one are called even."""
STEPS = ("Importance", "Permutation", "Groups", "Pruning", "Re-permutation", "Refit")


def title(lesson: Lesson, method: Method) -> str:
    """A method as it is called beside its numbers."""
    names = {"unstructured": "Single weights", "rows": "Whole rows", "heads": f"Heads of {HEAD} rows"}
    return names.get(method, f"PGB, {lesson.groups} groups")


def look(lesson: Lesson, step: int) -> str:
    """What to look at in step `step`, counted from 1, with the numbers of this matrix."""
    if not lesson.importance.any():
        return "All weights are zero, so no step has anything to choose. Change a weight to see something happen."
    return (_importance, _permutation, _groups, _pruning, _re_permutation, _refit)[step - 1](lesson)


def explain(lesson: Lesson) -> list[str]:
    """Which structured shape loses least after the refit, then why, and what single weights would lose; as Markdown."""
    if not lesson.importance.any():
        return ["All weights are zero: nothing can be lost, whatever the shape."]
    sentences = [_verdict(lesson), _reason(lesson), _refit_differs(lesson), _single_weights(lesson)]
    return [sentence for sentence in sentences if sentence]


# --- the steps -----------------------------------------------------------------------------------------------------


def _importance(lesson: Lesson) -> str:
    largest, most = _place(np.abs(lesson.matrix)), _place(lesson.importance)
    text = f"The largest weight is {_weight(lesson, largest)}. "
    if largest == most:
        text += "It is also the most important one. "
    else:
        text += (
            f"The most important one is {_weight(lesson, most)}: its input is harder to replace by the others, "
            "which is what the denominator measures. "
        )
    share = lesson.outcomes["unstructured"].kept_importance
    return text + f"The most important {lesson.density:.0%} of the weights hold {share:.0%} of the importance."


def _permutation(lesson: Lesson) -> str:
    rows, columns = lesson.pgb.layout.row_groups[0], lesson.pgb.layout.column_groups[0]
    corner = lesson.importance[: len(rows), : len(columns)].sum() / lesson.importance.sum()
    now = lesson.importance[np.ix_(rows, columns)].sum() / lesson.importance.sum()
    return (
        f"The first rows are now {_listed(rows)}, the first columns {_listed(columns)}. "
        f"The top left corner of {len(rows)} × {len(columns)} held {corner:.0%} of the importance before and holds "
        f"{now:.0%} now. No weight has changed."
    )


def _groups(lesson: Lesson) -> str:
    layout, kept = lesson.pgb.layout, lesson.pgb.kept_importance
    each = [value / lesson.importance.sum() for value in layout.block_sums(lesson.importance)]
    text = (
        f"The {lesson.groups} groups hold {kept:.0%} of the importance in {lesson.density:.0%} of the weights; "
        f"the strongest has {max(each):.0%}, the weakest {min(each):.0%}."
    )
    left = SIZE - sum(map(len, layout.row_groups))
    if left:
        text += f" The {left} least important rows are in no group and will be removed whole."
    return text


def _pruning(lesson: Lesson) -> str:
    mask, sizes = lesson.pgb.layout.mask(), np.abs(lesson.matrix)
    goes, stays = sizes[~mask].max(), sizes[mask].min()
    why = "here the blocks take just the large ones"
    if goes > stays:
        why = "a block is kept or cut as a whole"
    return (
        f"{int((~mask).sum())} of {SIZE * SIZE} weights go, and with them "
        f"{1 - lesson.pgb.kept_importance:.0%} of the importance. The largest that goes is {goes:.1f} in magnitude, "
        f"the smallest that stays {stays:.1f}: {why}."
    )


def _re_permutation(lesson: Lesson) -> str:
    layout = lesson.pgb.layout
    first = int(layout.row_order()[0]) + 1
    back = "is already in its place" if first == 1 else f"goes back to place {first}"
    return (
        f"The output that is computed first {back}. The same {layout.kept} weights, now in their original places: "
        f"no block is to be seen, but the computation is still {layout.kept} multiplications in place of {SIZE * SIZE}."
    )


def _refit(lesson: Lesson) -> str:
    outcome = lesson.pgb
    before, after = _percent(outcome.error_before), _percent(outcome.error_after)
    if _even(outcome.error_before, outcome.error_after):
        why = (
            "these inputs are independent, so none can stand in for another"
            if not (lesson.gram - np.diag(lesson.gram.diagonal())).any()
            else "little was lost that inputs of the same group could make up for"
        )
        return f"The reconstruction error is {before} before the refit and {after} after it: {why}."
    made_up = 1 - outcome.error_after / outcome.error_before
    change = np.abs(outcome.refitted - outcome.pruned)
    return (
        f"The reconstruction error falls from {before} to {after}: the refit makes up for {made_up:.0%} of it. "
        f"The weight that changes most is in {_name(_place(change))}: from {_number(outcome.pruned, change)} to "
        f"{_number(outcome.refitted, change)}."
    )


# --- the comparison ------------------------------------------------------------------------------------------------


def _verdict(lesson: Lesson) -> str:
    best = lesson.best_structured
    others = [lesson.outcomes[method] for method in STRUCTURED if method != best.method]
    errors = ", ".join(f"{_percent(o.error_after)} with {_inside(lesson, o.method)}" for o in others)
    level = [o for o in others if _even(o.error_after, best.error_after)]
    if level:
        names = " and ".join(_inside(lesson, o.method) for o in (best, *level))
        return f"**Even: {names}.** {_percent(best.error_after)} of the output is lost, {errors}."
    winner = f"PGB with {lesson.groups} groups wins" if best.method == "pgb" else f"{title(lesson, best.method)} win"
    return (
        f"**{winner}** among the structured shapes: "
        f"{_percent(best.error_after)} of the output is lost after the refit, {errors}."
    )


def _reason(lesson: Lesson) -> str:
    """Why the best shape is better than the best of the other kind, groups against whole units."""
    groups = lesson.pgb
    units = min((lesson.outcomes["rows"], lesson.outcomes["heads"]), key=lambda outcome: outcome.error_after)
    better, worse = (groups, units) if groups.error_after <= units.error_after else (units, groups)
    if _even(groups.error_after, units.error_after):
        return (
            f"The groups hold {groups.kept_importance:.0%} of the importance, "
            f"{_inside(lesson, units.method)} {units.kept_importance:.0%}."
        )
    if better.kept_importance < worse.kept_importance:
        return (
            f"Importance alone would have said otherwise ({better.kept_importance:.0%} kept against "
            f"{worse.kept_importance:.0%}): it counts every weight by itself, but what remains of the error depends on "
            "how weights of a row add up and on what the refit can make up for."
        )
    count = len(units.layout.row_groups[0])
    if better is groups:
        return (
            f"The groups hold {groups.kept_importance:.0%} of the importance; the {count} rows that "
            f"{_inside(lesson, units.method)} keep hold only {units.kept_importance:.0%}, since each is kept with all "
            "its unimportant weights."
        )
    width = len(groups.layout.column_groups[0])
    return (
        f"Here importance lies in rows: {count} rows hold {units.kept_importance:.0%} of it. Groups share the columns "
        f"out, so each row may keep only {width} of its {SIZE} weights; they cut through these rows and hold "
        f"{groups.kept_importance:.0%}."
    )


def _refit_differs(lesson: Lesson) -> str:
    if _even(lesson.pgb.error_before, lesson.pgb.error_after):
        return ""
    return (
        f"The refit lowers the error of the groups from {_percent(lesson.pgb.error_before)} to "
        f"{_percent(lesson.pgb.error_after)}; whole rows gain nothing from it: a row that stays has all its inputs, "
        "and one that goes has none."
    )


def _single_weights(lesson: Lesson) -> str:
    single = lesson.outcomes["unstructured"]
    best = lesson.best_structured.error_after
    how = "less still" if single.error_after < best else "more"
    if _even(single.error_after, best):
        how = "as much"
    return (
        f"Single weights lose {how} ({_percent(single.error_after)}), and zeros in scattered places leave the matrix "
        f"its full size: all {SIZE * SIZE} multiplications are still done."
    )


# --- numbers in words ----------------------------------------------------------------------------------------------


def _inside(lesson: Lesson, method: Method) -> str:
    """The method's name in the middle of a sentence."""
    name = title(lesson, method)
    return f"the {lesson.groups} groups of PGB" if method == "pgb" else name[0].lower() + name[1:]


def _even(a: float, b: float) -> bool:
    return abs(a - b) <= EVEN * max(a, b)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _place(values: FloatArray) -> tuple[int, int]:
    """Row and column of the greatest value."""
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return int(row), int(column)


def _name(place: tuple[int, int]) -> str:
    return f"row {place[0] + 1}, column {place[1] + 1}"


def _weight(lesson: Lesson, place: tuple[int, int]) -> str:
    return f"{lesson.matrix[place]:.1f} ({_name(place)})".replace("-", "−")


def _number(values: FloatArray, at: FloatArray) -> str:
    return f"{values[_place(at)]:.2f}".replace("-", "−")


def _listed(indices: IntArray) -> str:
    *first, last = [str(int(index) + 1) for index in indices]
    return f"{', '.join(first)} and {last}"
