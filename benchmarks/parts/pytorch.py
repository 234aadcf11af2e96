"""What the benchmarks measure in PyTorch alone, in its own words."""

from __future__ import annotations

from typing import Any

# For choose.py. The names that a lesson uses the framework by.
DISTRIBUTIONS = ["torch"]
ROOTS = {"torch", "nn", "network", "optimizer", "schedule", "loss"}
PARTS = {
    "imports": "import torch\nfrom paripassu.frameworks.pytorch.lesson import Network",
    "build": "n = Network().eval()\nx = torch.zeros(1, 1, 28, 28)\n"
    "with torch.inference_mode(): n(x)",
    "answer": "with torch.inference_mode(): n(x).numpy()",
}

# Each writes into the current folder, and prints what it wrote.
FORMATS = {
    "state_dict, .pt": "torch.save(n.state_dict(), 'a.pt')",
    "exported program, .pt2": "torch.export.save("
    "torch.export.export(n, (x,)), 'a.pt2')",
    "TorchScript, .pt": "torch.jit.save(torch.jit.trace(n, x), 'a.pt')",
}

# A picture of 27 x 27 is given to a network for 28 x 28.
MISTAKE = "n(torch.zeros(1, 1, 27, 27))"

# For speedups.py: what is said of each. "Tried" is what lesson and trainer lack.
VARIANTS = {
    "as it is": "as it is",
    "own dropout": "without: masks of bytes, PyTorch's `bernoulli_` instead",
    "allocator": "without: memory kept by the allocator, glibc's defaults instead",
    "relu before pool": "without: ReLU after the pool, before it instead",
    "channels first": "without: channels last, channels first instead",
    "image by image": "without: batches indexed at once, a `DataLoader` instead",
    "compile optimizer": "tried: `torch.compile(optimizer.step)`",
    "compile network": "tried: `torch.compile(network)`",
    "relu in place": "tried: `ReLU(inplace=True)`",
}


def prepare(_variant: str) -> None:
    """Change what must be changed before a trainer is made: nothing."""


def change(variant: str, trainer: Any) -> None:
    """Change a trainer of PyTorch."""
    import torch
    from torch import nn

    from paripassu.frameworks.pytorch import lesson

    network = trainer.network
    if variant == "own dropout":
        for layer in (network.dropout1, network.dropout2):
            del layer.forward  # the class's own is left
    elif variant == "relu before pool":

        class Before(lesson.Network):
            def forward(self, x: Any) -> Any:
                x = self.relu1(self.conv1(x))
                x = self.pool(self.relu2(self.conv2(x)))
                x = self.flatten(self.dropout1(x))
                x = self.relu3(self.dense1(x))
                return self.dense2(self.dropout2(x))

        network.__class__ = Before
    elif variant == "channels first":
        network.to(memory_format=torch.contiguous_format)
    elif variant == "compile optimizer":
        trainer.optimizer.step = torch.compile(trainer.optimizer.step)
    elif variant == "compile network":
        network.compile()
    elif variant == "relu in place":
        for layer in network.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = True
    elif variant == "image by image":
        train_epoch = lesson.train_epoch

        def one_by_one(
            network: Any, loss_of: Any, optimizer: Any, data: Any, batches: Any
        ) -> Any:
            class Given:  # the batch that comes is the batch that is asked for
                def __getitem__(self, batch: Any) -> Any:
                    return batch

            loader = torch.utils.data.DataLoader(data, batch_sampler=batches)
            return train_epoch(network, loss_of, optimizer, Given(), loader)

        lesson.train_epoch = one_by_one
