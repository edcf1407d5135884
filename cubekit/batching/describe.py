"""What a stream costs, in words."""

from cubekit.batching.pixels import PixelPlan
from cubekit.batching.stream import BlockStream, Shard

_RATE = 350e6  # bytes that a core decodes and hands out in a second: measured on uint16, zstd 3 bitshuffle


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
    blocks, kind = stream.blocks, "pixel series" if isinstance(stream.plans[0], PixelPlan) else "patches"
    depth = max(part.source.readers["x"].chunks.pixel_bytes for part in stream.parts)
    window = blocks.window
    size = float(((window[:, 1] - blocks.fresh) * (window[:, 3] - window[:, 2])).sum()) * depth
    held = min(stream.order(0, Shard()).most_held + 2, len(blocks.run))
    order = "shuffled" if stream.shuffle else "block by block"
    lines = [
        f"CubeStream: {stream.total} {kind} in {batches} batches of at most {stream.batch}, {order}",
        (
            f"  reads {blocks.decoded} chunks, {size / 1e6:.1f} MB decoded, an epoch; "
            f"amplification {blocks.amplification:.2f}"
        ),
        (
            f"  holds up to {held} of {len(blocks.run)} blocks of at most {blocks.block_bytes / 1e6:.1f} MB; "
            f"buffer {stream.buffer / 1e6:.0f} MB"
        ),
        f"  design effect {stream.spread():.2f} at most (scatter of batch means against a true shuffle)",
    ]
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
