"""A shop: articles and orders in PostgreSQL, and a count of the visits in redis.

The names of the hosts are those of the instances, db and cache.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import psycopg2
import redis
from flask import Flask, redirect, render_template, request

PASSWORD = Path("/run/secrets/password")
TABLES = """
CREATE TABLE IF NOT EXISTS articles (id serial PRIMARY KEY, name text UNIQUE, price int);
CREATE TABLE IF NOT EXISTS orders (
    id serial PRIMARY KEY, article int REFERENCES articles, at timestamptz DEFAULT now()
);
INSERT INTO articles (name, price) VALUES ('Apple', 1), ('Bread', 4), ('Cheese', 7)
    ON CONFLICT DO NOTHING;
"""
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
        with connection.cursor() as cursor:
            cursor.execute(TABLES)
        return connection


database = Database()


@app.get("/")
def show() -> str:
    return render_template(
        "shop.html", articles=database.run(ARTICLES), visits=cache.incr("visits")
    )


@app.post("/orders")
def order() -> Any:
    database.run("INSERT INTO orders (article) VALUES (%s)", request.form["article"])
    return redirect("/")
