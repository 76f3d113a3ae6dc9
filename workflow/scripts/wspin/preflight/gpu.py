"""What work takes on an assumed GPU: operations, bytes and launches in seconds."""

from dataclasses import dataclass

from wspin.config.stages import Preflight

# Bytes per parameter that a step moves besides its products, counted in torch's operations: clipping reads the gradient
# twice and writes it (12); foreach RMSprop is five passes over float32 tensors (52), fused AdamW one (28).
STEP_TRAFFIC = {"rmsprop": 64, "adamw": 40}
# The same of a micro-batch under autocast: weights are read and copied to bfloat16 (4 + 2), their gradients written,
# read and copied to float32 (2 + 2 + 4). In float32 nothing is copied.
PASS_TRAFFIC = {"bfloat16": 14, "float32": 0}


@dataclass(frozen=True)
class Gpu:
    """A GPU as the section `preflight` describes it."""

    assumed: Preflight

    def peak(self, precision: str) -> float:
        """FLOPs per second that jobs reach in this precision."""
        return getattr(self.assumed.tflops, precision) * 1e12 * self.assumed.utilisation

    def products(self, flops: float, precision: str) -> float:
        """Seconds of matrix products."""
        return flops / self.peak(precision)

    def traffic(self, size: float) -> float:
        """Seconds in which its memory moves `size` bytes."""
        return size / (self.assumed.bandwidth_tb * 1e12 * self.assumed.utilisation)

    def launches(self, layers: float) -> float:
        """Seconds that Python takes to launch the kernels of these layers' forward passes."""
        return layers * self.assumed.launch_ms / 1e3

    def start(self, files: float) -> float:
        """Seconds of a job in which it computes nothing: its start, and `files` bytes that it reads or writes."""
        return self.assumed.start_seconds + files / (self.assumed.disk_gb * 1e9)
