"""Fashion-MNIST: the files, the documented loader, the documented resize, and a synthetic stand-in."""
