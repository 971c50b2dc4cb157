"""`python -m annotator_ui.probe [/readyz]`: asks the page on this machine how it is; for containers and cron.

It says the Host that the page trusts, which a plain request to 127.0.0.1 would not.
"""

import http.client
import sys
from collections.abc import Sequence

from engine.config import Settings, load_settings
from engine.errors import MaskloopError

TIMEOUT_S = 10
EVERYWHERE = ("0.0.0.0", "::")


def main(arguments: Sequence[str]) -> int:
    """0 when the page answers 200 at the given path (else /readyz); 1 and what it said on stderr."""
    path = arguments[0] if arguments else "/readyz"
    try:
        status, said = _ask(load_settings(), path)
    except MaskloopError as error:
        status, said = 0, str(error)
    except (OSError, http.client.HTTPException) as error:
        status, said = 0, f"the page does not answer ({error}): start `python -m annotator_ui`"
    if status != 200:
        print(said.strip(), file=sys.stderr)
    return 0 if status == 200 else 1


def _ask(settings: Settings, path: str) -> tuple[int, str]:
    web = settings.web
    here = "127.0.0.1" if web.host in EVERYWHERE else web.host
    connection = http.client.HTTPConnection(here, web.port, timeout=TIMEOUT_S)
    try:
        host = web.trusted_hosts[0] if web.trusted_hosts else here
        connection.request("GET", path, headers={"Host": host})
        reply = connection.getresponse()
        return reply.status, reply.read().decode(errors="replace")
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
