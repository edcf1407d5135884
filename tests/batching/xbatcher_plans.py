"""A pytest plugin that puts our plans in the place of xbatcher's generator, for xbatcher's own tests.

``make test-xbatcher`` runs them. Six of them fail with plain xbatcher as well and are left out: they look for
files of Zarr 2 in a cache (``test_batcher_cached_getitem``, twice), and for named tensors that torch no
longer makes of what they are given (``test_torch_to_tensor`` and ``test_torch_to_named_tensor``, twice each).
"""

import xbatcher
import xbatcher.accessors
import xbatcher.generators

from cubekit.batching.plan import Plan

for module in (xbatcher, xbatcher.accessors, xbatcher.generators):
    module.BatchGenerator = Plan
