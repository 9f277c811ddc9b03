"""Every link leads to a term, every term is plain, and every technical word in it is explained too."""

from __future__ import annotations

import re

import pytest

from ui import glossary, steps, words
from ui.glossary import TERMS, TOPICS

LINK = re.compile(r"\]\(([^)]*)\)")
HELP = {
    **{name: value for name, value in vars(words).items() if name.isupper() and isinstance(value, str)},
    **{f"STAGES {name}": value for name, value in words.STAGES.items()},
}
NAMED_AFTER_A_TERM = {
    "SPARSITY": "sparsity",
    "DENSITY": "density",
    "IMPORTANCE": "importance",
    "KEPT_IMPORTANCE": "kept-importance",
    "RECOVERY": "recovery",
    "CALIBRATION": "calibration-samples",
    "CHECKPOINT": "checkpoint",
    "SEED": "seed",
    "LAYER": "layer",
    "MATRIX": "matrix",
    "SCORE": "score",
    "PARAMETERS": "parameters",
    "ENCODER": "encoder-weights",
    "FLOPS": "flops",
    "SPEEDUP": "speed-up",
    "LOSS": "loss",
    "REGRET": "regret",
    "OPTIONS": "option",
    "UNITS": "unit",
    "HALF": "sublayer",
    "FRONT": "pareto-front",
    "COST": "cost",
    "BUDGET": "budget",
    "GROUPS": "group",
    "PINS": "pin",
}


def test_no_two_terms_share_a_name() -> None:
    assert sum(map(len, TOPICS.values())) == len(TERMS)
    names = [name.lower() for term in TERMS.values() for name in (term.title, *term.also)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("slug", TERMS)
def test_a_definition_is_plain_text_and_links_all_the_terms_that_it_uses(slug: str) -> None:
    term = TERMS[slug]
    assert re.fullmatch(r"[a-z0-9-]+", slug)
    assert not re.search(r"[\[\]<>*_`#{}$|\\]|https?:", term.definition)
    assert term.definition.endswith(".")
    assert len(term.definition) <= 260
    linked = glossary.linked(term.definition, glossary.here, slug)
    targets = [target.removeprefix("#") for target in LINK.findall(linked)]
    assert set(targets) == set(glossary.mentions(term.definition)) - {slug}
    assert len(set(targets)) == len(targets)
    assert LINK.sub("", linked).replace("[", "") == term.definition  # nothing but links was added


@pytest.mark.parametrize("slug", TERMS)
def test_no_abbreviation_is_left_unexplained(slug: str) -> None:
    text = f"{TERMS[slug].title}. {TERMS[slug].definition}"
    for word in re.findall(r"\b[A-Z]{2,}s?\b|\bp\d\d\b", text):
        assert set(glossary.mentions(word)) or word in ("KL", "PGB"), word


def test_terms_that_are_asked_for_elsewhere_are_all_there() -> None:
    """What the issue names."""
    asked = (
        "sparsity density importance fisher-information gram-matrix permutation group sublayer head neuron unit "
        "dropped-sublayer refit recovery kl-divergence nat standard-error mcnemar-test pareto-front flops latency "
        "p10-and-p90 calibration-samples sensitivity option price regret knapsack one-shot structured unstructured "
        "untouched kept-importance encoder-weights"
    )
    assert set(re.findall(r"\S+", asked)) <= set(TERMS)


@pytest.mark.parametrize("name", HELP)
def test_every_link_of_a_help_text_leads_to_a_term(name: str) -> None:
    for target in LINK.findall(HELP[name]):
        assert target.removeprefix("learn?term=") in TERMS, target


@pytest.mark.parametrize(("name", "slug"), NAMED_AFTER_A_TERM.items())
def test_a_technical_label_links_to_its_term(name: str, slug: str) -> None:
    assert f"(learn?term={slug})" in HELP[name]


def test_a_link_to_an_unknown_term_is_a_mistake_that_shows_at_once() -> None:
    with pytest.raises(KeyError):
        glossary.refer("Some text.", "no-such-term")


def test_words_within_words_are_no_mentions() -> None:
    assert list(glossary.mentions("Grouping weighty headers, semi-structured or pre-refit")) == ["semi-structured"]
    assert glossary.linked("Groups of heads: groups", without="head") == "[Groups](learn?term=group) of heads: groups"


@pytest.mark.parametrize("number", range(len(steps.STEPS)))
def test_the_symbols_of_every_formula_are_explained(number: int) -> None:
    step = steps.STEPS[number]
    bare = re.sub(
        r"\\(?:begin|end|text)\{[^}]*\}|\\[A-Za-z]+|_\w|_\{\w+\}", " ", step.formula
    )  # no commands, no indices
    known = set("ijTWy")  # row, column, transposed, and y = W x
    assert set(re.findall(r"[A-Za-z]", bare)) <= known | set("".join(symbol for symbol, _ in step.symbols))
