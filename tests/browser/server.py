"""Serves web's real ASGI application on a test's database. Its settings come as JSON on stdin, and it ends with it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Serve until stdin closes."""
    given = json.loads(sys.stdin.readline())
    sys.path[:0] = [str(ROOT), str(ROOT / "platform")]
    os.environ["DJANGO_SETTINGS_MODULE"] = "gatehouse.settings"
    from django.conf import settings

    settings.DATABASES["default"].update(given["database"])
    settings.GATEHOUSE = dataclasses.replace(
        settings.GATEHOUSE, home=Path(given["home"]), seed_text=given["seed"], secret_key_text=given["seed"]
    )
    settings.SECRET_KEY = given["secret_key"]
    settings.PASSWORD_HASHERS = given["hashers"]
    threading.Thread(target=end_with_stdin, daemon=True).start()

    import uvicorn

    uvicorn.run(
        "gatehouse.asgi:application",
        host="127.0.0.1",
        port=given["port"],
        loop="uvloop",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )


def end_with_stdin() -> None:
    """Stop without ceremony when the tests are over, or dead."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
