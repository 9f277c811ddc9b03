"""Help texts: what every label means in its place, written once; what terms mean in general is in the glossary."""

from __future__ import annotations

from ui.glossary import define, refer

SPARSITY = refer(
    "Share of the encoder's weights that is removed. Embeddings, biases and the classifier stay. At 50% a model "
    "usually scores as before; near 90% it loses a few points.",
    "sparsity",
    "encoder-weights",
)
METHOD = refer(
    "How weights are removed. The first four are ours and share scores and refit; the others are methods of the "
    "literature to compare them with.",
    "pgb",
    "structured",
    "unstructured",
)
BUDGET = refer(
    "What the sparsity is a share of: the weights of the encoder's linear layers, or its computation for one text of "
    "128 tokens, in which attention between tokens counts too.",
    "budget",
    "flops",
)
GROUPS = refer(
    "Limits how many groups a grouped sublayer has. It may still be dropped or stay whole. Empty: no limit.", "group"
)
PINS = refer(
    "Sublayers that are never dropped. For each you can say how many of its heads or neurons stay at least. "
    "Layers are counted from 1 here, from 0 by the command line's --pin.",
    "pin",
    "dropped-sublayer",
)
IMPORTANCE = refer(
    "How the loss of a weight is estimated, from one pass over the calibration samples. Methods to compare with have "
    "scores of their own; for them it only colors the Matrix page.",
    "importance",
    "fisher-information",
)
RECOVERY = refer(
    "Ordinary training of the small model after pruning. 0 skips it: the refit alone is often enough below 75%.",
    "recovery",
    "epoch",
)
SEED = refer("Start of all random choices; on a CPU the same settings and seed give the same result.", "seed")
CALIBRATION = refer(
    "Training examples from which the importance of weights is measured. More are slower and a little better.",
    "calibration-samples",
)
MAX_LENGTH = refer("Tokens per text; longer texts are cut. 0 takes the task's own default.", "token")
DEVICE = "Where the run computes. Pruning the demo takes a few minutes on a CPU."
COLUMNS = "Which column of your file this is. Columns that are not named here are not read."
LABEL_MAP = (
    "The checkpoint knows its labels by the names it was fine-tuned with. Values of your file that are none of them "
    "have to be matched, or every answer would be compared with the wrong one."
)
TASK = "The data on which weights are scored and the model is tested."
CHECKPOINT = refer(
    "A fine-tuned BERT, DistilBERT or RoBERTa: the demo, a folder in the server's models folder, a model of the "
    "Hugging Face Hub, or your own upload. One without a trained head can be fine-tuned here first.",
    "checkpoint",
    "fine-tuning",
)
LAYER = refer("Layers are counted from 1, at the input.", "layer")
MATRIX = refer(
    "Query, key, value and output belong to attention; intermediate and output to the feed-forward half. "
    "Rows are outputs, columns are inputs.",
    "matrix",
    "attention",
    "feed-forward",
)
COLOR = refer(
    "Weight: signed value, one color range before and after. Importance: estimated loss if the weight were removed.",
    "weight",
    "importance",
)
KEPT_IMPORTANCE = define("kept-importance")
DENSITY = define("density")
WINDOW = refer(
    "Part of the matrix without pooling. Hover over a cell for its place in the original and in the drawn order.",
    "permutation",
)
CONCENTRATION = "Importance of a weight in this group, on average, in multiples of the mean over the whole matrix."
MEAN_BEFORE = "Mean magnitude of the group's weights in the checkpoint."
MEAN_AFTER = "Mean magnitude of the same weights in the pruned model, after the refit and any recovery."
CHANGE = (
    "How far refit and recovery moved the group's weights: norm of the difference over the norm before. The weights "
    "that stay make up for those that went."
)
WALL = (
    "Every weight matrix of the network, permuted and stretched to a square. Color is what is kept, the darker the "
    "more of the matrix's importance it holds. Click one to see it on this page."
)
ANIMATION = (
    "Rows and columns move from the checkpoint's order to that in which the groups come one after another, then "
    "everything outside the groups is cut. Bright is important, on a logarithmic scale."
)
INSIDE = "Share of the matrix's importance that lies in the places where the groups will be."
FOLLOW = "Rows are outputs, columns are inputs, both counted from 0 in the order of the checkpoint."
DENSE_WEIGHT = "Its value before pruning."
REFIT = "Its value in the pruned model, after the refit and any recovery."
IMPORTANCE_OF_ONE = "Estimated loss if it were removed, as a share of that of the matrix's most important weight."
OUTRANKED = "Share of the matrix's weights that are less important."
GROUP_OF_ONE = "The group in whose block it lies: its row and its column must belong to the same."
PERMUTED_PLACE = "Where it is drawn once rows and columns are permuted, counted from 0."
SHOW = "Original order, permuted, or what is left."
SAMPLE_MATRIX = (
    "To stay small, a sample has the importance of two matrices only, in 16 steps of a logarithmic scale, and no "
    "weights. A run of your own shows every matrix, by weight too."
)
SAMPLE_COMPARED = "A shipped sample came without weights. Compare two runs of this server to see them."
SAMPLE_TRIED = "A shipped sample came without its model. Choose two runs of this server, or prune a model first."
SAMPLE_WITHOUT = "This sample came without the importance of this matrix; all that is known of it is what was kept."
STAGES = {
    "original": refer("The dense weights in the order of the checkpoint.", "dense"),
    "permuted": refer(
        "The dense weights, rows and columns reordered so that the groups (outlined) come one after another.",
        "permutation",
        "group",
    ),
    "pruned": refer(
        "What is left after cutting and refit: everything outside the groups, and every zero, stays blank.", "refit"
    ),
}
OVERVIEW = {
    "weight": "Where a matrix is larger than the picture, a cell shows its largest weight by magnitude. "
    "Colors saturate at the 99.5th percentile of the dense weights and mean the same in all pictures.",
    "importance": "Where a matrix is larger than the picture, a cell shows its mean. Importance is relative to the "
    "largest of this matrix, on a logarithmic scale.",
}
SCORE = refer(
    "Share of the evaluation texts that the model labels right (or the task's own metric), with its standard error.",
    "score",
    "standard-error",
)
STEPS = refer(
    "After cutting: weights removed, nothing else changed. After the refit: the kept weights adjusted by least "
    "squares, without training. After recovery: a few epochs of training. Whiskers are one standard error.",
    "refit",
    "recovery",
    "standard-error",
)
PARAMETERS = refer("All numbers in the model, embeddings included: these are not pruned.", "parameters")
ENCODER = refer("Weights of the encoder's linear layers: what sparsity counts.", "encoder-weights")
FLOPS = refer(
    "Computation for one text of the given length: multiply-adds times two, linear layers and attention.", "flops"
)
BYTES = "Size of model.safetensors on disk."
SPEEDUP = refer(
    "Measured time before divided by time after. Ideal: what the FLOPs alone would give.", "speed-up", "latency"
)
SHAPES = refer(
    "Medians of rounds in which the dense and the pruned model take turns, so that other work hits both.",
    "latency",
    "median",
)
MEMORY = "The most that tensors take during a forward pass, those of the model included."
LOSS = refer(
    "What the error that is left at the sublayer's output after the refit does to the predictions: an estimate of "
    "their divergence from the dense model's, in nats, on training text.",
    "loss",
    "kl-divergence",
    "nat",
)
REGRET = refer(
    "What the total predicted loss would rise by with this option in place of the chosen one, if the weights it saves "
    "or needs went to or came from other sublayers, at the price of a weight at the margin of this target. Up to 1% "
    "is close. Below zero: better by itself, but then the whole would miss the target.",
    "regret",
    "price",
)
RESTORED = (
    "Prices are measured one sublayer at a time. Sublayers that stand in for each other can each be spared, but not "
    "all at once. So drops are tried together, on training text, and one is restored while that loses far more than "
    "the prices say."
)
OPEN_TO = refer("Methods that may choose this option: they share one table. Older runs did not note it.", "option")
PREDICTIONS = refer(
    "Methods that share the option table of this run, at the same target and constraints. Predicted loss: what the "
    "errors of all sublayers after their own refit do to the predictions, added up; an estimate of their divergence "
    "from the dense model's, in nats. "
    "It is measured on training texts, one sublayer at a time, so it tells methods apart better than it tells scores: "
    "differences of a few percent mean little. pgb-mixed may choose all that the other two may.",
    "loss",
    "kl-divergence",
)
LOOKS = refer(
    "Twice per epoch the model is scored on training examples that are set aside. The last state that is not worse "
    "than the best by more than one standard error is kept.",
    "recovery",
    "standard-error",
)
NETWORK = refer(
    "One bar per sublayer, the input on top. The bar is as long as the share of heads or neurons kept, split into its "
    "groups; the color tells how much of its weights is left. Click a bar to see why.",
    "sublayer",
    "density",
)
OPTIONS = refer(
    "What could have been kept of this sublayer, at what price and loss. The budget takes one option per sublayer.",
    "option",
    "knapsack",
)
HALF = refer(
    "Attention mixes tokens; feed-forward works on each token alone. Each is pruned as one unit.",
    "sublayer",
    "attention",
    "feed-forward",
)
UNITS = refer(
    "Attention consists of heads, feed-forward of neurons; both are kept or removed whole.", "unit", "head", "neuron"
)
FAMILY = (
    "Only runs of one checkpoint that were tested on the same texts can be compared. Files are numbered, the oldest "
    "first."
)
SHAPES_COMPARED = refer(
    "The same matrix and the same importance; every shape keeps the same number of weights, those of greatest "
    "importance that it can.",
    "density",
    "structured",
    "unstructured",
)
COST = refer("What you want to save: measured time, computation, parameters or disk space.", "cost", "latency", "flops")
FRONT = refer("No other model in this list is both cheaper and better.", "pareto-front")
RUN = "A finished run on this server, newest first; then the samples that are shipped."
SEARCH = (
    "Shows the runs in which every word occurs: in name, notes, checkpoint, task, method, state or id. "
    "“pinned” finds those that are pinned."
)
NAME = "Comes first wherever this run is listed or chosen. One line."
NOTES = "Plain text, for whoever opens this run next."
PIN = "A pinned run is kept when old runs are removed to make space, and its Delete button is locked."
DISK = "Bytes of all files of a run on the server's disk, the pruned model included."
REPRODUCE = (
    "On a CPU the same settings, seed, number of threads and library versions give the same model bit for bit; on "
    "other processors or versions the last digits may differ, and with them a close choice."
)
SWEEP_TARGETS = "Every target is pruned by every method: the number of points is the product."
SWEEP_RECOVERY = (
    "Points without recovery take seconds once the shared scoring is done; recovery trains each pruned model, which "
    "takes longest."
)
SWEEP_SEEDS = "Seeds 0, 1, … redraw the calibration samples and all random choices; each seed scores anew."
PUBLISHED = (
    "Scores of BERT-base that papers and repositories report for this task and metric. Their training, retraining and "
    "what they count differ from ours: see them as references, never as measurements of this checkpoint."
)
MAJORITY = "The score of always giving the commonest label of the evaluation texts, whatever the text."
PAIRED = (
    "Both models answered the same examples. What counts are the examples on which just one of them is right: the "
    "standard error is that of paired proportions, p that of the exact McNemar test, two-sided."
)
DISCORDANT = (
    "Examples on which just one of the two models is right; first those of which the other one was surest of a "
    "wrong answer. Probabilities are the models' own and need not be well calibrated."
)
SAME_MATRIX = (
    "Both in the order of the checkpoint; what a model does not keep stays blank. One color scale for both, which "
    "saturates at the 99.5th percentile of the kept weights by magnitude."
)
TRIED = (
    "Time of one forward pass of this one text on the server's CPU, without tokenizing: median of 7 rounds in which "
    "the models take turns, with the middle 80% in brackets. Other work on the server disturbs it."
)
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
WELL_KNOWN = (
    "Fine-tuned models that many know, with the task that each was trained for. A model's own files decide what it is: "
    "where they differ from this list, a line says so; where they only number the labels, the list names them."
)
HUB_ID = (
    "Safetensors only. The newest revision is taken, pinned and recorded; owner/name@commit takes that one. Nothing in "
    "a model is ever run."
)
UPLOAD_CHECKPOINT = "Inspected before anything is loaded: what could run code, does not fit or is damaged is refused."
FACTS = (
    "Told from config.json and the headers of the weights; the licence is what its model card says, read as plain text "
    "and not checked. Checkpoints with the same SHA-256 have the same weights."
)
RMS = refer(
    "Root mean square of a matrix's weights: their typical size, whatever the matrix's shape. Measured on the file's "
    "weights, read as float32.",
    "matrix",
)
DECAY = (
    "A matrix stretches some directions more than others; its singular values say how much, the strongest first. A "
    "curve that falls fast means that few directions do most of the work. Computed exactly, without the model."
)
ESTIMATE = (
    "A run with tables and refit at 1,024 calibration samples of the task's length, without recovery. Time is scaled "
    "with encoder weights, samples and tokens, memory with the parameters; other work on the server slows it down."
)
EPOCHS = refer("Passes over the training examples. Two to four are usual for fine-tuning.", "epoch", "fine-tuning")
LEARNING_RATE = (
    "Peak of the learning rate; automatic takes what suits the size: 5e-5 for small encoders, 3e-5 for base size."
)
CHECKPOINT_NAME = "Its folder in the server's models folder; everybody who reaches this server sees it there."
OWNER_CANCELS = "Only the session that started this may cancel it."
