"""Whether the service in this container lives: asks the ops port that is open, whichever service's it is. Exits with 0 or 1.

forebay-probe [PAGE]        PAGE is healthz (the usual) or readyz
"""

import http.client
import sys

PORTS = range(8095, 8100)


def main() -> int:
    page = sys.argv[1] if len(sys.argv) > 1 else "healthz"
    for port in PORTS:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
        try:
            connection.request("GET", f"/{page}")
            answer = connection.getresponse()
            print(port, answer.status, answer.read(500).decode(errors="replace").strip())
            return 0 if answer.status == 200 else 1
        except ConnectionRefusedError:
            continue
        except (OSError, http.client.HTTPException) as error:
            print(port, repr(error))
            return 1
        finally:
            connection.close()
    print(f"No ops port is open: {PORTS.start} to {PORTS.stop - 1}.")
    return 1


sys.exit(main())
