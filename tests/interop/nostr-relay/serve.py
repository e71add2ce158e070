"""nostr_relay as a peer: one process, on a free port of loopback, with a database in a folder of its own.

    .venv/bin/python serve.py FOLDER [--max-limit N] [--max-event-size N] [--ask-who]

Prints `listening ws://127.0.0.1:PORT` and runs until its standard input closes or SIGTERM comes. Everything else that
it and its libraries say goes to standard error.
"""

import argparse
import os.path
import socket
import sys
import threading

from alembic import config as alembic
import nostr_relay
from nostr_relay.config import Config
import uvicorn

arguments = argparse.ArgumentParser()
arguments.add_argument("folder")
arguments.add_argument("--max-limit", type=int, default=Config.max_limit)
arguments.add_argument("--max-event-size", type=int, default=Config.max_event_size)
arguments.add_argument("--ask-who", action="store_true", help="send a NIP-42 challenge")
arguments = arguments.parse_args()

told = sys.stdout
sys.stdout = sys.stderr

listening = socket.create_server(("127.0.0.1", 0))
address = "ws://127.0.0.1:%d" % listening.getsockname()[1]

# What the file of its configuration would say.
Config._is_loaded = True
Config.relay_name = "nostr_relay"
Config.max_limit = arguments.max_limit
Config.max_event_size = arguments.max_event_size
Config.logging = None
Config.storage = {
    "sqlalchemy.url": "sqlite+aiosqlite:///%s" % os.path.join(arguments.folder, "nostr.sqlite3"),
    "num_concurrent_reqs": 10,
    "num_concurrent_adds": 2,
    "validators": [
        "nostr_relay.validators.is_not_too_large",
        "nostr_relay.validators.is_signed",
        "nostr_relay.validators.is_recent",
    ],
}
if arguments.ask_who:
    Config.authentication = {
        "enabled": True,
        "relay_urls": [address, address + "/"],
        "actions": {"save": "a", "query": "a"},
    }

package = os.path.dirname(nostr_relay.__file__)
alembic.main(["-c" + os.path.join(package, "alembic.ini"), "upgrade", "head"])

from nostr_relay import web  # reads the configuration when it is imported

server = uvicorn.Server(uvicorn.Config(web.create_app(), log_level="warning"))


def end_with_standard_input():
    sys.stdin.read()
    server.should_exit = True


threading.Thread(target=end_with_standard_input, daemon=True).start()
print("listening", address, file=told, flush=True)
server.run(sockets=[listening])
