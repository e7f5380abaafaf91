"""Training on several GPUs and on several machines, by `tf.distribute`."""
