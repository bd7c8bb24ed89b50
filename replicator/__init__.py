"""The replicator: moves revisions between two peers, by CouchDB's protocol.

`Scheduler` runs replications as _replicate asks for them; `Replication` is one run between two `Peer`s.
"""

from .checkpoint import Checkpoints, ReplicationId, read_filter_code, replication_id
from .errors import EndpointRefused, InvalidReplication, PeerFailure, ReplicationError
from .http_client import tls_context
from .http_peer import HttpPeer
from .ledger import Ledger
from .local_peer import LocalPeer
from .local_requests import LocalRequests
from .options import Endpoint, Options, parse, parse_endpoint
from .peer import Peer, Refusal
from .peers import Here, Peers
from .pipeline import Replication
from .record import Limits
from .requests import Requests
from .scheduler import Scheduler
from .standalone import standalone

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
    "LocalRequests",
    "Options",
    "Peer",
    "PeerFailure",
    "Peers",
    "Refusal",
    "Replication",
    "ReplicationError",
    "ReplicationId",
    "Requests",
    "Scheduler",
    "parse",
    "parse_endpoint",
    "read_filter_code",
    "replication_id",
    "standalone",
    "tls_context",
]
