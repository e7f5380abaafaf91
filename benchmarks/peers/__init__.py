"""The same step in other hands: PyTorch's, the document's loop."""
