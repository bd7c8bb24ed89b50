"""Nothing acknowledged is ever lost: processes killed at random moments, full disks, damaged files."""

import os

KILLS = int(os.environ.get("COUCHLITE_TEST_KILLS", "12"))
"""How often each of these tests kills; some hundreds take minutes and find more."""
