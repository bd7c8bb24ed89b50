"""All workloads. Each module that is imported here adds its own; the order here is the order of the runs."""

from . import document_workloads as document_workloads
from . import query_workloads as query_workloads
from . import replication_workloads as replication_workloads
from . import size_workloads as size_workloads  # last, since it looks at what the others left
from .registry import WORKLOADS as WORKLOADS
from .registry import Workload as Workload
