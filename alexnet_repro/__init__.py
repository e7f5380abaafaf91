"""The AlexNet of "Dive into Deep Learning" on Fashion-MNIST, to prove hardware correct and fast."""

import lazy_loader

# Names resolve at first use (they are listed in __init__.pyi), so that help texts and diagnosis
# come at once, and come even where TensorFlow can't be imported.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
