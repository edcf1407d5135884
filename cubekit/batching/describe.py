"""What a stream costs, in words."""

import math

from cubekit.batching.fetch import AHEAD
from cubekit.batching.stream import BlockStream, Shard

_RATE = 350e6  # bytes that a core decodes and hands out in a second: measured on uint16, zstd 3 bitshuffle
_ENOUGH = 1.5  # a design effect that training does not notice


def describe(stream: BlockStream, batches: int) -> str:
    """Tell what an epoch reads, holds and mixes.

    Parameters
    ----------
    stream : BlockStream
        Nothing is read.
    batches : int
        Of an epoch.

    Returns
    -------
    str
        Some lines: samples, chunks with their read amplification, buffer, design effect, rate.
    """
    blocks, kind = stream.blocks, "pixel series" if stream.is_pixels else "patches"
    depth = max(part.source.readers["x"].chunks.pixel_bytes for part in stream.parts)
    window = blocks.window
    size = float(((window[:, 1] - blocks.fresh) * (window[:, 3] - window[:, 2])).sum()) * depth
    first = stream.order(0, Shard())
    held = min(first.most_held + AHEAD, len(blocks.run))
    if stream.apart():  # patches make room one by one; a block is there twice while it is cut
        waiting = first.most_waiting / max(1, len(first.items)) * size
        waiting = min(waiting + (AHEAD + 1) * blocks.block_bytes, size)
        held_as = f"holds up to {waiting / 1e6:.1f} MB of patches of {held} of {len(blocks.run)} blocks"
    else:
        held_as = f"holds up to {held} of {len(blocks.run)} blocks"
    order = "shuffled" if stream.shuffle else "block by block"
    effect = stream.spread()
    lines = [
        f"CubeStream: {stream.total} {kind} in {batches} batches of at most {stream.batch}, {order}",
        (
            f"  reads {blocks.decoded} chunks, {size / 1e6:.1f} MB decoded, an epoch; "
            f"amplification {blocks.amplification:.2f}"
        ),
        (f"  {held_as} of at most {blocks.block_bytes / 1e6:.1f} MB; buffer {stream.buffer / 1e6:.0f} MB"),
        f"  design effect {effect:.2f} at most (scatter of batch means against a true shuffle)",
    ]
    if stream.shuffle and effect > _ENOUGH and not stream.is_pixels:
        enough = ((0.4 if stream.apart() else 0.8) * stream.batch + 2 * AHEAD) * blocks.block_bytes
        lines.append(f"  buffer={_rounded(min(enough, size))!r} would mix more, and so would smaller chunks")
    read = stream.read
    if read["seconds"] > 0 and read["items"]:
        lines.append(f"  gave out {read['items'] / read['seconds']:.0f} {kind} a second so far")
    else:
        rate = stream.total / max(size / _RATE, 1e-9)
        lines.append(f"  expect about {rate:.0f} {kind} a second and core ({_RATE / 1e6:.0f} MB/s)")
    if blocks.split > 1:
        lines.append(
            f"  a chunk exceeds the buffer and is read {blocks.split} times, in pieces: cubekit.rechunk, "
            "or a larger buffer"
        )
    elif blocks.amplification > 1.1:  # noqa: PLR2004
        lines.append("  patches lie across chunks: a larger buffer, or fewer overlaps, reads less twice")
    return "\n".join(lines)


def _rounded(size: float) -> str:
    """Write bytes as a buffer is given."""
    return f"{math.ceil(size / 1e8) / 10:g}GB" if size > 1e9 else f"{math.ceil(size / 1e6)}MB"  # noqa: PLR2004
