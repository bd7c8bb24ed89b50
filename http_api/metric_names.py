"""The names of CouchDB's statistics, with its descriptions: what monitors ask for.

What it tells of its own insides, and what can't happen here, is left out or stays zero. Source: the `_stats`
of CouchDB 3.5.
"""

from __future__ import annotations

from typing import Final

COUNTERS: Final = {
    "couch_log.level.alert": "number of logged alert messages",
    "couch_log.level.critical": "number of logged critical messages",
    "couch_log.level.debug": "number of logged debug messages",
    "couch_log.level.emergency": "number of logged emergency messages",
    "couch_log.level.error": "number of logged error messages",
    "couch_log.level.info": "number of logged info messages",
    "couch_log.level.notice": "number of logged notice messages",
    "couch_log.level.report": "number of logged report messages",
    "couch_log.level.report_error": "number of failed report messages",
    "couch_log.level.warning": "number of logged warning messages",
    "couch_replicator.jobs.adds": "number of jobs added to replicator scheduler",
    "couch_replicator.jobs.crashes": "number of job crashed noticed by replicator scheduler",
    "couch_replicator.jobs.duplicate_adds": "number of duplicate jobs added to replicator scheduler",
    "couch_replicator.jobs.removes": "number of jobs removed from replicator scheduler",
    "couch_replicator.jobs.starts": "number of jobs started by replicator scheduler",
    "couch_replicator.jobs.stops": "number of jobs stopped by replicator scheduler",
    "couchdb.auth_cache_hits": "number of authentication cache hits",
    "couchdb.auth_cache_misses": "number of authentication cache misses",
    "couchdb.coalesced_updates.interactive": "number of coalesced interactive updates",
    "couchdb.coalesced_updates.replicated": "number of coalesced replicated updates",
    "couchdb.commits": "number of commits performed",
    "couchdb.couch_server.lru_skip": "number of couch_server LRU operations skipped",
    "couchdb.database_purges": "number of times a database was purged",
    "couchdb.database_reads": "number of times a document was read from a database",
    "couchdb.database_writes": "number of times a database was changed",
    "couchdb.document_inserts": "number of documents inserted",
    "couchdb.document_purges.failure": "number of failed document purge operations",
    "couchdb.document_purges.success": "number of successful document purge operations",
    "couchdb.document_purges.total": "number of total document purge operations",
    "couchdb.document_writes": "number of document write operations",
    "couchdb.httpd.abandoned_streaming_requests": "number of abandoned streaming requests",
    "couchdb.httpd.aborted_requests": "number of aborted requests",
    "couchdb.httpd.all_docs_timeouts": "number of HTTP all_docs timeouts",
    "couchdb.httpd.bulk_requests": "number of bulk requests",
    "couchdb.httpd.clients_requesting_changes": "number of clients for continuous _changes",
    "couchdb.httpd.explain_timeouts": "number of HTTP _explain timeouts",
    "couchdb.httpd.find_timeouts": "number of HTTP find timeouts",
    "couchdb.httpd.partition_all_docs_requests": "number of partition HTTP _all_docs requests",
    "couchdb.httpd.partition_all_docs_timeouts": "number of partition HTTP all_docs timeouts",
    "couchdb.httpd.partition_explain_requests": "number of partition HTTP _explain requests",
    "couchdb.httpd.partition_explain_timeouts": "number of partition HTTP _explain timeouts",
    "couchdb.httpd.partition_find_requests": "number of partition HTTP _find requests",
    "couchdb.httpd.partition_find_timeouts": "number of partition HTTP find timeouts",
    "couchdb.httpd.partition_view_requests": "number of partition HTTP view requests",
    "couchdb.httpd.partition_view_timeouts": "number of partition HTTP view timeouts",
    "couchdb.httpd.purge_requests": "number of purge requests",
    "couchdb.httpd.requests": "number of HTTP requests",
    "couchdb.httpd.temporary_view_reads": "number of temporary view reads",
    "couchdb.httpd.view_reads": "number of view reads",
    "couchdb.httpd.view_timeouts": "number of HTTP view timeouts",
    "couchdb.io_queue.search": "Search IO directly triggered by client requests",
    "couchdb.io_queue2.search.count": "Search IO directly triggered by client requests",
    "couchdb.legacy_checksums": "number of legacy checksums found in couch_file instances",
    "couchdb.local_document_writes": "number of _local document write operations",
    "couchdb.mrview.emits": "number of invocations of `emit' in map functions in the view server",
    "couchdb.mrview.map_doc": "number of documents mapped in the view server",
    "couchdb.open_databases": "number of open databases",
    "couchdb.open_os_files": "number of file descriptors CouchDB has open",
    "couchdb.password_hashing_fast": "number of fast password hashing operations",
    "couchdb.password_hashing_slow": "number of slow password hashing operations",
    "couchdb.query_server.process_starts": "number of OS process starts",
    "couchdb.query_server.vdu_rejects": "number of rejections by validate_doc_update function",
    "mango.docs_examined": "number of documents examined by mango queries coordinated by this node",
    "mango.evaluate_selector": "number of mango selector evaluations",
    "mango.keys_examined": "number of keys examined by mango queries coordinated by this node",
    "mango.query_invalid_index": "number of mango queries that generated an invalid index warning",
    "mango.quorum_docs_examined": "number of documents examined by mango queries, using cluster quorum",
    "mango.results_returned": "number of rows returned by mango queries",
    "mango.too_many_docs_scanned": "number of mango queries that generated an index scan warning",
    "mango.unindexed_queries": "number of mango queries that could not use an index",
}
GAUGES: Final = {
    "couch_replicator.jobs.crashed": "replicator scheduler crashed jobs",
    "couch_replicator.jobs.pending": "replicator scheduler pending jobs",
    "couch_replicator.jobs.running": "replicator scheduler running jobs",
    "couch_replicator.jobs.total": "total number of replicator scheduler jobs",
}
SHOWN_AS_GAUGES: Final = frozenset(
    ("couchdb.open_databases", "couchdb.open_os_files", "couchdb.httpd.clients_requesting_changes")
)
"""`_stats` calls them counters; what goes up and down is a gauge to Prometheus."""
HISTOGRAMS: Final = {
    "couchdb.collect_results_time": "microsecond latency for calls to couch_db:collect_results/3",
    "couchdb.db_open_time": "milliseconds required to open a database",
    "couchdb.dbinfo": "distribution of latencies for calls to retrieve DB info",
    "couchdb.httpd.bulk_docs": "distribution of the number of docs in _bulk_docs requests",
    "couchdb.request_time": "length of a request inside CouchDB without MochiWeb",
    "mango.query_time": "length of time processing a mango query",
}
