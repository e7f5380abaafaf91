"""The document's facts as literal data: the expected side of the contract tests.

Source: "Dive into Deep Learning", TensorFlow 2 edition, section 5.6 (AlexNet on Fashion-MNIST),
run there with TensorFlow 2.0.0. Parameters and multiply-accumulates (MACs) follow from the printed
shapes; the parameters were also read off TensorFlow 2.0.0.

Nothing here is computed from `alexnet_repro.model`, and the model never imports this file: a change of
one without the other fails the tests.
"""

from typing import NamedTuple


class DocumentedLayer(NamedTuple):
    """One row of the document's layer table: `output_shape` of one image; `macs` per image, in the forward pass."""

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


INPUT_SHAPE = (224, 224, 1)

LAYERS = (
    DocumentedLayer("conv2d", (54, 54, 96), 11_712, 33_872_256),  # Conv2D 96, 11x11, stride 4, ReLU
    DocumentedLayer("max_pooling2d", (26, 26, 96), 0, 0),  # MaxPool2D 3x3, stride 2
    DocumentedLayer("conv2d_1", (26, 26, 256), 614_656, 415_334_400),  # Conv2D 256, 5x5, same, ReLU
    DocumentedLayer("max_pooling2d_1", (12, 12, 256), 0, 0),  # MaxPool2D 3x3, stride 2
    DocumentedLayer("conv2d_2", (12, 12, 384), 885_120, 127_401_984),  # Conv2D 384, 3x3, same, ReLU
    DocumentedLayer("conv2d_3", (12, 12, 384), 1_327_488, 191_102_976),  # Conv2D 384, 3x3, same, ReLU
    DocumentedLayer("conv2d_4", (12, 12, 256), 884_992, 127_401_984),  # Conv2D 256, 3x3, same, ReLU
    DocumentedLayer("max_pooling2d_2", (5, 5, 256), 0, 0),  # MaxPool2D 3x3, stride 2
    DocumentedLayer("flatten", (6400,), 0, 0),  # Flatten
    DocumentedLayer("dense", (4096,), 26_218_496, 26_214_400),  # Dense 4096, ReLU
    DocumentedLayer("dropout", (4096,), 0, 0),  # Dropout 0.5
    DocumentedLayer("dense_1", (4096,), 16_781_312, 16_777_216),  # Dense 4096, ReLU
    DocumentedLayer("dropout_1", (4096,), 0, 0),  # Dropout 0.5
    DocumentedLayer("dense_2", (10,), 40_970, 40_960),  # Dense 10, sigmoid
)
TOTAL_PARAMETERS = 46_764_746
TOTAL_MACS = 938_146_176

# Two operations per MAC. A train step is the forward pass, the weight gradients, and the input
# gradients of every layer but the first: 3 * 938,146,176 - 33,872,256 = 2,780,566,272 MACs.
FORWARD_FLOP = 1_876_292_352
TRAIN_STEP_FLOP = 5_561_132_544

# Training: 1 + 5 * 468 draws of 128, each four SGD steps of 32 (the default batch size of `fit`).
EPOCHS, DRAWS_PER_EPOCH, DRAW_SIZE, UPDATES_PER_DRAW = 5, 468, 128, 4
LEARNING_RATE = 0.01
DROPOUT_RATE = 0.5

# Figures of LeNet that the text compares with (same book, same edition).
LENET_CHANNELS = (6, 16)
LENET_LEARNING_RATE = 0.9

# Printed figures: of the first draw trained on (means over its four updates), and of 2,000 test
# images drawn with replacement after training (the loss twice: in the progress line, and returned).
TENSORFLOW = "2.0.0"
FIRST_LOSS, FIRST_ACCURACY, FIRST_MILLISECONDS_PER_SAMPLE = 2.3014, 0.0547, 15
TEST_SAMPLES, TEST_ACCURACY, TEST_SECONDS = 2_000, 0.8395, 2
TEST_LOSS_SHOWN, TEST_LOSS = 0.5035, 0.4867
