"""The configuration a server has before anybody changed it: CouchDB 3.5's sections, keys and values.

Two tables, as CouchDB has two kinds of default. A key of REPORTED is part of the configuration: it is listed,
and a GET of it answers. A key of BUILT_IN is used when nothing is set, but is not listed and a GET of it
answers 404 (in CouchDB's own file these are the commented lines). A setting has one default, here, and no
caller repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping

Sections = Mapping[str, Mapping[str, str]]

REPORTED: Sections = {
    "vendor": {"name": "The Apache Software Foundation"},
    "couchdb": {"single_node": "true"},
    "cluster": {"n": "1"},
    "chttpd": {"bind_address": "127.0.0.1", "port": "5984"},
    # Nothing listens here (CouchDB's second port serves single shards), but configuration tools look for the
    # section.
    "httpd": {"bind_address": "127.0.0.1", "port": "5986"},
    "chttpd_auth": {"hash_algorithms": "sha256, sha"},
    "couch_httpd_auth": {"authentication_db": "_users"},
    "indexers": {"couch_mrview": "true"},
    "feature_flags": {"partitioned||*": "true"},
    "prometheus": {"additional_port": "false", "bind_address": "127.0.0.1", "port": "17986"},
}

BUILT_IN: Sections = {
    "couchdb": {
        "changes_doc_ids_optimization_threshold": "1000",
        "default_security": "admin_only",
        "max_attachment_size": "1073741824",
        "max_document_id_length": "infinity",
        "max_document_size": "8000000",
        "max_partition_size": "10737418240",
        "os_process_timeout": "5000",
        "users_db_security_editable": "false",
    },
    "couchlite": {
        "function_memory_bytes": "134217728",
        "keep_revisions": "1",
        "keep_seconds": "0",
        "keep_undo_seconds": "604800",
        "ledger_exceptions": "10000",
        "ledger_outcomes": "100000",
        "min_free_disk": "67108864",
        "show_merge_bases": "false",
        "workers": "0",
    },
    "disk_monitor": {
        "enable": "false",
        "interactive_database_writes_threshold": "90",
        "interactive_view_indexing_threshold": "90",
    },
    "smoosh": {
        "cleanup_channels": "index_cleanup",
        "db_channels": "ratio_dbs, slack_dbs",
        "view_channels": "ratio_views, slack_views",
    },
    "purge": {"max_document_id_number": "100", "max_revisions_number": "1000"},
    "cluster": {"q": "2"},
    "chttpd": {
        "admin_only_all_dbs": "true",
        "allow_jsonp": "false",
        "authentication_handlers": (
            "{chttpd_auth, cookie_authentication_handler}, {chttpd_auth, default_authentication_handler}"
        ),
        "buffer_response": "false",
        "changes_timeout": "60000",
        "decode_plus_to_space": "true",
        "enable_cors": "false",
        "enable_xframe_options": "false",
        "max_db_number_for_dbs_info_req": "100",
        "max_http_request_size": "4294967296",
        "max_uri_length": "8000",
        "prefer_minimal": (
            "Cache-Control, Content-Length, Content-Range, Content-Type, ETag, Server, "
            "Transfer-Encoding, Vary"
        ),
        "require_valid_user": "false",
        "require_valid_user_except_for_up": "false",
        "rewrite_limit": "100",
        "secure_rewrites": "true",
        "server_header_versions": "true",
        "valid_hosts": "",
        "validate_host": "false",
        "x_forwarded_host": "X-Forwarded-Host",
        "x_forwarded_proto": "X-Forwarded-Proto",
        "x_forwarded_ssl": "X-Forwarded-Ssl",
    },
    "chttpd_auth": {
        "allow_conflicted_user_docs": "false",
        "allow_persistent_cookies": "true",
        "authentication_db": "_users",
        "authentication_redirect": "/_utils/session.html",
        "cookie_domain": "",
        "iterations": "600000",
        "max_iterations": "1000000000",
        "min_iterations": "1",
        "password_scheme": "pbkdf2",
        "password_regexp": "",
        "pbkdf2_prf": "sha256",
        "proxy_use_secret": "false",
        "public_fields": "",
        "same_site": "",
        "timeout": "600",
        "upgrade_hash_on_auth": "true",
        "x_auth_roles": "X-Auth-CouchDB-Roles",
        "x_auth_token": "X-Auth-CouchDB-Token",
        "x_auth_username": "X-Auth-CouchDB-UserName",
    },
    "jwt_auth": {"required_claims": "exp", "roles_claim_name": "_couchdb.roles"},
    "chttpd_auth_lockout": {
        "max_lifetime": "300000",
        "mode": "enforce",
        "threshold": "5",
    },
    "couch_peruser": {
        "database_prefix": "userdb-",
        "delete_dbs": "false",
        "enable": "false",
        "q": "1",
    },
    "couch_passwords_cache": {"enable": "true", "max_idle": "600000", "max_objects": "10000"},
    "cors": {"credentials": "false", "headers": "", "methods": "", "origins": ""},
    "csp": {
        "attachments_enable": "true",
        "attachments_header_value": "sandbox",
        "utils_enable": "true",
        "utils_header_value": (
            "child-src 'self' data: blob:; default-src 'self'; img-src 'self' data:; font-src 'self'; "
            "script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
            "frame-src https://blog.couchdb.org;"
        ),
    },
    "x_frame_options": {"hosts": "", "same_origin": "false"},
    "uuids": {"algorithm": "sequential", "max_count": "1000", "utc_id_suffix": ""},
    "attachments": {
        "compressible_types": "text/*, application/javascript, application/json, application/xml",
        "compression_level": "8",
    },
    "log": {"level": "info"},
    "replicator": {
        "checkpoint_interval": "30000",
        "connection_timeout": "30000",
        "health_threshold": "120",
        "http_connections": "20",
        "interval": "60000",
        "max_churn": "20",
        "max_history": "20",
        "max_jobs": "500",
        "retries_per_request": "5",
        "update_docs": "false",
        "use_bulk_get": "true",
        "use_checkpoints": "true",
        "verify_ssl_certificates": "true",
        "worker_batch_size": "500",
        "worker_processes": "4",
    },
}
