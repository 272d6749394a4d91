-- Twelve products, as a shop's own database may have them: psql -d shop -f examples/postgres_source/products.sql
CREATE SCHEMA IF NOT EXISTS listings;
DROP TABLE IF EXISTS listings.products;
CREATE TABLE listings.products (
    sku text PRIMARY KEY,
    name text,
    details jsonb,
    colours text[],
    changed timestamptz NOT NULL DEFAULT now()
);
INSERT INTO listings.products (sku, name, details, colours) VALUES
    ('A-01', 'Cotton shirt, navy', '{"text": "Long sleeves"}', ARRAY['navy']),
    ('A-02', 'Wool scarf in red', '{"text": "Soft"}', ARRAY['Red']),
    ('A-03', 'Rain jacket, black', '{"text": "With a hood"}', ARRAY['Black']),
    ('A-04', 'Cotton shirt, red', '{}', NULL),
    ('A-05', 'Leather bag', '{"text": "Brown or black"}', NULL),
    ('A-06', 'Linen dress in blue', '{}', ARRAY['Blue']),
    ('A-07', 'Wool hat, blue', '{}', ARRAY['Blue']),
    ('A-08', 'Running shoe, black', '{}', ARRAY['Black']),
    ('A-09', 'Silk tie, red', '{}', ARRAY['Red']),
    ('A-10', NULL, '{}', ARRAY['Red']),
    ('A-11', 'Denim jacket', '{"text": "Blue"}', NULL),
    ('A-12', 'Belt, black', '{}', ARRAY['Black']);
