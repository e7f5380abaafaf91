from .checkpoint import Checkpoints
from .data.fashion_mnist import CorruptDataError, MissingDataError, load_fashion_mnist
from .data.loader import DataLoader
from .data.resize import resize_with_pad
from .data.synthetic import synthetic_fashion
from .evaluation import Evaluation, evaluate
from .hardware.devices import enable_memory_growth
from .log import TrainingDivergedError
from .losses import LOSSES, normalised_sigmoid, softmax
from .model import build_alexnet, layer_rows, logits_model
from .recipe import Recipe
from .steps import KerasStep, best_step
from .stored_weights import WeightsError
from .training import History, TrainingStoppedError, train
from .weights import load_weights, save_weights

__all__ = [
    "LOSSES",
    "Checkpoints",
    "CorruptDataError",
    "DataLoader",
    "Evaluation",
    "History",
    "KerasStep",
    "MissingDataError",
    "Recipe",
    "TrainingDivergedError",
    "TrainingStoppedError",
    "WeightsError",
    "best_step",
    "build_alexnet",
    "enable_memory_growth",
    "evaluate",
    "layer_rows",
    "load_fashion_mnist",
    "load_weights",
    "logits_model",
    "normalised_sigmoid",
    "resize_with_pad",
    "save_weights",
    "softmax",
    "synthetic_fashion",
    "train",
]
