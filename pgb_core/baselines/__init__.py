"""The structured pruning methods we are compared with, faithful to their sources, on our sublayers and budget.

Each module cites its source and says what differs here. A sublayer comes out as a rectangle or dropped. `heads_neurons`
chooses layouts, which then get our own refit; `kwon` and `kprune` bring theirs and return the pruned sublayers.
"""
