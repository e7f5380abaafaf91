"""What differs between TensorFlow, JAX and PyTorch: devices, memory, precision, determinism, gradients."""
