"""Pictures and their ground truth, from files or drawn, up to the batches the network takes.

`open_split` reads a split (`voc`, `synthetic`); `cache` keeps its pictures decoded and shrunk, once
a node; `transforms` varies a picture with its boxes; `dataset` makes batches of them, the same ones
for any number of workers.
"""

from ssd_dist.data.readers import open_split

__all__ = ["open_split"]
