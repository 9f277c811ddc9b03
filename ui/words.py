"""Help texts: every term of the method in plain English, written once."""

from __future__ import annotations

SPARSITY = (
    "Share of the encoder's weights that is removed. Embeddings, biases and the classifier stay. At 50% a model "
    "usually scores as before; near 90% it loses a few points."
)
METHOD = (
    "How weights are removed. The first four are ours and share scores and refit; the others are methods of the "
    "literature to compare them with."
)
BUDGET = (
    "What the sparsity is a share of: the weights of the encoder's linear layers, or its computation for one text of "
    "128 tokens, in which attention between tokens counts too."
)
GROUPS = "Limits how many groups a grouped sublayer has. It may still be dropped or stay whole. Empty: no limit."
PINS = (
    "Sublayers that are never dropped. For each you can say how many of its heads or neurons stay at least. "
    "Layers are counted from 1 here, from 0 by the command line's --pin."
)
IMPORTANCE = (
    "How the loss of a weight is estimated, from one pass over the calibration samples. Methods to compare with have "
    "scores of their own; for them it only colors the Matrix page."
)
RECOVERY = "Ordinary training of the small model after pruning. 0 skips it: the refit alone is often enough below 75%."
SEED = "Start of all random choices; on a CPU the same settings and seed give the same result."
CALIBRATION = "Training examples from which the importance of weights is measured. More are slower and a little better."
MAX_LENGTH = "Tokens per text; longer texts are cut. 0 takes the task's own default."
DEVICE = "Where the run computes. Pruning the demo takes a few minutes on a CPU."
TASK = "The data on which weights are scored and the model is tested."
CHECKPOINT = (
    "A fine-tuned BERT classifier: the demo, a folder in the server's models folder, or a model of the"
    " Hugging Face Hub."
)
LAYER = "Layers are counted from 1, at the input."
MATRIX = (
    "Query, key, value and output belong to attention; intermediate and output to the feed-forward half. "
    "Rows are outputs, columns are inputs."
)
COLOR = "Weight: signed value, one color range before and after. Importance: estimated loss if the weight were removed."
KEPT_IMPORTANCE = "Share of the importance of all weights that lies in what is kept."
DENSITY = "Share of the weights that is kept."
WINDOW = "Part of the matrix without pooling. Hover over a cell for its place in the original and in the drawn order."
STAGES = {
    "original": "The dense weights in the order of the checkpoint.",
    "permuted": "The dense weights, rows and columns reordered so that the groups (outlined) come one after another.",
    "pruned": "What is left after cutting and refit: everything outside the groups, and every zero, stays blank.",
}
OVERVIEW = {
    "weight": "Where a matrix is larger than the picture, a cell shows its largest weight by magnitude. "
    "Colors saturate at the 99.5th percentile of the dense weights and mean the same in all pictures.",
    "importance": "Where a matrix is larger than the picture, a cell shows its mean. Importance is relative to the "
    "largest of this matrix, on a logarithmic scale.",
}
SCORE = "Share of the evaluation texts that the model labels right (or the task's own metric), with its standard error."
STEPS = (
    "After cutting: weights removed, nothing else changed. After the refit: the kept weights adjusted by least "
    "squares, without training. After recovery: a few epochs of training. Whiskers are one standard error."
)
PARAMETERS = "All numbers in the model, embeddings included: these are not pruned."
ENCODER = "Weights of the encoder's linear layers: what sparsity counts."
FLOPS = "Computation for one text of the given length: multiply-adds times two, linear layers and attention."
BYTES = "Size of model.safetensors on disk."
SPEEDUP = "Measured time before divided by time after. Ideal: what the FLOPs alone would give."
SHAPES = "Medians of rounds in which the dense and the pruned model take turns, so that other work hits both."
MEMORY = "The most that tensors take during a forward pass, those of the model included."
LOSS = (
    "What the error that is left at the sublayer's output after the refit does to the predictions: an estimate of "
    "their divergence from the dense model's, in nats, on training text."
)
REGRET = (
    "What the total predicted loss would rise by with this option in place of the chosen one, if the weights it saves "
    "or needs went to or came from other sublayers, at the price of a weight at the margin of this target. Up to 1% "
    "is close. Below zero: better by itself, but then the whole would miss the target."
)
OPEN_TO = "Methods that may choose this option: they share one table. Older runs did not note it."
PREDICTIONS = (
    "Methods that share the option table of this run, at the same target and constraints. Predicted loss: what the "
    "errors of all sublayers after their own refit do to the predictions, added up; an estimate of their divergence "
    "from the dense model's, in nats. "
    "It is measured on training texts, one sublayer at a time, so it tells methods apart better than it tells scores: "
    "differences of a few percent mean little. pgb-mixed may choose all that the other two may."
)
LOOKS = (
    "Twice per epoch the model is scored on training examples that are set aside. The last state that is not worse "
    "than the best by more than one standard error is kept."
)
NETWORK = (
    "One bar per sublayer, the input on top. The bar is as long as the share of heads or neurons kept, split into its "
    "groups; the color tells how much of its weights is left. Click a bar to see why."
)
OPTIONS = (
    "What could have been kept of this sublayer, at what price and loss. The budget takes one option per sublayer."
)
HALF = "Attention mixes tokens; feed-forward works on each token alone. Each is pruned as one unit."
UNITS = "Attention consists of heads, feed-forward of neurons; both are kept or removed whole."
FAMILY = (
    "Only runs of one checkpoint that were tested on the same texts can be compared. Files are numbered, the oldest "
    "first."
)
COST = "What you want to save: measured time, computation, parameters or disk space."
FRONT = "No other model in this list is both cheaper and better."
STEPS_OF_A_RUN = """
1. **Score**: one pass over training texts estimates what each weight is worth.
2. **Group**: rows and columns are permuted so that the worthy weights come together in groups; the rest is cut.
   Other methods choose in their own way.
3. **Refit**: what is left is adjusted so that each layer answers as before.
4. **Measure**: score, size and speed of the small model, beside the dense one.
"""
RECORD = (
    "What one scoring of a checkpoint on a task left: what could be kept of every sublayer, at which price and loss. "
    "Every run of pgb, pgb-mixed or structured leaves one, too."
)
GOAL = (
    "What the plan has to meet: a share of the encoder's weights or FLOPs to remove, or a latency, predicted for this "
    "server, that it must not exceed."
)
WHAT_IF_METHOD = (
    "Structured: only classical structured pruning, whole heads and neurons. PGB: groups. PGB mixed: whichever loses "
    "less, sublayer by sublayer."
)
PREDICTED_LOSS = (
    "What the errors of all sublayers after their own refit do to the predictions, added up: an estimate of their "
    "divergence from the dense model's, in nats, on training text. The plan has the least that meets the target."
)
BAND = (
    "A straight line through the origin, fitted to predicted loss and measured fall of the score of the finished runs "
    "of this checkpoint and task on this server, and its prediction interval (Student's t)."
)
PREDICTED_LATENCY = (
    "The milliseconds of the single sublayers, timed on this server in every form for some sizes, read off between "
    "them and added up, with what is left of a model without sublayers."
)
COMES_BACK = (
    "At a price per unit of cost an option is worth its loss plus its cost. A sublayer is dropped while no option "
    "saves as much loss as it costs; the margin is the price at which the whole plan is just as it is."
)
PLAN_GROUPS = "Groups of all sublayers that have several; each reads and writes only a part of the hidden state."
