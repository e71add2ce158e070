"""A mail server (aiosmtpd): one process, on a free port of loopback, that keeps what it takes in a folder.

    .venv/bin/python serve.py FOLDER CERTIFICATE KEY [--tls] [--user NAME --password WORD] [--port N]

Offers STARTTLS, or with --tls speaks nothing but TLS; lets in whoever proves to be NAME, and takes mail from nobody else.
Each mail is a file FOLDER/N.json: envelope, headers, and both texts, decoded by Python's own library; FOLDER/login.json tells
of the last login that was tried. Prints `listening PORT` and runs until its standard input closes.
"""

import argparse
import asyncio
import email
import email.policy
import json
import os
import socket
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

arguments = argparse.ArgumentParser()
arguments.add_argument("folder")
arguments.add_argument("certificate")
arguments.add_argument("key")
arguments.add_argument("--tls", action="store_true")
arguments.add_argument("--user")
arguments.add_argument("--password")
arguments.add_argument("--port", type=int, default=0)
arguments = arguments.parse_args()


def note(name, what):
    """Whole or not at all: tests look into the folder at any moment."""
    path = os.path.join(arguments.folder, name)
    with open(path + ".new", "w") as file:
        json.dump(what, file)
    os.rename(path + ".new", path)


def authenticate(server, session, envelope, mechanism, data):
    login, password = data.login.decode(), data.password.decode()
    good = (login, password) == (arguments.user, arguments.password)
    note("login.json", {"login": login, "good": good, "encrypted": session.ssl is not None or arguments.tls})
    return AuthResult(success=good, handled=False, auth_data=login)


class Keeper:
    count = 0

    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        parts = {part.get_content_type(): part.get_content() for part in message.walk() if not part.is_multipart()}
        Keeper.count = len([name for name in os.listdir(arguments.folder) if name[:1].isdigit()])
        note("%d.json" % Keeper.count, {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "type": message.get_content_type(),
            "headers": {name.lower(): str(value) for name, value in message.items()},
            "text": parts.get("text/plain"),
            "html": parts.get("text/html"),
            "encrypted": session.ssl is not None or arguments.tls,
            "login": session.auth_data if session.authenticated else None,
        })
        return "250 2.0.0 taken as number %d" % Keeper.count


def session():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.certificate, arguments.key)
    return context


async def serve():
    context, wants_login = session(), arguments.user is not None

    def protocol():
        return SMTP(
            Keeper(),
            hostname="mail.test",
            tls_context=None if arguments.tls else context,
            require_starttls=not arguments.tls,
            authenticator=authenticate if wants_login else None,
            auth_required=wants_login,
            auth_require_tls=not arguments.tls,
            loop=asyncio.get_running_loop(),
        )

    listening = socket.create_server(("127.0.0.1", arguments.port))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, sock=listening, ssl=context if arguments.tls else None)
    print("listening %d" % listening.getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    os._exit(0)


asyncio.run(serve())
