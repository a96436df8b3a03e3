"""Writes flask.json: what flask-session-plus puts into cookies, by the parts of Flask and itsdangerous that it uses.

    python3 flaskcookies.py > flask.json
"""

import datetime
import hashlib
import json
import uuid
from importlib.metadata import version

from flask.json.tag import TaggedJSONSerializer
from itsdangerous import Signer, URLSafeTimedSerializer
from markupsafe import Markup

SECRET = "top secret"
VALUES = {
    "user_id": 42, "large": 2**63, "huge": 2**70, "negative": -1, "share": 0.5, "name": "Zoë", "admin": True, "nothing": None,
    "raw": b"\x00\xff", "at": datetime.datetime(2026, 11, 26, 12, 0, 0), "html": Markup("<b>"), "pair": (1, ("a", b"x")),
    "id": uuid.UUID("6fa459ea-ee8a-3ca4-894e-db77e160355e"), "looks": {" t": [1]}, "prefs": {"dark": {"at": 1}},
    "_flashes": [("message", "saved")], "_permanent": True,
}

cookies = URLSafeTimedSerializer(
    SECRET, salt="cookie-session", serializer=TaggedJSONSerializer(),
    signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha3_256},
)
ids = Signer(SECRET, salt="flask-session", key_derivation="hmac")

print(json.dumps({
    "library": f"flask {version('flask')}, itsdangerous {version('itsdangerous')}",
    "secret": SECRET,
    "cookie": cookies.dumps(VALUES),
    "small": cookies.dumps({"user_id": 42}),
    "sid": ids.sign("6fa459ea-ee8a-3ca4-894e-db77e160355e").decode(),
}, indent="\t"))
