"""A mail server for tests: prints what each client says, one line of JSON each, and refuses what it is told to.

mail_server.py PORT CERTIFICATE|- KEY|- [REFUSED-RECIPIENT] [--auth]
"""

import json
import ssl
import sys
import time

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult


def tell(**what):
    print(json.dumps(what), flush=True)


class Handler:
    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        tell(ehlo=hostname, tls=session.ssl is not None)
        return responses

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address == refused:
            tell(refused=address)
            return "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        text = envelope.content.decode("utf-8", "replace")
        tell(mail=text, to=envelope.rcpt_tos, tls=session.ssl is not None)
        return "250 OK"


def check(server, session, envelope, mechanism, data):
    password = getattr(data, "password", b"")
    tell(password=password.decode(), tls=session.ssl is not None)
    return AuthResult(success=True)


port, certificate, key, *more = sys.argv[1:]
auth = "--auth" in more
refused = next((word for word in more if not word.startswith("--")), None)
context = None
if certificate != "-":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
options = {"tls_context": context}
if auth:
    options |= {"authenticator": check, "auth_require_tls": False}


class Server(Controller):
    def factory(self):
        return SMTP(self.handler, **options)


Server(Handler(), hostname="127.0.0.1", port=int(port)).start()
tell(ready=True)
while True:
    time.sleep(60)
