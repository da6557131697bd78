"""Which of several shapes of a main job would start soonest. Nothing is submitted."""

from __future__ import annotations

from collections.abc import Sequence

from hpclab.config import Settings
from hpclab.errors import ConfigError, HpclabError, NotRunning, UnreadableOutput
from hpclab.growth import Offer, soonest
from hpclab.hosts import Host
from hpclab.job import Shape
from hpclab.request import shaped
from hpclab.session import Session
from hpclab.units import counted


def fit(host: Host, settings: Settings, shapes: Sequence[Shape], *, notebook_dir: str) -> tuple[list[Offer], Offer]:
    """When a main job of each shape would start, and the soonest.

    Raises NotRunning when none would start, in the batch system's words.
    """
    sessions = {shape: Session.planned(host, shaped(settings, shape), notebook_dir=notebook_dir) for shape in shapes}
    first = sessions[shapes[0]]
    if not first.queue.can_estimate:
        raise ConfigError(
            f"{first.request.system} cannot say when a job would start before it is submitted\n"
            "leave --fit out, and say --nodes and --cores"
        )
    nodes = _nodes_there(first)
    offers = [_offer(host, session, shape, nodes) for shape, session in sessions.items()]
    best = soonest(offers)
    if best is None:
        told = "\n".join(f"  {offer.shape}: {offer.refusal}" for offer in offers)
        raise NotRunning(f"none of these shapes would start\n{told}\nnothing was submitted")
    return offers, best


def _nodes_there(session: Session) -> int:
    """How many the queue has; 0: not told."""
    try:
        queues = session.queue.queues()
    except HpclabError:
        return 0
    wanted = session.request.partition
    return next((queue.nodes for queue in queues if (queue.name == wanted if wanted else queue.is_default)), 0)


def _offer(host: Host, session: Session, shape: Shape, nodes: int) -> Offer:
    """When a job of this session's shape would start, where the queue has so many nodes."""
    if nodes and shape.nodes > nodes:
        # of the parts of a heterogeneous job Slurm says when each would start without the others
        return Offer(shape=shape, start_time=None, refusal=f"there are {counted(nodes, 'node')}")
    folder = f"{host.home}/fit-{session.name}"
    path = f"{folder}/start-dask.sh"
    host.make_folder(folder)
    try:
        host.write(path, session.start_script(), mode=0o700)
        return Offer(shape=shape, start_time=session.queue.expected_start(path))
    except UnreadableOutput as error:
        return Offer(shape=shape, start_time=None, refusal=str(error))
    finally:
        host.remove_tree(folder)
