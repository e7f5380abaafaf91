from .backend.memory import enable_memory_growth
from .data.fashion_mnist import CorruptDataError, MissingDataError, load_fashion_mnist
from .data.loader import DataLoader
from .data.resize import resize_with_pad
from .data.synthetic import synthetic_fashion
from .model import LOSSES, build_alexnet, layer_rows, logits_model, normalised_sigmoid, softmax
from .training.checkpoint import Checkpoints
from .training.evaluate import evaluate
from .training.history import Evaluation, History, TrainingDivergedError
from .training.loop import TrainingStoppedError, train
from .training.recipe import Recipe
from .training.train_step import KerasTrainStep, best_train_step
from .training.weights import load_weights, save_weights
from .training.weights_file import WeightsError

__version__: str

__all__ = [
    "LOSSES",
    "Checkpoints",
    "CorruptDataError",
    "DataLoader",
    "Evaluation",
    "History",
    "KerasTrainStep",
    "MissingDataError",
    "Recipe",
    "TrainingDivergedError",
    "TrainingStoppedError",
    "WeightsError",
    "best_train_step",
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
