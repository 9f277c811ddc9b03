"""The glossary: every technical term in plain English, written once, and the links to it.

The Learn page shows it; `learn?term=sparsity` opens one term. Help texts end with links made by `refer`; one that would
only repeat the definition is made by `define`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """One entry; `also` are other words for it."""

    title: str
    definition: str
    also: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """Its name in links: `kl-divergence`."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


TOPICS: dict[str, tuple[Term, ...]] = {
    "What goes and what stays": (
        Term(
            "Pruning",
            "Removing weights of a trained model, so that it becomes smaller and faster while its predictions change "
            "as little as possible.",
            ("pruned",),
        ),
        Term("Dense", "The model before pruning, with all its weights."),
        Term("Sparsity", "Share of the encoder weights that is removed. At 75% one in four stays."),
        Term(
            "Density",
            "Share of the weights that stays: of a matrix, a sublayer or the whole encoder. 1 minus the sparsity.",
        ),
        Term(
            "One-shot",
            "All that has to go is removed at once, from the finished model, not in many rounds of removing a little "
            "and training again.",
            ("one shot",),
        ),
        Term(
            "Unstructured",
            "Single weights become zero, wherever they are. At equal density this keeps most of what matters, but the "
            "matrix keeps its size, so nothing gets faster without special software.",
        ),
        Term(
            "Structured",
            "Whole rows or columns go, as heads or neurons. Smaller matrices without gaps are left, and they are fast "
            "everywhere.",
        ),
        Term(
            "Semi-structured",
            "Between structured and unstructured: what stays forms blocks, which are small matrices without gaps.",
        ),
        Term("Magnitude pruning", "Unstructured pruning in which the weights nearest to zero go.", ("magnitude",)),
        Term("Untouched", "Said of a sublayer of which every weight stays."),
        Term(
            "Dropped sublayer",
            "A sublayer of which only a bias stays; what enters the layer passes it by.",
            ("dropped",),
        ),
    ),
    "The method": (
        Term(
            "PGB",
            "Permutation and Grouping for BERT, by Lim, Lee and Choi: the important weights are gathered into groups, "
            "the rest is removed in one shot, and what stays is refitted.",
        ),
        Term("Importance", "Estimate of how much the loss would rise if a weight were removed.", ("important",)),
        Term("Kept importance", "Share of the importance of all weights that lies in those that stay."),
        Term(
            "Permutation",
            "Another order of the rows and columns of a matrix. It changes no weight; it only brings together what "
            "belongs together.",
            ("permuted",),
        ),
        Term(
            "Group",
            "Some rows and some columns of a matrix; the weights where they cross stay. In permuted order the groups "
            "are blocks along the diagonal.",
        ),
        Term(
            "Re-permutation",
            "Putting the outputs of a permuted matrix back in their original order, so that the rest of the model "
            "notices nothing.",
        ),
        Term(
            "Refit",
            "Adjusting the weights that stay by least squares, so that every linear layer answers as nearly as it can "
            "as the dense one does. No training is needed. Also called compensation.",
            (
                "refitted",
                "compensation",
            ),
        ),
        Term(
            "Least squares", "Choosing numbers such that the squares of the errors, added up, are as small as can be."
        ),
        Term(
            "Reconstruction error",
            "Mean square of what a pruned matrix gets wrong in its outputs, as a share of the mean square of the "
            "outputs themselves. 0% is perfect; a matrix of zeros has 100%.",
        ),
        Term("Recovery", "A few epochs of ordinary training of the small model after the refit."),
        Term(
            "Calibration samples",
            "Training examples that run through the dense model once, to measure importance and to refit.",
            ("calibration",),
        ),
        Term("Gradient", "By how much the loss changes when a number in the model changes a little."),
        Term(
            "Fisher information",
            "Mean square of a gradient: how strongly the predictions react to a small change of a weight or an output.",
            ("Fisher",),
        ),
        Term("Sensitivity", "Fisher information of one output of a linear layer: how much the model listens to it."),
        Term(
            "Gram matrix",
            "Mean product of each pair of inputs of a linear layer: how large they are and which of them go together. "
            "It tells how well the others can stand in for an input.",
        ),
    ),
    "The model": (
        Term("BERT", "A language model that reads a text as a whole; fine-tuned, it classifies texts."),
        Term("Checkpoint", "The saved weights of a model, with what is needed to load it."),
        Term("Token", "A word or a piece of a word: what a text is cut into before a model reads it."),
        Term("Embedding", "The list of numbers that stands for a token where the model begins."),
        Term(
            "Encoder",
            "The stack of layers in which the tokens of a text are worked on. The embeddings come before it, the "
            "classifier after it.",
        ),
        Term(
            "Classifier",
            "The last part of the model: it turns what the encoder found into a probability for each label.",
        ),
        Term(
            "Layer",
            "One of the equal stages of the encoder: an attention sublayer, then a feed-forward sublayer. Layers are "
            "counted from 1, at the input.",
        ),
        Term("Sublayer", "Half of a layer: attention or feed-forward. Each is pruned as one piece."),
        Term(
            "Attention",
            "The sublayer in which tokens learn from each other, by query, key and value. A fourth matrix, output, "
            "writes what was learned.",
        ),
        Term(
            "Query, key and value",
            "Three matrices of attention: the query of a token is compared with the keys of all tokens of its text, "
            "and the values of those that fit best are mixed.",
            (
                "query",
                "key",
                "value",
            ),
        ),
        Term(
            "Feed-forward",
            "The sublayer that works on each token alone. One matrix, intermediate, leads to its neurons; another, "
            "output, leads back.",
        ),
        Term(
            "Head",
            "A part of attention that compares tokens in a way of its own; it owns an equal share of the rows of "
            "query, key and value.",
        ),
        Term(
            "Neuron",
            "One number in the middle of a feed-forward sublayer: a row of the intermediate and a column of the "
            "output matrix.",
        ),
        Term("Unit", "What is kept or removed as a whole in structured pruning: a head or a neuron."),
        Term("Linear layer", "A step in which every output is a sum of all inputs, each times a weight, plus a bias."),
        Term(
            "Matrix", "The weights of one linear layer: a row for each output, a column for each input.", ("matrices",)
        ),
        Term("Weight", "The number by which an input is multiplied on its way to an output. Training has chosen it."),
        Term("Bias", "A number that is added to an output whatever the inputs are. Biases are not pruned."),
        Term(
            "Encoder weights",
            "The weights of the linear layers in the encoder: what sparsity counts. Embeddings, biases and the "
            "classifier are not among them.",
        ),
        Term(
            "Fine-tuning",
            "Training a model that already knows a language on the examples of one task.",
            ("fine-tuned",),
        ),
        Term("Epoch", "One pass of training over all training examples."),
    ),
    "Choosing what goes": (
        Term(
            "Option",
            "One thing that can be done with a sublayer: leave it untouched, drop it, or keep some units or groups of "
            "it. It has a cost and a loss.",
        ),
        Term("Budget", "How much may stay of the encoder as a whole, in weights or in FLOPs."),
        Term("Cost", "What an option takes from the budget."),
        Term(
            "Loss",
            "A number for how wrong a model is; training makes it small. The loss of an option is the damage that it "
            "does: an estimate of the KL divergence from the dense model's predictions, in nats.",
        ),
        Term(
            "Price",
            "What one more weight, or FLOP, is worth at the chosen sparsity: by how much it would lower the total "
            "loss.",
        ),
        Term(
            "Regret",
            "By how much the total loss would rise with another option in place of the chosen one, if the budget that "
            "this frees or needs went to or came from other sublayers at the going price.",
        ),
        Term(
            "Knapsack",
            "The problem of filling a limited bag with what is worth most. Here: one option for each sublayer, the "
            "least total loss within the budget.",
        ),
        Term("Pin", "Your demand that a sublayer is never dropped, or keeps at least so many of its units."),
        Term("Pareto front", "The models that no other one beats in both cost and score."),
    ),
    "Measuring": (
        Term("Score", "How well a model does its task on texts that it has not seen: mostly the accuracy."),
        Term("Accuracy", "Share of the texts that get the right label."),
        Term(
            "Standard error",
            "How far a measured number typically lies from what endlessly many examples would give. A difference of "
            "less than about two standard errors may be chance.",
        ),
        Term(
            "McNemar test",
            "Compares two models on the same texts by those that only one of them gets right. It tells how often "
            "chance alone would divide these texts as unevenly if both models were equally good.",
            ("McNemar",),
        ),
        Term(
            "KL divergence",
            "How far one set of predicted probabilities is from another. 0 means that they are equal.",
            ("divergence",),
        ),
        Term(
            "Nat", "What the KL divergence is counted in when it is taken with natural logarithms; 1 nat is 1.44 bits."
        ),
        Term("Parameters", "All numbers of a model that training has chosen, embeddings included."),
        Term("FLOPs", "Amount of computation: multiplications and additions of numbers, each counted.", ("FLOP",)),
        Term(
            "Latency",
            "Time a model takes for one batch of texts, in milliseconds, measured on the machine that is named with "
            "it.",
        ),
        Term("Batch", "Texts that a model works on at the same time."),
        Term(
            "Speed-up",
            "Latency of the dense model divided by that of the pruned one. Ideal is the ratio of their FLOPs.",
        ),
        Term("Median", "The middle one of many measurements: half of them are larger, half smaller."),
        Term(
            "p10 and p90",
            "Of ten measurements about one is below p10 and one above p90; eight lie between.",
            (
                "p10",
                "p90",
            ),
        ),
        Term("Seed", "The number from which all random choices start; with the same seed a run gives the same result."),
    ),
}
"""All terms by topic."""

TERMS: dict[str, Term] = {term.slug: term for topic in TOPICS.values() for term in topic}
_WORDS = {word.lower(): term.slug for term in TERMS.values() for word in (term.title, *term.also)}
_LONGEST_FIRST = "|".join(re.escape(word) for word in sorted(_WORDS, key=len, reverse=True))
_MENTION = re.compile(rf"(?<![\w-])({_LONGEST_FIRST})(?:e?s)?(?![\w-])", re.IGNORECASE)


def here(slug: str) -> str:
    """The place of a term on the page that shows the glossary."""
    return f"#{slug}"


def elsewhere(slug: str) -> str:
    """The address of a term from any page; all pages have addresses of one level."""
    return f"learn?term={slug}"


def mentions(text: str) -> Iterator[str]:
    """The terms whose titles, or other words for them, occur in `text`."""
    for match in _MENTION.finditer(text):
        yield _WORDS[match[1].lower()]


def linked(text: str, place: Callable[[str], str] = elsewhere, without: str | None = None) -> str:
    """`text` as Markdown, in which the first mention of every term, except term `without`, is a link."""
    seen = {without}

    def link(match: re.Match[str]) -> str:
        slug = _WORDS[match[1].lower()]
        if slug in seen:
            return match[0]
        seen.add(slug)
        return f"[{match[0]}]({place(slug)})"

    return _MENTION.sub(link, text)


def refer(text: str, *slugs: str) -> str:
    """Help text `text`, as Markdown, with links to terms of the glossary at its end.

    Raises:
        KeyError: there is no such term.
    """
    names = ", ".join(f"[{TERMS[slug].title}]({elsewhere(slug)})" for slug in slugs)
    return f"{text}\n\nGlossary: {names}"


def define(slug: str) -> str:
    """The definition of a term as a help text, with a link to the term."""
    return refer(TERMS[slug].definition, slug)
