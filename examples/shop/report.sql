SELECT at::date AS day, name AS article, count(*) AS sold, sum(price) AS earned
    FROM orders JOIN articles ON articles.id = article
    GROUP BY day, name ORDER BY day DESC, name LIMIT 100;
