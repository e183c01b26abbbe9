"""`nsm`, with components that count themselves: `python counted.py FOLDER COMMAND ...`.

A component writes the names of its tasks, as JSON, to `FOLDER/PID` whenever it receives SIGRTMIN. The handler is there
before the mesh's supervisor starts, so every process that is forked from it has it.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path


def count_in(folder):
    """From now on this process, and those forked from it, count themselves on SIGRTMIN."""

    def write(_number, _frame):
        names = [task.get_name() for task in asyncio.all_tasks()] if asyncio._get_running_loop() else []
        file = Path(folder, str(os.getpid()))
        file.with_suffix(".new").write_text(json.dumps(names))
        os.replace(file.with_suffix(".new"), file)

    signal.signal(signal.SIGRTMIN, write)


if __name__ == "__main__":
    from nsm.chains.cli import main

    count_in(sys.argv.pop(1))
    sys.exit(main())
