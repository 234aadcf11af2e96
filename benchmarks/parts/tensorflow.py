"""What the benchmarks measure in TensorFlow alone, in its own words."""

from __future__ import annotations

from typing import Any

# For choose.py. The names that a lesson uses the framework by.
DISTRIBUTIONS = ["tensorflow-cpu", "keras"]
ROOTS = {"tf", "keras", "layers", "network"}
PARTS = {
    "imports": "import keras, numpy\n"
    "from paripassu.frameworks.tensorflow.lesson import make_network",
    "build": "n = make_network()\nx = numpy.zeros((1, 28, 28, 1), 'float32')\n"
    "n.predict_on_batch(x)",
    "answer": "n.predict_on_batch(x)",
}

# Each writes into the current folder, and prints what it wrote.
FORMATS = {
    "Keras model, .keras": "n.save('a.keras')",
    "SavedModel, folder": "n.export('a', verbose=False)",
    "TensorFlow Lite, .tflite": "import tensorflow as tf\n"
    "open('a.tflite', 'wb').write("
    "tf.lite.TFLiteConverter.from_keras_model(n).convert())",
}

# A picture of 27 x 27 is given to a network for 28 x 28.
MISTAKE = "n.predict(numpy.zeros((1, 27, 27, 1)), verbose=0)"

# For speedups.py: what is said of each. "Tried" is what lesson and trainer lack.
VARIANTS = {
    "as it is": "as it is",
    "own dropout": "without: masks of bytes, Keras's `Dropout` instead",
    "own optimizer": "without: Adadelta in one pass, Keras's instead",
    "step by step": "without: ten steps in a row, single ones instead",
    "allocator": "without: memory kept by the allocator, glibc's defaults instead",
    "relu before pool": "without: ReLU after the pool, before it instead",
    "no prefetch": "without: `prefetch`",
    "no oneDNN": "without: oneDNN",
    "eager": "without: the graph, `run_eagerly=True` instead",
    "one thread between": "tried: one inter-op thread instead of two",
    "XLA": "tried: `jit_compile=True`",
}


def prepare(variant: str) -> None:
    """Change what must be changed before a trainer is made."""
    if variant == "one thread between":
        import tensorflow as tf

        threading = tf.config.threading
        threads_between = threading.set_inter_op_parallelism_threads
        threading.set_inter_op_parallelism_threads = lambda _count: threads_between(1)


def change(variant: str, trainer: Any) -> None:
    """Change a trainer of TensorFlow."""
    import tensorflow as tf
    from keras import layers, models

    from paripassu.frameworks.tensorflow import lesson

    network = trainer.network
    optimizer, loss = network.optimizer, trainer.loss
    if variant == "own dropout":
        for layer in network.layers:
            vars(layer).pop("call", None)  # the class's own is left
        lesson.compile_network(network, optimizer, loss)  # traced anew
    elif variant == "own optimizer":
        del optimizer.update_step
        lesson.compile_network(network, optimizer, loss)
    elif variant == "step by step":
        network.compile(optimizer, loss, metrics=["accuracy"])
    elif variant == "relu before pool":
        order = {layer.name: layer for layer in network.layers}
        names = list(order)
        first, second = names.index("pool"), names.index("relu2")
        names[first], names[second] = names[second], names[first]
        inputs = layers.Input((28, 28, 1))
        trainer.network = models.Sequential([inputs, *(order[x] for x in names)])
        lesson.compile_network(trainer.network, optimizer, loss)
    elif variant in ("eager", "XLA"):
        lesson.compile_network(network, optimizer, loss)
        setattr(network, "run_eagerly" if variant == "eager" else "jit_compile", True)
    elif variant == "no prefetch":
        to_dataset = lesson.to_dataset

        def plain(*given: Any) -> Any:
            prefetch = tf.data.Dataset.prefetch
            tf.data.Dataset.prefetch = lambda self, _count: self
            try:
                return to_dataset(*given)
            finally:
                tf.data.Dataset.prefetch = prefetch

        lesson.to_dataset = plain
