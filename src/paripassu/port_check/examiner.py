"""The process that opens users' models and optimizers and compares them.

Started as `python -m paripassu.port_check.examiner`; see `paripassu.processes.child`.
"""

from __future__ import annotations

import sys

from paripassu.port_check.session import answer
from paripassu.processes.child import serve_request

if __name__ == "__main__":
    sys.exit(serve_request(answer))
