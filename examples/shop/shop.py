"""A shop: articles and orders in PostgreSQL, and a count of the visits in redis.

The names of the hosts are those of the services, db and cache.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from threading import Lock
from typing import Any

import psycopg2
import redis
from flask import Flask, redirect, render_template, request

PASSWORD = Path("/run/secrets/password")
ARTICLES = """
SELECT articles.id, name, price, count(orders.id) FROM articles
    LEFT JOIN orders ON article = articles.id GROUP BY articles.id ORDER BY name
"""

app = Flask(__name__)
cache = redis.Redis("cache")


class Database:
    """One connection for all threads, made when it is needed and again when it was lost."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.connection: Any = None

    def run(self, statement: str, *values: object) -> list[Any]:
        with self.lock:
            if self.connection is None or self.connection.closed:
                self.connection = self.connect()
            with self.connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []

    def connect(self) -> Any:
        connection = psycopg2.connect(
            host="db", user="postgres", password=PASSWORD.read_text().strip(), connect_timeout=5
        )
        connection.autocommit = True
        return connection


database = Database()


@app.get("/")
def show() -> str:
    return render_template(
        "shop.html",
        articles=database.run(ARTICLES),
        visits=cache.incr("visits"),
        version=os.environ["VERSION"],
        replica=socket.gethostname(),
    )


@app.post("/orders")
def order() -> Any:
    database.run("INSERT INTO orders (article) VALUES (%s)", request.form["article"])
    return redirect("/")


@app.get("/healthz")
def check() -> str:
    database.run("SELECT 1")
    cache.ping()
    return "ok"
