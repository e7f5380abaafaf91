"""The AlexNet of "Dive into Deep Learning" on Fashion-MNIST, to prove hardware correct and fast."""

import contextlib
import os
import sys

__version__ = "0.1.0"

# python -m alexnet_repro: no file of the working folder, which comes first, is one of its modules.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    with contextlib.suppress(OSError, ValueError):  # it was removed, and doesn't come first
        sys.path.remove(os.getcwd())  # noqa: PTH109 - pathlib may be such a file


def __getattr__(name: str) -> object:
    """Resolve a name at its first use: those of `__init__.pyi`.

    So help texts and diagnosis come at once, and come even where TensorFlow can't be imported.
    """
    names: tuple[str, ...] = (name,)
    try:
        import lazy_loader

        resolve, _, names = lazy_loader.attach_stub(__name__, __file__)
        return names if name == "__all__" else resolve(name)
    except AttributeError as error:
        if name in names:  # what it stands on is broken; Python would say that the name isn't there
            raise ImportError(f"{name} can't be imported: {error}") from error
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted((*globals(), *__getattr__("__all__")))
