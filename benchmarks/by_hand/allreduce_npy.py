"""The seed's first solution, its MPI side: read the chunks that Dask has written, Allreduce, write them back.

mpiexec -n N python allreduce_npy.py FOLDER LOOK_AT
"""

import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
folder, look_at = Path(sys.argv[1]), int(sys.argv[2])
paths = sorted(folder.glob("in-*.npy"))
share = -(-len(paths) // comm.size)
own = paths[comm.rank * share : (comm.rank + 1) * share]
chunks = [np.load(path) for path in own]
part, whole = np.zeros(look_at), np.zeros(look_at)
for chunk in chunks:
    part += chunk[:look_at]
comm.Allreduce(part, whole)
for path, chunk in zip(own, chunks, strict=True):
    chunk[:look_at] = whole
    np.save(path.with_name(path.name.replace("in-", "out-")), chunk)
