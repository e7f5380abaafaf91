"""Training: recipe, train step, loop, checkpoints, weights; `loop` is where to begin reading."""
