"""Batches of tensors: seeded, resumable, shared out among loader workers and ranks without repeats."""

from cubekit.batching.torch.cubes import CubeStream
from cubekit.batching.torch.samples import SampleStream
from cubekit.batching.torch.shared import Batch
from cubekit.batching.torch.streams import batches

__all__ = ["Batch", "CubeStream", "SampleStream", "batches"]
