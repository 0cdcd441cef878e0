"""A page that counts a visitor's visits in a cookie, signed with a key that only the app has."""

from pathlib import Path

from flask import Flask, session

app = Flask(__name__)
app.secret_key = Path("/run/secrets/key").read_bytes()


@app.get("/")
def visit() -> str:
    session["visits"] = session.get("visits", 0) + 1
    return f"<h1>Hello!</h1><p>Visits: {session['visits']}</p>\n"
