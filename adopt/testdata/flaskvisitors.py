"""Writes flaskvisitors.json: visitors of two Flask programs, of whom flask-session-plus has stored one's in Firestore,
and the other's in their cookies.

    python3 flaskvisitors.py VERSION > flaskvisitors.json # of flask-session-plus

The client stands for Firestore's: it keeps documents in the form in which they go over the wire.
"""

import base64
import datetime
import json
import sys
import types
from importlib.metadata import version

import flask
import flask.helpers

# What flask-session-plus takes from older versions of Flask, and from pytz. They also took bytes for a cookie's value.
flask.helpers.total_seconds = datetime.timedelta.total_seconds
sys.modules["pytz"] = types.SimpleNamespace(utc=datetime.timezone.utc)

import flask_session_plus

SECRET = "top secret"
VISITORS = 25


def encode(v):
    match v:
        case None:
            return {"nullValue": None}
        case bool():
            return {"booleanValue": v}
        case int():
            return {"integerValue": str(v)}
        case float():
            return {"doubleValue": v}
        case str():
            return {"stringValue": v}
        case bytes():
            return {"bytesValue": base64.b64encode(v).decode()}
        case datetime.datetime():
            return {"timestampValue": v.replace(tzinfo=None).isoformat() + "Z"}
        case list():
            return {"arrayValue": {"values": [encode(x) for x in v]}}
        case dict():
            return {"mapValue": {"fields": {k: encode(x) for k, x in v.items()}}}
    raise TypeError(v)


class Client:
    def __init__(self):
        self.documents, self.values = {}, {}

    def collection(self, _):
        return self

    def document(self, name):
        def put(values):
            self.documents[name] = {k: encode(v) for k, v in values.items()}
            self.values[name] = {k: v.replace(tzinfo=datetime.timezone.utc) if k == "_expiration" else v for k, v in values.items()}

        def get():
            return types.SimpleNamespace(exists=name in self.values, to_dict=lambda: dict(self.values[name]))

        return types.SimpleNamespace(set=put, get=get)


class Response(flask.Response):
    def set_cookie(self, key, value, **options):
        super().set_cookie(key, value.decode() if isinstance(value, bytes) else value, **options)


def program(**config):
    app = flask.Flask(__name__)
    app.response_class = Response
    app.secret_key = SECRET
    app.config["SESSION_CONFIG"] = [{
        "cookie_name": "session", "session_fields": ["user_id", "name", "raw", "at", "share", "cart", "nothing"],
        "session_permanent_lifetime": datetime.timedelta(days=36500), **config,
    }]
    flask_session_plus.Session(app)

    @app.route("/login/<int:n>")
    def login(n):
        flask.session.update({
            "user_id": 42, "name": f"Zoë {n}", "raw": b"\x00\xff", "at": datetime.datetime(2026, 11, 26, 12),
            "share": 0.5, "cart": {"items": ["tea", 1]}, "nothing": None,
        })
        flask.session.set_permanent("session")
        return ""

    @app.route("/who")
    def who():
        return str(flask.session.get("user_id"))

    return app


def visit(app, n):
    """Returns the cookie of a visitor who has logged in."""
    browser = app.test_client()
    browser.get(f"/login/{n}")
    if browser.get("/who").text != "42":
        sys.exit("the program does not know its visitor")
    return browser.get_cookie("session").value


client = Client()
stored, signed = program(session_type="firestore", client=client, collection="sessions", use_signer=True), program()
visitors, cookies = [], []
for n in range(VISITORS):
    before = set(client.documents)
    cookie = visit(stored, n)
    (name,) = set(client.documents) - before
    visitors.append(json.dumps({"cookie": cookie, "document": name, "fields": client.documents[name]}))
    cookies.append(json.dumps(visit(signed, n)))
library = f"flask-session-plus {sys.argv[1]}, flask {version('flask')}"
print('{\n\t"library": %s,\n\t"secret": %s,\n\t"visitors": [\n\t\t%s\n\t],\n\t"cookies": [\n\t\t%s\n\t]\n}' % (
    json.dumps(library), json.dumps(SECRET), ",\n\t\t".join(visitors), ",\n\t\t".join(cookies)))
