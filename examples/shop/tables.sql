CREATE TABLE IF NOT EXISTS articles (id serial PRIMARY KEY, name text UNIQUE, price int);
CREATE TABLE IF NOT EXISTS orders (
    id serial PRIMARY KEY, article int REFERENCES articles, at timestamptz DEFAULT now()
);
INSERT INTO articles (name, price) VALUES ('Apple', 1), ('Bread', 4), ('Cheese', 7)
    ON CONFLICT DO NOTHING;
