"""Makes TensorFlow.js models with TensorFlow's own converter, in the environment that has it.

Reads a list of conversions from stdin as JSON; of each:
  to: the folder to write.
  quantize: float16, uint8 or uint16 for the weights; left out: as they are.
  saved_model: the folder to convert to a graph model, or else, for a layers model,
  input, layers, weights: name and shape of the input, [class, arguments] of the layers, and the
    .npz file of their weights. The converter writes layers models of Keras 2 alone, which cannot
    read the files of Keras 3.
"""

import json
import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tf_keras
from tensorflowjs import converters


def graph(saved_model, to, quantized):
    converters.convert_tf_saved_model(saved_model, to, quantization_dtype_map=quantized)


def layers(name, shape, classes, weights, to, quantized):
    model = tf_keras.Sequential([tf_keras.layers.InputLayer(shape, name=name)])
    for kind, arguments in classes:
        model.add(getattr(tf_keras.layers, kind)(**arguments))
    with np.load(weights) as arrays:
        model.set_weights([arrays[name] for name in arrays.files])
    converters.save_keras_model(model, to, quantization_dtype_map=quantized)


for one in json.load(sys.stdin):
    quantized = {one["quantize"]: "*"} if "quantize" in one else None
    if "saved_model" in one:
        graph(one["saved_model"], one["to"], quantized)
    else:
        layers(*one["input"], one["layers"], one["weights"], one["to"], quantized)
