"""The terminal: `couchlite serve`, and administration of databases and documents."""
