"""The replicator: moves revisions between two peers, by CouchDB's protocol.

`Scheduler` runs replications as _replicate asks for them; `Replication` is one run between two `Peer`s.
"""

from .checkpoint import Checkpoints, ReplicationId, read_filter_code, replication_id
from .errors import EndpointRefused, InvalidReplication, PeerFailure, ReplicationError
from .http_client import tls_context
from .http_peer import HttpPeer
from .ledger import Ledger
from .local_peer import LocalPeer
from .options import Endpoint, Options, parse
from .peer import Peer, Refusal
from .peers import Here, Peers
from .pipeline import Replication
from .record import Limits
from .scheduler import Scheduler

__all__ = [
    "Checkpoints",
    "Endpoint",
    "EndpointRefused",
    "Here",
    "HttpPeer",
    "InvalidReplication",
    "Ledger",
    "Limits",
    "LocalPeer",
    "Options",
    "Peer",
    "PeerFailure",
    "Peers",
    "Refusal",
    "Replication",
    "ReplicationError",
    "ReplicationId",
    "Scheduler",
    "parse",
    "read_filter_code",
    "replication_id",
    "tls_context",
]
